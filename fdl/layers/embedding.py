"""Embedding: a row of a table for every token, y[n, t] = w[x[n, t]].

Backward. A row is used wherever its token stands, so its errors add up there:

    dw[v] = sum over (n, t) with x[n, t] = v of dy[n, t]        a product with the one-hot tokens, done by adding into rows

x is an integer and has no gradient. Shapes: x [N, ...] of tokens 0 .. V-1, w [V, D], y [N, ..., D]. Tokens outside give NaN
and no gradient: loud (JAX wraps negative ones round and clips large ones). 16-bit rows are summed in float32. Errors:
InputError, InputTypeError.

    >>> fdl.ops.embedding({"w": jnp.float32([[1, 2], [3, 4]])}, jnp.int32([[1, 1, 0]]))
    Array([[[3., 4.],
            [3., 4.],
            [1., 2.]]], dtype=float32)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_count, require_float, require_integer
from fdl.layer import Layer, bind
from fdl.layers._weights import drawn
from fdl.op import Op, accumulator

normal = jax.nn.initializers.normal(0.05)


def init(key: Any, spec: jax.ShapeDtypeStruct, dtype: Any, *, vocabulary: int, features: int, w_init: Callable) -> dict:
    if not jnp.issubdtype(spec.dtype, jnp.integer):
        refuse("embedding", f"one example is {spec.dtype}, wanted tokens: jax.ShapeDtypeStruct(shape, jnp.int32)")
    return {"w": drawn("embedding", w_init, key, (vocabulary, features), dtype)}


def equation(params, x):
    w, x = params["w"], _wide(x)
    known = jax.nn.one_hot(x, w.shape[0], dtype=w.dtype)
    return jnp.where(_valid(w, x)[..., None], jnp.einsum("...v,vd->...d", known, w), jnp.nan)


def forward(params, x):
    _check(params, x)
    w, tokens = params["w"], _wide(x)
    y = w.at[jnp.where(_valid(w, tokens), tokens, 0)].get(mode="clip")
    return jnp.where(_valid(w, tokens)[..., None], y, jnp.asarray(jnp.nan, w.dtype)), (params, x)


def backward(residuals, dy):
    params, x = residuals
    w, x = params["w"], _wide(x)
    wide = accumulator(w.dtype)
    rows = jnp.where(_valid(w, x), x, w.shape[0]).reshape(-1)
    dw = jnp.zeros(w.shape, wide).at[rows].add(dy.reshape(-1, w.shape[1]).astype(wide), mode="drop")
    return {"w": dw.astype(w.dtype)}, None


def _wide(x):
    """The tokens in 32 bits at least: fewer may not hold the size of the vocabulary, which they are compared to."""
    return x.astype(jnp.int32) if jnp.iinfo(x.dtype).bits < 32 else x


def _valid(w, x):
    return (x >= 0) & (x < w.shape[0])


def _check(params, x):
    if not isinstance(params, dict) or set(params) != {"w"}:
        got = sorted(params) if isinstance(params, dict) else type(params).__name__
        refuse("embedding", f'params is {got}, wanted a dict with "w" [V, D]; init makes it')
    require_float("embedding", "w", params["w"])
    if params["w"].ndim != 2:
        refuse("embedding", f"w has shape {list(params['w'].shape)}, wanted [V, D]")
    require_integer("embedding", "x", x)


op = Op(equation, forward, backward)


def embedding(vocabulary: int, features: int, *, w_init: Callable = normal) -> Layer:
    """Tokens [N, ...] -> [N, ..., D]; params {"w" [V, D]}, normal with deviation 0.05. init takes jax.ShapeDtypeStruct((T,), jnp.int32).

    >>> params, state = fdl.embedding(1000, 16).init(jax.random.key(0), jax.ShapeDtypeStruct((7,), jnp.int32))
    >>> params["w"].shape
    (1000, 16)
    """
    require_count("embedding", "vocabulary", vocabulary)
    require_count("embedding", "features", features)
    return Layer.from_op("embedding", op, bind(init, vocabulary=vocabulary, features=features, w_init=w_init))

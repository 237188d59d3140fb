"""Dense layer: y = x w + b.

Shapes: x [..., I], w [I, O], b [O], y [..., O]; the axes before the last are examples, n below runs over all of them.

Backward. y[n, o] = sum_i x[n, i] w[i, o] + b[o], so for a cotangent dy

    dw[i, o] = sum_n x[n, i] dy[n, o]      dw = x^T dy     activity times error: the Hebbian reading, rank 1 per example
    db[o]    = sum_n dy[n, o]                              b reaches every example, so their errors add up
    dx[n, i] = sum_o dy[n, o] w[i, o]      dx = dy w^T     the error goes back through the same weights

The weight from unit j to unit i, w_ij in many notes, is w[j, i] here. 16-bit inputs are accumulated in float32 and rounded
once. Errors: InputError where x's features are not the rows of w; InputTypeError for a dtype that is not floating or that
differs between x and w. Source: Rumelhart, Hinton & Williams 1986, eq. 1 and 6; init: Glorot & Bengio 2010, eq. 16.

    >>> params = {"w": jnp.float32([[1], [2]]), "b": jnp.float32([10])}
    >>> y, residuals = fdl.ops.dense.forward(params, jnp.float32([[3, 4]]))
    >>> dparams, dx = fdl.ops.dense.backward(residuals, jnp.ones_like(y))
    >>> y, dparams["w"].ravel(), dx
    (Array([[21.]], dtype=float32), Array([3., 4.], dtype=float32), Array([[1., 2.]], dtype=float32))
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse, refuse_type, require_float, require_rank_at_least, require_same_dtype
from fdl.layer import Layer, bind
from fdl.layers._weights import drawn
from fdl.op import Op, accumulator

glorot_uniform = jax.nn.initializers.glorot_uniform()


def init(key: Any, spec: jax.ShapeDtypeStruct, dtype: Any, *, features: int, bias: bool, w_init: Callable) -> dict:
    require_rank_at_least("dense", "one example", spec, 1, "features last")
    params = {"w": drawn("dense", w_init, key, (spec.shape[-1], features), dtype)}
    return params | {"b": jnp.zeros(features, dtype)} if bias else params


def equation(params, x):
    y = jnp.einsum("...i,io->...o", x, params["w"])
    return y + params["b"].reshape((1,) * (x.ndim - 1) + (-1,)) if "b" in params else y


def forward(params, x):
    _check(params, x)
    w = params["w"]
    accumulate = accumulator(x.dtype)
    y = jnp.matmul(x, w, preferred_element_type=accumulate)
    if "b" in params:
        y = y + params["b"].astype(accumulate).reshape((1,) * (x.ndim - 1) + (-1,))
    return y.astype(x.dtype), (params, x)


def backward(residuals, dy):
    params, x = residuals
    w = params["w"]
    accumulate = accumulator(x.dtype)
    rows_x, rows_dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])  # [n, I], [n, O]
    dparams = {"w": jnp.matmul(rows_x.T, rows_dy, preferred_element_type=accumulate).astype(w.dtype)}
    if "b" in params:
        dparams["b"] = rows_dy.sum(axis=0, dtype=accumulate).astype(w.dtype)
    dx = jnp.matmul(dy, w.T, preferred_element_type=accumulate).astype(x.dtype)
    return dparams, dx


def _check(params, x):
    if not isinstance(params, dict) or "w" not in params or set(params) - {"w", "b"}:
        got = sorted(params) if isinstance(params, dict) else type(params).__name__
        refuse("dense", f'params is {got}, wanted a dict with "w" [I, O] and, with bias, "b" [O]; init makes it')
    w = params["w"]
    require_float("dense", "x", x)
    require_float("dense", "w", w)
    if w.ndim != 2:
        refuse("dense", f"w has shape {list(w.shape)}, wanted [I, O]")
    if x.ndim < 1 or x.shape[-1] != w.shape[0]:
        features = x.shape[-1] if x.ndim else "no axis"
        refuse(
            "dense",
            f"got features {features}, its weights want {w.shape[0]}: x has shape {list(x.shape)}, w {list(w.shape)}; "
            "check the layer before, or flatten() it",
        )
    require_same_dtype("dense", "x", x, "w", w)
    if "b" in params:
        if params["b"].shape != w.shape[1:]:
            refuse("dense", f"b has shape {list(params['b'].shape)}, wanted {list(w.shape[1:])}, the columns of w")
        require_same_dtype("dense", "w", w, "b", params["b"])


op = Op(equation, forward, backward)


def dense(features: int, bias: bool = True, *, w_init: Callable = glorot_uniform) -> Layer:
    """y = x w + b: [..., I] -> [..., features]; params {"w" [I, O], "b" [O]}, w Glorot-uniform, b zero.

    w_init: an initialiser `(key, shape, dtype) -> array`, such as `jax.nn.initializers.he_normal()` for relu, `orthogonal()`,
    `normal(0.01)` for small Gaussian weights (_weights.py has the table).

        >>> params, state = fdl.dense(3).init(jax.random.key(0), (5,))
        >>> params["w"].shape, params["b"].shape
        ((5, 3), (3,))
    """
    if isinstance(features, bool) or not isinstance(features, int) or features < 1:
        refuse_type("dense", f"features is {features!r}, wanted a positive int")
    return Layer.from_op("dense", op, bind(init, features=features, bias=bool(bias), w_init=w_init))

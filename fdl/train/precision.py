"""Mixed precision: the model computes in 16 bits; parameters, state, the loss and the optimizer stay in 32.

    y = f_16(cast_16(params), cast_16(x))            dparams = cast_32(dparams_16), for a cast is linear

Sums inside the ops are in float32 already (products, means, statistics); what is rounded is what stands between the layers.
bfloat16 has float32's range, so that no loss scaling is needed. Source: Micikevicius et al., "Mixed precision training", 2018.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse
from fdl.layer import Layer, Params, Pass, State, bind
from fdl.op import Static, accumulator

_DTYPES = {"bfloat16": jnp.bfloat16, "float16": jnp.float16}


def computed_in(model: Layer, precision: str) -> Layer:
    """The same model, computing in "bfloat16" (or "float16", whose gradients underflow below 6e-8: scale the loss yourself)."""
    if not isinstance(precision, str) or precision not in _DTYPES:
        refuse("train.fit", f"precision is {precision!r}, wanted None or one of {list(_DTYPES)}")
    dtype = Static(jnp.dtype(_DTYPES[precision]))
    return Layer(
        model.name,
        init=model._init,
        run=bind(_run, model=model, dtype=dtype),
        backward=bind(_backward, model=model, dtype=dtype),
        layers=model.layers,
        stochastic=model.stochastic,
        examples=model.examples,
    )


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def _run(walk: Pass, params: Params, state: State, x: Any, *, model: Layer, dtype: Static) -> tuple[Any, State, Any]:
    y, new_state, residuals = model._run(walk, _cast(params, dtype.value), state, _cast(x, dtype.value))
    new_state = jax.tree.map(lambda new, old: new.astype(old.dtype), new_state, state)
    dtypes = Static(tuple(a.dtype for a in jax.tree.leaves(params)))
    return y.astype(accumulator(y.dtype)), new_state, (residuals, dtypes, Static(jnp.dtype(x.dtype)))


def _backward(
    residuals: Any, dy: Any, *, model: Layer, dtype: Static, deltas: dict | None = None
) -> tuple[Params, Any]:
    residuals, dtypes, of_x = residuals
    dparams, dx = model.backward(residuals, dy.astype(dtype.value), deltas=deltas)
    leaves, structure = jax.tree.flatten(dparams)
    wide = [a.astype(wanted) for a, wanted in zip(leaves, dtypes.value, strict=True)]
    return jax.tree.unflatten(structure, wide), dx if dx is None else _cast(dx, of_x.value)

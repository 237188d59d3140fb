"""Penalties on the parameters: `penalty(params) -> scalar`, an Op whose backward is written by hand.

    penalty = fdl.regularizers.l2(1e-4)
    value = penalty(params)
    value, residuals = penalty.forward(params)
    (dparams,) = penalty.backward(residuals, jnp.float32(1))

By default they see arrays of rank 2 and more: weights, but neither biases nor the scale and shift of a normalization. A
filter `(path, array) -> bool`, with paths like "dense_0/w", chooses others; one that matches nothing is an error.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_number
from fdl.op import Op, accumulator


def weights_only(path: str, array: Any) -> bool:
    """The default filter: arrays of rank 2 and more."""
    return array.ndim >= 2


def l2(strength: float, *, half: bool = False, filter: Callable[[str, Any], bool] = weights_only) -> Op:
    """strength * sum w^2 (Keras's convention), or strength / 2 * sum w^2 with `half` (the gradient is then strength w).

    Backward. The penalty holds every w once: dw = 2 strength w, or strength w with `half`. A filtered-out array gets 0.
    Under plain SGD the second is weight decay: w <- (1 - learning_rate strength) w. As a prior it is a Gaussian of
    variance 1 / (2 strength), or 1 / strength with `half`. `strength` may be traced. Sums are accumulated in float32.
    Errors: InputError for a negative or NaN strength, or a filter that matches no array.
    Source: Goodfellow, Bengio & Courville 2016, section 7.1.1.
    """
    require_number("regularizers.l2", "strength", strength, 0, float("inf"), remedy="a penalty pushes towards 0")
    return _L2.bind(strength=strength, half=bool(half), filter=filter)


def _l2_equation(params, *, strength, half, filter):
    share = strength / 2 if half else strength
    return sum(share * jnp.sum(w**2) for chosen, w in _chosen("regularizers.l2", params, filter) if chosen)


def _l2_forward(params, *, strength, half, filter):
    leaves = [_wide(w) for chosen, w in _chosen("regularizers.l2", params, filter) if chosen]
    share = strength / 2 if half else strength
    total = functools.reduce(jnp.add, [jnp.sum(w * w) for w in leaves])
    return total * jnp.asarray(share, total.dtype), params


def _l2_backward(params, dpenalty, *, strength, half, filter):
    factor = strength if half else 2 * strength

    def pull(chosen, w):
        wide = _wide(w)
        return (
            (dpenalty.astype(wide.dtype) * jnp.asarray(factor, wide.dtype) * wide).astype(w.dtype)
            if chosen
            else jnp.zeros_like(w)
        )

    pairs = _chosen("regularizers.l2", params, filter)
    return (jax.tree.unflatten(jax.tree.structure(params), [pull(chosen, w) for chosen, w in pairs]),)


_L2 = Op(_l2_equation, _l2_forward, _l2_backward, name="regularizers.l2")


def _wide(w: Any) -> Any:
    return w.astype(accumulator(w.dtype))


def _chosen(where: str, params: Any, filter: Callable[[str, Any], bool]) -> list[tuple[bool, Any]]:
    """(does the penalty see it, array) for every leaf of params, in the order of the tree."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    pairs = [(bool(filter(jax.tree_util.keystr(path, simple=True, separator="/"), w)), w) for path, w in leaves]
    if not any(chosen for chosen, _ in pairs):
        names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
        refuse(where, f"the filter matches none of the parameters {names}; pass filter=lambda path, array: ...")
    return pairs

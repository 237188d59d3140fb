"""What the global poolings share: x [N, *places, C] as [N, P, C], and a mask as [N, P, 1]."""

import math
from typing import Any

import jax.numpy as jnp

from fdl.errors import refuse, require_float, require_mask
from fdl.layer import Layer, Params, Pass, State, bind, no_parameters
from fdl.op import Op


def door(where: str, x: Any, mask: Any) -> None:
    require_float(where, "x", x)
    if x.ndim < 3 or 0 in x.shape[1:-1]:
        refuse(where, f"x has shape {list(x.shape)}, wanted [N, *places, C] with at least one place")
    if mask is not None:
        require_mask(where, mask, x, x.ndim - 1)


def row_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, P, C)"""
    return shape[0], math.prod(shape[1:-1]), shape[-1]


def in_a_row(x: Any) -> Any:
    return x.reshape(row_shape(x.shape))


def counted(mask: Any, shape: tuple[int, ...]) -> Any:
    """Which places of an x of this shape count, [N, P, 1]; None if all do."""
    if mask is None:
        return None
    spread = mask.reshape(mask.shape + (1,) * (len(shape) - 1 - mask.ndim))
    return in_a_row(jnp.broadcast_to(spread[..., None], (*shape[:-1], 1)))


def layer_of(op: Op) -> Layer:
    """Its layer: [N, *places, C] -> [N, C], with the mask of the walk."""
    return Layer(op.name, init=no_parameters, run=bind(_run, op=op), backward=bind(_backward, op=op))


def _run(walk: Pass, params: Params, state: State, x: Any, *, op: Op) -> tuple[Any, State, Any]:
    y, residuals = walk.evaluate(op, x, walk.mask)
    return y, state, residuals


def _backward(residuals: Any, dy: Any, *, op: Op) -> tuple[Params, Any]:
    return {}, op.backward(residuals, dy)[0]

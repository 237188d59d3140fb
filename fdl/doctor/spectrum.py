"""Singular values of a layer's Jacobian J = dy/dx, from a few products with it.

J^T dy is the layer's own backward pass, and J v the transpose of that, which is linear in dy: neither differentiates the
forward pass. From a random unit vector Golub & Kahan's bidiagonalization (1965) takes S steps of power iteration and keeps
their directions orthogonal, so that J, seen in the space they span, is a bidiagonal S x S matrix, and its singular values
estimate those of J: the largest from below, the smallest from above, both exact once S is the smaller side of J. It starts on
that smaller side, where J has no null space by its shape alone. Where J has fewer distinct singular values than steps (an
orthogonal matrix has one), the space closes before, and what is left to normalize is rounding.

Examples that do not meet have a J each; the first one's stands for them. Layers that mix examples (batch_norm) have the J of
the first `TOGETHER` as a batch of their own, layers of a fixed batch size that of the whole. The J of an activation is diagonal,
diag(f'(x)): its largest and smallest |f'| over the whole batch are exact.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.doctor.batch import counted_only
from fdl.doctor.parameters import directions
from fdl.doctor.watch import Seen
from fdl.layers.activations import ACTIVATIONS
from fdl.op import accumulator

TOGETHER = 8  # examples; products with the J of a whole batch would cost as much as the rest of a chart


def spectrum(seen: Seen, steps: int) -> tuple[Any, Any]:
    """(diagonal, one above it) [S], [S] of a bidiagonal matrix with the singular values; NaN for what is not measured."""
    dtype = accumulator(seen.y.dtype)
    missing = jnp.full(steps, jnp.nan, dtype)
    if not jnp.issubdtype(seen.x.dtype, jnp.floating) or steps == 0:
        return missing, missing
    if seen.layer.name in ACTIVATIONS:
        _, slopes = seen.layer.backward(seen.residuals, jnp.ones_like(seen.y))
        slopes = jnp.abs(slopes.astype(dtype))
        high, low = (counted_only(seen.walk.mask, slopes, fill) for fill in (0.0, jnp.inf))
        ends = jnp.full(steps, jnp.max(jnp.max(high, axis=0))).at[-1].set(jnp.min(jnp.min(low, axis=0)))
        return ends, jnp.zeros_like(ends)
    if not seen.params:
        return missing, missing
    residuals, x, y = seen.residuals, seen.x, seen.y
    if seen.layer.examples is None:
        few = TOGETHER if seen.state else 1
        x = x[:few]
        mask = None if seen.walk.mask is None else seen.walk.mask[:few]
        walk = dataclasses.replace(seen.walk, mask=mask)
        y, _, residuals = seen.layer._run(walk, seen.params, seen.state, x)
    return bidiagonal(lambda dy: seen.layer.backward(residuals, dy)[1], x, y, steps)


def bidiagonal(transposed: Callable, x: Any, y: Any, steps: int) -> tuple[Any, Any]:
    """Golub-Kahan from the smaller side; transposed: dy -> J^T dy."""
    forward = jax.vjp(transposed, jnp.zeros_like(y))[1]
    there, back, start = (lambda v: forward(v)[0]), transposed, x
    if y.size < x.size:
        there, back, start = back, there, y
    dtype = accumulator(start.dtype)
    short = min(steps, start.size)

    def unit(v: Any) -> tuple[Any, Any]:
        norm = jnp.sqrt(jnp.vdot(v, v))
        return v / jnp.where(norm > 0, norm, jnp.ones_like(norm)), norm

    def without(v: Any, basis: list) -> Any:
        for one in basis:
            v = v - jnp.vdot(one, v) * one
        return v

    cast = lambda v, like: v.astype(like.dtype)
    v, _ = unit(directions(start.shape, dtype))
    rights, lefts, diagonal, above = [], [], [], []
    other = y if start is x else x
    rounding = 4 * max(float(jnp.finfo(a.dtype).eps) for a in (x, y)) * math.sqrt(start.size)
    largest = jnp.zeros((), dtype)
    closed = jnp.zeros((), bool)
    for step in range(short):
        rights.append(v)
        u = without(there(cast(v, start)).astype(dtype), lefts)
        u, alpha = unit(u)
        lefts.append(u)
        # once closed, the first diagonal entry stands in: it lies between the extremes, and changes neither
        diagonal.append(alpha if step == 0 else jnp.where(closed, diagonal[0], alpha))
        largest = jnp.maximum(largest, diagonal[-1])
        if step + 1 < short:
            v, beta = unit(without(back(cast(u, other)).astype(dtype), rights))
            closed |= beta <= rounding * largest
            above.append(jnp.where(closed, jnp.zeros_like(beta), beta))
            largest = jnp.maximum(largest, above[-1])
    zero = jnp.zeros((), dtype)
    diagonal += [diagonal[0]] * (steps - short)
    above += [zero] * (steps - len(above))
    return jnp.stack(diagonal), jnp.stack(above)


def singular_values(diagonals: Any, aboves: Any) -> Any:
    """[L, S] of bidiagonal matrices, the largest first."""
    steps = diagonals.shape[-1]
    if steps == 0:
        return diagonals
    shape = (*diagonals.shape, steps)
    on, above = (jnp.broadcast_to(jnp.eye(steps, k=k, dtype=diagonals.dtype), shape) for k in (0, 1))
    return jnp.linalg.svd(diagonals[..., None] * on + aboves[..., None] * above, compute_uv=False)

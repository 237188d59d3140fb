"""Mean and variance that keep their digits, and what the normalizations share.

    mean = pivot + offset        offset = E[x - pivot]        pivot: an entry of x
    var  = E[(x - mean)^2]       with x - mean computed as (x - pivot) - offset

Where the mean is large against the deviations, x - pivot is exact, and the offset is of the size of the deviations: no digits
are lost. The textbook's E[x^2] - mean^2 loses all of them at mean 1e4, deviation 1 in float32 (`fast=True` computes it).
Where squares overflow, above about 1e18, the deviations are divided by the largest of them first.

One pass over x is enough (`_in_one_pass`): every block of k entries has a pivot of its own, and with the block's sums s1 of
x - pivot and s2 of (x - pivot)^2, m entries in all and sums over the blocks,

    offset[block] = pivot[block] - pivot + s1 / k
    offset = k/m sum offset[block]        var = 1/m sum (s2 - s1^2 / k + k (offset[block] - offset)^2)

The pivot is one of the k entries, so s2 is at most k times the sum of squares about the block's mean that the difference
leaves: it loses at most log2(k) bits, and that only if the pivot is an outlier.

Backward. With x^ = (x - mean) / sqrt(var + eps) over m entries and an error g at x^, by the sum over the three paths by which
x reaches x^ (itself, the mean, the variance)

    dx = (g - E[g] - x^ E[g x^]) / sqrt(var + eps)

Sums over devices: with `axis_name`, every sum and count runs over the named axis of a mesh or a `vmap` too. The members may
have different counts (masks): sums are added, never means averaged. The pivot is then that of the first member that has one.

Sums of deviations are not scaled: m times the largest must stay below the largest number of the dtype, 3e38 in float32.

Source: Ioffe & Szegedy 2015, section 3; shifted data and the sums of blocks: Chan, Golub & LeVeque 1983.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.layers._sums import Blocks, sums, unshared
from fdl.op import accumulator, on_explicit_mesh


class Moments(NamedTuple):
    """Of the entries along the reduced axes, which stay as axes of size 1."""

    pivot: jax.Array
    offset: jax.Array  # the mean is pivot + offset
    var: jax.Array
    rstd: jax.Array  # 1 / sqrt(var + eps); 0 where both are 0
    count: Any  # a number, or an array where a mask or other devices decide

    @property
    def mean(self) -> jax.Array:
        return self.pivot + self.offset

    def centred(self, x: jax.Array) -> jax.Array:
        return _deviation(x.astype(self.offset.dtype), self.pivot, self.offset)

    def normalized(self, x: jax.Array) -> jax.Array:
        (rstd,) = unshared(self.rstd)
        return self.centred(x) * rstd


def moments(
    x: jax.Array,
    axes: tuple[int, ...],
    eps: Any,
    *,
    counts: jax.Array | None = None,
    axis_name: Any = None,
    fast: bool = False,
) -> Moments:
    """The moments of x along the axes, in float32 for 16-bit inputs. counts: booleans that broadcast against x."""
    x = x.astype(accumulator(x.dtype))
    count = how_many(x, axes, counts, axis_name)
    eps = jnp.asarray(eps, x.dtype)
    if fast:
        total, squares = summed((x, x * x), axes, counts, axis_name)
        pivot, offset = jnp.zeros_like(total), total / count
        var = jnp.maximum(squares / count - offset * offset, 0)
        return Moments(pivot, offset, var, reciprocal_root(var + eps), count)
    blocks = None if on_explicit_mesh(x) else Blocks.of(x.shape, axes)  # explicit axes are not split
    if counts is None and axis_name is None and blocks is not None:
        pivot, offset, var = _in_one_pass(x, axes, blocks, count)
    else:
        pivot = jax.lax.stop_gradient(_pivot(x, axes, counts, axis_name))
        (offset,) = summed((x - pivot,), axes, counts, axis_name)
        offset = offset / count
        (squares,) = summed((_square(_deviation(x, pivot, offset)),), axes, counts, axis_name)
        var = squares / count
    deviation = lambda: _deviation(x, pivot, offset)
    rstd = reciprocal_deviation(var, deviation, count, axes, eps, counts=counts, axis_name=axis_name)
    return Moments(pivot, offset, var, rstd, count)


def _in_one_pass(x: jax.Array, axes: tuple[int, ...], blocks: Blocks, count: int) -> tuple[jax.Array, ...]:
    """(pivot, offset, var) by the sums of blocks."""
    k, split = blocks.size, blocks.split(x)
    pivots = jax.lax.stop_gradient(jax.lax.slice_in_dim(split, 0, 1, axis=blocks.axis))
    shifted = split - pivots
    s1, s2 = blocks.sums((shifted, shifted * shifted))
    pivot = jax.lax.stop_gradient(_first(x, axes))
    of_blocks = (jnp.squeeze(pivots, blocks.axis) - blocks.spread(pivot)) + s1 / k
    offset = blocks.finished(of_blocks) * (k / count)
    about_mean = (s2 - s1 * (s1 / k)) + k * _square(of_blocks - blocks.spread(offset))
    return pivot, offset, jnp.maximum(blocks.finished(about_mean), 0) / count


def reciprocal_deviation(
    mean_square: jax.Array,
    deviation: Callable[[], jax.Array],
    count: Any,
    axes: tuple[int, ...],
    eps: Any,
    *,
    counts: jax.Array | None = None,
    axis_name: Any = None,
) -> jax.Array:
    """1 / sqrt(mean_square + eps), where the squares overflow from deviations divided by the largest of them."""

    def plain() -> jax.Array:
        return reciprocal_root(mean_square + eps)

    def scaled() -> jax.Array:
        size = jnp.max(
            jnp.abs(deviation()), axis=axes, keepdims=True, initial=0, where=None if counts is None else counts
        )
        size = size if axis_name is None else jax.lax.pmax(size, axis_name)
        size = jax.lax.stop_gradient(jnp.where((size > 1) & jnp.isfinite(size), size, jnp.ones_like(size)))
        (squares,) = summed((_square(deviation() / size),), axes, counts, axis_name)
        return reciprocal_root(squares / count + eps / size / size) / size

    if axis_name is not None:  # no sums over devices inside a branch
        return scaled()
    return jax.lax.cond(jnp.isfinite(jnp.max(mean_square, initial=0)), plain, scaled)  # initial: of no examples too


def pulled(g: jax.Array, x: jax.Array, found: Moments, axes: tuple[int, ...]) -> jax.Array:
    """dx for an error g at x^, by the formula above, where every entry counts."""
    total, along = sums((g, g * found.normalized(x)), axes)
    return (g - total / found.count - found.normalized(x) * (along / found.count)) * found.rstd


def summed(
    values: tuple[jax.Array, ...], axes: tuple[int, ...], counts: jax.Array | None, axis_name: Any
) -> tuple[jax.Array, ...]:
    """The sums of what counts, over the other members of `axis_name` too."""
    if counts is not None:
        values = tuple(jnp.where(counts, x, jnp.zeros_like(x)) for x in values)
    if on_explicit_mesh(values):
        totals = tuple(jnp.sum(x, axis=axes, keepdims=True) for x in values)
    else:
        totals = sums(values, axes)
    return totals if axis_name is None else jax.lax.psum(totals, axis_name)


def how_many(x: jax.Array, axes: tuple[int, ...], counts: jax.Array | None, axis_name: Any) -> Any:
    """How many entries count; at least 1, so that nothing is divided by 0."""
    if counts is None:
        there = math.prod(x.shape[axis] for axis in axes)
        return there if axis_name is None else there * jax.lax.axis_size(axis_name)
    ones = jnp.broadcast_to(counts, x.shape).astype(x.dtype)
    return jnp.maximum(summed((ones,), axes, None, axis_name)[0], 1)


def _deviation(x: jax.Array, pivot: jax.Array, offset: jax.Array) -> jax.Array:
    pivot, offset = unshared(pivot, offset)
    return (x - pivot) - offset


def _square(x: jax.Array) -> jax.Array:
    return x * x


def reciprocal_root(x: jax.Array) -> jax.Array:
    """1 / sqrt(x); 0 at 0, where what it would multiply is 0 too, and NaN below."""
    # the root comes last: XLA computes a choice after it anew for every entry of what it multiplies (1.7 times the time)
    return jax.lax.rsqrt(jnp.where(x == 0, jnp.full_like(x, jnp.inf), x))


def _first(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    for axis in axes:
        x = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
    return x


def _pivot(x: jax.Array, axes: tuple[int, ...], counts: jax.Array | None, axis_name: Any) -> jax.Array:
    """An entry that counts, for every set of entries; the same for all members of `axis_name`."""
    if on_explicit_mesh(x):  # a slice of 1 of what is spread over devices is refused, a maximum is not
        pivot = jnp.max(x, axis=axes, keepdims=True, initial=-jnp.inf, where=counts)
        pivot = jnp.where(jnp.isfinite(pivot), pivot, jnp.zeros_like(pivot))
    elif counts is None:
        pivot = _first(x, axes)
    else:
        kept, pivot = counts, x
        for axis in axes:  # the first index that has an entry that counts, one axis after the other
            if counts.shape[axis] != x.shape[axis]:
                continue
            others = tuple(other for other in range(kept.ndim) if other != axis)
            index = jnp.argmax(jnp.any(kept, axis=others))
            kept = jax.lax.dynamic_slice_in_dim(kept, index, 1, axis)
            pivot = jax.lax.dynamic_slice_in_dim(pivot, index, 1, axis)
        pivot = _first(pivot, axes)
    if axis_name is None:
        return pivot
    index, first = jax.lax.axis_index(axis_name), 0
    if counts is not None:  # the pivot of a member where nothing counts is no entry, and may be far from all
        first = jax.lax.pmin(
            jnp.where(jnp.any(counts), index, jnp.full_like(index, jax.lax.axis_size(axis_name))), axis_name
        )
    return jax.lax.psum(jnp.where(index == first, pivot, jnp.zeros_like(pivot)), axis_name)

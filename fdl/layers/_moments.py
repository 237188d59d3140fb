"""Mean and variance that keep their digits, and what the normalizations share.

    mean = pivot + offset        offset = E[x - pivot]        pivot: an entry of x
    var  = E[(x - mean)^2]       with x - mean computed as (x - pivot) - offset

Where the mean is large against the deviations, x - pivot is exact, and the offset is of the size of the deviations: no digits
are lost. The textbook's E[x^2] - mean^2 loses all of them at mean 1e4, deviation 1 in float32 (`fast=True` computes it: one
pass over x less). Where squares overflow, above about 1e18, the deviations are divided by the largest of them first.

Backward. With x^ = (x - mean) / sqrt(var + eps) over m entries and an error g at x^, by the sum over the three paths by which
x reaches x^ (itself, the mean, the variance)

    dx = (g - E[g] - x^ E[g x^]) / sqrt(var + eps)

Sums over devices: with `axis_name`, every sum and count runs over the named axis of a mesh or a `vmap` too. The members may
have different counts (masks): sums are added, never means averaged. The pivot is then that of the first member.

Source: Ioffe & Szegedy 2015, section 3; shifted data: Chan, Golub & LeVeque 1983.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
        return (x.astype(self.offset.dtype) - self.pivot) - self.offset

    def normalized(self, x: jax.Array) -> jax.Array:
        return self.centred(x) * self.rstd


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
    average = lambda values: summed(values, axes, counts, axis_name) / count
    eps = jnp.asarray(eps, x.dtype)
    if fast:
        pivot, offset = jnp.zeros_like(_first(x, axes)), average(x)
        var = jnp.maximum(average(x * x) - offset * offset, 0)
        return Moments(pivot, offset, var, reciprocal_root(var + eps), count)
    pivot = jax.lax.stop_gradient(_pivot(x, axes, counts, axis_name))
    offset = average(x - pivot)
    var = average(_square((x - pivot) - offset))

    def plain() -> jax.Array:
        return reciprocal_root(var + eps)

    def scaled() -> jax.Array:
        deviation = jnp.abs((x - pivot) - offset)
        size = jnp.max(deviation, axis=axes, keepdims=True, initial=0, where=None if counts is None else counts)
        size = size if axis_name is None else jax.lax.pmax(size, axis_name)
        size = jax.lax.stop_gradient(jnp.where((size > 1) & jnp.isfinite(size), size, jnp.ones_like(size)))
        return reciprocal_root(average(_square(deviation / size)) + eps / size / size) / size

    if axis_name is not None:  # no sums over devices inside a branch
        return Moments(pivot, offset, var, scaled(), count)
    return Moments(pivot, offset, var, jax.lax.cond(jnp.all(jnp.isfinite(var)), plain, scaled), count)


def pulled(dnormalized: jax.Array, normalized: jax.Array, rstd: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """dx for an error at x^, by the formula above, where every entry counts."""
    mean = jnp.mean(dnormalized, axis=axes, keepdims=True)
    along = jnp.mean(dnormalized * normalized, axis=axes, keepdims=True)
    return (dnormalized - mean - normalized * along) * rstd


def summed(values: jax.Array, axes: tuple[int, ...], counts: jax.Array | None, axis_name: Any) -> jax.Array:
    """The sum of what counts, over the other members of `axis_name` too."""
    values = values if counts is None else jnp.where(counts, values, jnp.zeros_like(values))
    total = jnp.sum(values, axis=axes, keepdims=True)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def how_many(x: jax.Array, axes: tuple[int, ...], counts: jax.Array | None, axis_name: Any) -> Any:
    """How many entries count; at least 1, so that nothing is divided by 0."""
    if counts is None:
        there = math.prod(x.shape[axis] for axis in axes)
        return there if axis_name is None else there * jax.lax.axis_size(axis_name)
    ones = jnp.broadcast_to(counts, x.shape).astype(x.dtype)
    return jnp.maximum(summed(ones, axes, None, axis_name), 1)


def _square(x: jax.Array) -> jax.Array:
    return x * x


def reciprocal_root(x: jax.Array) -> jax.Array:
    """1 / sqrt(x); 0 at 0, where what it would multiply is 0 too, and NaN below."""
    positive = x > 0
    otherwise = jnp.where(x == 0, jnp.zeros_like(x), jnp.full_like(x, jnp.nan))
    return jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, x, jnp.ones_like(x))), otherwise)


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
    first = jax.lax.axis_index(axis_name) == 0
    return jax.lax.psum(jnp.where(first, pivot, jnp.zeros_like(pivot)), axis_name)

"""Sums of several arrays over the same axes, in one pass over memory.

A normalization needs two sums at a time: of x and x^2, of dy and dy x^. XLA on CPU makes each a pass of its own, whatever they
share. Here one `lax.reduce` makes all of them over blocks of a few entries, [R, C] -> [R / k, C], and ordinary sums finish
what is left, 1/k of the size; the short loop over a block is unrolled and the one over C is vectorised. Sums by blocks are
also more exact than running ones.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

# Entries per block, at most. Batch norm [65536, 64] and [256, 1024], layer norm [2048, 1024], forward and backward in float32 on
# 2 cores (EPYC, AVX-512), time against 16: 8 takes 1.11, 1.12, 1.06 times as long; 32 takes 1.4, 2.4, 3.2 times (no longer
# unrolled). Blocks of 16 against a sum of its own for each: 1.21, 1.34, 1.6 times as fast; at [64, 128] 1.2 times.
BLOCK = 16


def unshared(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The same arrays; what is computed from them is computed anew, not shared with another use.

    XLA on CPU fuses (x - mean) into the sum or the map that uses it, but only where nothing else does; shared, it is
    written to memory and read again, at [65536, 64] 1.3 times the time. For small arrays: each use pays what is cheap.
    """
    return jax.lax.optimization_barrier(arrays)


def sums(values: tuple[jax.Array, ...], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """The sum of each over these axes, which stay as axes of size 1. The arrays have the same shape and dtype."""
    blocks = Blocks.of(values[0].shape, axes)
    if len(values) == 1 or blocks is None:
        return tuple(jnp.sum(x, axis=axes, keepdims=True) for x in values)
    return tuple(blocks.finished(x) for x in blocks.sums(tuple(map(blocks.split, values))))


class Blocks:
    """A view of an array in which one axis has the entries of a block.

    The reduced axes that lie together are one axis of R; [A, R, B] is seen as [A, R / k, k, B], and as [A, k, R / k] where
    nothing follows them: what follows a block is contiguous.
    """

    def __init__(self, shape: tuple[int, ...], axes: tuple[int, ...], size: int):
        first, run = axes[0], _together(axes)
        before, after = shape[:first], shape[first + run :]
        rest = math.prod(shape[first : first + run]) // size
        self.size = size
        self.axis = first + 1 if after else first
        self._view = (*before, rest, size, *after) if after else (*before, size, rest)
        self._axes = (first, *(axis - run + 1 for axis in axes[run:]))
        self._kept = tuple(1 if axis in axes else n for axis, n in enumerate(shape))

    @classmethod
    def of(cls, shape: tuple[int, ...], axes: tuple[int, ...]) -> "Blocks | None":
        """The largest blocks; None if no number up to BLOCK divides what is reduced."""
        entries = math.prod(shape[axis] for axis in axes[: _together(axes)])
        size = next((size for size in range(BLOCK, 1, -1) if entries % size == 0), None)
        return None if size is None else cls(shape, axes, size)

    def split(self, x: jax.Array) -> jax.Array:
        return x.reshape(self._view)

    def sums(self, values: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """The sums over every block, for arrays that are split."""
        return jax.lax.optimization_barrier(_reduced(values, self.axis))  # made once, not in each of their uses

    def finished(self, of_blocks: jax.Array) -> jax.Array:
        """The sum over all blocks, of the shape that the whole sum has."""
        return jnp.sum(of_blocks, axis=self._axes).reshape(self._kept)

    def spread(self, whole: jax.Array) -> jax.Array:
        """What there is once for every sum, as it broadcasts against what there is for every block."""
        return whole.reshape(tuple(1 if i in self._axes else n for i, n in enumerate(self._of_blocks)))

    @property
    def _of_blocks(self) -> tuple[int, ...]:
        return self._view[: self.axis] + self._view[self.axis + 1 :]


def _together(axes: tuple[int, ...]) -> int:
    """How many of the first axes lie side by side."""
    return next((i for i in range(1, len(axes)) if axes[i] != axes[0] + i), len(axes))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _reduced(values: tuple[jax.Array, ...], axis: int) -> tuple[jax.Array, ...]:
    zeros = tuple(jnp.zeros((), x.dtype) for x in values)
    added = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))
    return tuple(jax.lax.reduce(values, zeros, added, (axis,)))


@_reduced.defjvp
def _reduced_jvp(axis: int, primals: Any, tangents: Any) -> Any:
    # linear; written with sums that JAX can transpose
    return _reduced(*primals, axis), tuple(jnp.sum(x, axis=axis) for x in tangents[0])

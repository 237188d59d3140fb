"""Ways to compute a convolution and its two gradients, all equal up to rounding.

x [N, *S, I], w [*K, I/G, O], y [N, *P, O]; G groups; an accumulation dtype for the products.

- patches: the |K| shifted inputs side by side, [N, *P, |K| I], and one matrix product with w as [|K| I, O]
- shifted: one product per kernel cell, and their sum; for one channel per group a multiplication, and all cells one fused loop
- cells:   one product of x with all kernel cells at once, [N, *S, |K| O], and the sum of its shifted parts: for few outputs
- library: the `lax` convolution, and the gradients that JAX derives from it
- wide:    any of them for the same convolution with `width` neighbours along the last axis as channels of one cell, so that a product
           has `width` times as many outputs and the patches are wider and fewer; its kernel has zeros where an output does not see
           an input: width 2 and 3 kernel cells 4/3 as many multiplications

dx is either gathered, as a convolution of dy with the flipped kernel, so that any forward will do, the phases of a stride side by side
as channels; or scattered: the products dy w[k]^T are laid out with the strides and added. No `lhs_dilation`, which is slow on CPU.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fdl.layers.conv.geometry import Cells, Geometry


def padded(x: Any, geometry: Geometry) -> Any:
    """The used cells of the padded input."""
    if not any(lo or hi for lo, hi in geometry.pads):
        return x
    around = [(0, 0, 0), *((lo, hi, 0) for lo, hi in geometry.pads), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), around)


def _cut(x: Any, start: Cells, geometry: Geometry, axis: int) -> Any:
    """Where the outputs meet one kernel cell; the spatial axes of x begin at `axis`."""
    axes = zip(start, geometry.outputs, geometry.strides, strict=True)
    ends = tuple(a + (p - 1) * s + 1 for a, p, s in axes)
    before, after = x.shape[:axis], x.shape[axis + geometry.rank :]
    strides = (*(1 for _ in before), *geometry.strides, *(1 for _ in after))
    return lax.slice(x, (*(0 for _ in before), *start, *(0 for _ in after)), (*before, *ends, *after), strides)


def views(x: Any, geometry: Geometry) -> list[Any]:
    """For every kernel cell, the input cells that the outputs meet there: [N, *P, I]."""
    x = padded(x, geometry)
    return [_cut(x, start, geometry, 1) for start in geometry.starts()]


def exchanged(w: Any, groups: int) -> Any:
    """[*K, I/G, O] to [*K, O/G, I]: inputs and outputs exchanged within each group."""
    *kernel, i, o = w.shape
    split = w.reshape(*kernel, i, groups, o // groups)
    return jnp.swapaxes(split, -1, -3).reshape(*kernel, o // groups, groups * i)


def _apply(x: Any, w: Any, groups: int, accumulate: Any) -> Any:
    """[..., I] with [I/G, O]: the product within each group."""
    if groups == 1:
        return jnp.matmul(x, w, preferred_element_type=accumulate)
    i, o = w.shape
    w = w.reshape(i, groups, o // groups)
    if i == 1:  # depthwise: one fused loop, where a product per channel would be C tiny ones
        x, w = x.astype(accumulate)[..., None], w.astype(accumulate)
        return (x * w.reshape((1,) * (x.ndim - 2) + w.shape[1:])).reshape(*x.shape[:-2], o)
    x = x.reshape(*x.shape[:-1], groups, i)
    y = jnp.einsum("...gi,igo->...go", x, w, preferred_element_type=accumulate)
    return y.reshape(*y.shape[:-2], o)


def _outer(x: Any, dy: Any, groups: int, accumulate: Any) -> Any:
    """[..., I] and [..., O] to [I/G, O]: the sum of x dy over everything else, within each group."""
    x, dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    if groups == 1:
        return jnp.matmul(x.T, dy, preferred_element_type=accumulate)
    i, o = x.shape[-1] // groups, dy.shape[-1]
    dy = dy.reshape(-1, groups, o // groups)
    if i == 1:
        products = (x.astype(accumulate)[:, :, None] * dy.astype(accumulate)).reshape(-1, o)
        # summed by a product with ones: as a reduction it took 161 ms in a loop, this 11 (3x3 on 64x16x16x64)
        return jnp.matmul(jnp.ones((1, products.shape[0]), accumulate), products)
    x = x.reshape(-1, groups, i)
    return jnp.einsum("ngi,ngo->igo", x, dy, preferred_element_type=accumulate).reshape(i, o)


def _grouped_patches(x: Any, geometry: Geometry) -> Any:
    """[N, *P, G |K| I/G]: the patches of one group side by side."""
    shifted = views(x, geometry)
    if geometry.groups == 1:
        return jnp.concatenate(shifted, -1) if len(shifted) > 1 else shifted[0]
    *lead, channels = shifted[0].shape
    stacked = jnp.stack([v.reshape(*lead, geometry.groups, -1) for v in shifted], axis=-2)
    return stacked.reshape(*lead, channels * len(shifted))


def patches_forward(x: Any, w: Any, geometry: Geometry, accumulate: Any) -> Any:
    w = w.reshape(-1, w.shape[-1])  # [|K| I/G, O]
    return _apply(_grouped_patches(x, geometry), w, geometry.groups, accumulate)


def patches_dw(x: Any, dy: Any, geometry: Geometry, accumulate: Any) -> Any:
    """The patches transposed, [|K| I, N *P], so that the sum runs along rows of theirs: 17 against 23 ms (3x3, 32 channels), 1.7
    against 2.4 (3 channels)."""
    if geometry.groups > 1:
        dw = _outer(_grouped_patches(x, geometry), dy, geometry.groups, accumulate)
    else:
        channels_first = jnp.transpose(padded(x, geometry), (x.ndim - 1, *range(x.ndim - 1)))
        shifted = [_cut(channels_first, start, geometry, 2) for start in geometry.starts()]
        columns = jnp.concatenate(shifted).reshape(len(shifted) * x.shape[-1], -1)
        dw = jnp.matmul(columns, dy.reshape(-1, dy.shape[-1]), preferred_element_type=accumulate)
    return dw.reshape(*geometry.kernel, -1, dy.shape[-1])


def shifted_forward(x: Any, w: Any, geometry: Geometry, accumulate: Any) -> Any:
    products = [
        _apply(view, w[k], geometry.groups, accumulate)
        for view, k in zip(views(x, geometry), geometry.offsets, strict=True)
    ]
    return sum(products[1:], start=products[0])


def shifted_dw(x: Any, dy: Any, geometry: Geometry, accumulate: Any) -> Any:
    dw = jnp.stack([_outer(view, dy, geometry.groups, accumulate) for view in views(x, geometry)])
    return dw.reshape(*geometry.kernel, -1, dy.shape[-1])


def cells_forward(x: Any, w: Any, geometry: Geometry, accumulate: Any) -> Any:
    """For one group."""
    *kernel, i, o = w.shape
    w = jnp.moveaxis(w.reshape(-1, i, o), 0, 1).reshape(i, -1)  # [I, |K| O]
    products = jnp.matmul(padded(x, geometry), w, preferred_element_type=accumulate)
    parts = [
        _cut(lax.slice_in_dim(products, n * o, (n + 1) * o, axis=-1), start, geometry, 1)
        for n, start in enumerate(geometry.starts())
    ]
    return sum(parts[1:], start=parts[0])


def widens(geometry: Geometry) -> bool:
    """Whether `wide` applies: one group, and along the last axis neighbours that see neighbours."""
    return geometry.groups == geometry.strides[-1] == geometry.dilation[-1] == 1 < geometry.kernel[-1]


def widened(geometry: Geometry, width: int) -> Geometry:
    """With `width` cells of the last axis as one. Its last output tile may reach beyond the outputs, its last kernel cell beyond
    what they see: zeros there."""
    tiles = -(-geometry.outputs[-1] // width)
    taps = -(-(width + geometry.kernel[-1] - 1) // width)
    inputs, kernel = (*geometry.inputs[:-1], tiles + taps - 1), (*geometry.kernel[:-1], taps)
    return Geometry(inputs, kernel, geometry.strides, (*geometry.padding[:-1], (0, 0)), geometry.dilation, 1)


def wide_forward(forward: Callable, width: int) -> Callable:
    """That forward, with `width` outputs at a time."""

    def run(x: Any, w: Any, geometry: Geometry, accumulate: Any) -> Any:
        wide = widened(geometry, width)
        y = forward(_wide_inputs(x, geometry, wide, width), _wide_kernel(w, wide, width), wide, accumulate)
        return _narrowed(y, geometry, w.shape[-1])

    return run


def wide_patches(x: Any, w: Any, b: Any, geometry: Geometry, accumulate: Any, width: int) -> Any:
    """y + b by patches, `width` outputs at a time; a column of ones for b, which may be None, spares a pass over y."""
    wide = widened(geometry, width)
    shifted = views(_wide_inputs(x, geometry, wide, width), wide)
    many = _wide_kernel(w, wide, width)
    many = many.reshape(-1, many.shape[-1])
    if b is not None:
        shifted.append(jnp.ones((*shifted[0].shape[:-1], 1), x.dtype))
        many = jnp.concatenate([many, jnp.tile(b, width)[None]])
    return _narrowed(_apply(jnp.concatenate(shifted, -1), many, 1, accumulate), geometry, w.shape[-1])


def wide_dw(x: Any, dy: Any, geometry: Geometry, accumulate: Any, width: int) -> Any:
    """`width` outputs at a time by their patches as they are: what the wide kernel's places have that are one of w is added."""
    wide, size, o = widened(geometry, width), geometry.kernel[-1], dy.shape[-1]
    more = wide.outputs[-1] * width - geometry.outputs[-1]
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), [*[(0, 0, 0)] * (dy.ndim - 2), (0, more, 0), (0, 0, 0)])
    columns = jnp.concatenate(views(_wide_inputs(x, geometry, wide, width), wide), -1)
    found = _outer(columns, dy.reshape(*dy.shape[:-2], -1, width * o), 1, accumulate)
    found = found.reshape(*geometry.kernel[:-1], wide.kernel[-1] * width, -1, width, o)
    parts = [found[..., t : t + size, :, t, :] for t in range(width)]
    return sum(parts[1:], start=parts[0])


def _wide_inputs(x: Any, geometry: Geometry, wide: Geometry, width: int) -> Any:
    """[N, *S, I] to [N, *S / width, width I]."""
    before, cells = geometry.padding[-1][0], wide.inputs[-1] * width
    around = [(0, 0, 0)] * (x.ndim - 2) + [(before, cells - before - x.shape[-2], 0), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), around).reshape(*x.shape[:-2], -1, width * x.shape[-1])


def _wide_kernel(w: Any, wide: Geometry, width: int) -> Any:
    """[*K, I, O] to [*K, K' / width, width I, width O]: the kernel of output t of a tile begins at input t."""
    *lead, size, i, o = w.shape
    cells, rest = wide.kernel[-1] * width, [(0, 0, 0)] * (w.ndim - 3)
    zero = jnp.zeros((), w.dtype)
    moved = [lax.pad(w, zero, [*rest, (t, cells - size - t, 0), (0, 0, 0), (0, 0, 0)]) for t in range(width)]
    return jnp.stack(moved, -2).reshape(*lead, -1, width * i, width * o)


def _narrowed(y: Any, geometry: Geometry, o: int) -> Any:
    """[N, *P / width, width O] to [N, *P, O]."""
    return lax.slice_in_dim(y.reshape(*y.shape[:-2], -1, o), 0, geometry.outputs[-1], axis=-2)


def gathered_dx(forward: Callable) -> Callable:
    """dx as that forward of dy, with the flipped kernel.

    With strides s, input cell lo + q = s m + a (phase a < s) meets the kernel cells k = s j + a: m = p + j. So the phases of a place
    m are so many channels of one convolution of stride 1, of dy with the kernel [J, s] for [K], flipped along J.
    """

    def dx(dy: Any, w: Any, geometry: Geometry, accumulate: Any) -> Any:
        # the barrier keeps XLA from folding the reversal into its convolution: measured with it, as fast as a forward one
        kernel = lax.optimization_barrier(phased(w, geometry))
        return _interleaved(forward(dy, kernel, geometry.phases, accumulate), geometry)

    return dx


def phased(w: Any, geometry: Geometry) -> Any:
    """[*K, I/G, O] to [*J, O/G, G *s I/G]: flipped along J, inputs and outputs exchanged within each group."""
    *_, i, o = w.shape
    g, strides, taps, rank = geometry.groups, geometry.strides, geometry.phases.kernel, geometry.rank
    axes = zip(strides, taps, geometry.kernel, geometry.spread, strict=True)
    around = [(0, s * j - d * (k - 1) - 1, d - 1) for s, j, k, d in axes]
    w = lax.pad(w, jnp.zeros((), w.dtype), [*around, (0, 0, 0), (0, 0, 0)])
    w = w.reshape(*itertools.chain(*zip(taps, strides, strict=True)), i, g, o // g)
    every_tap, every_phase = range(0, 2 * rank, 2), range(1, 2 * rank, 2)
    w = jnp.transpose(jnp.flip(w, tuple(every_tap)), (*every_tap, 2 * rank + 2, 2 * rank + 1, *every_phase, 2 * rank))
    return w.reshape(*taps, o // g, -1)


def _interleaved(blocks: Any, geometry: Geometry) -> Any:
    """[N, *M, G *s I/G] to the cells of the input [N, *S, I]."""
    rank, g, strides = geometry.rank, geometry.groups, geometry.strides
    n, *places, channels = blocks.shape
    if max(strides) > 1:
        blocks = blocks.reshape(n, *places, g, *strides, channels // (g * math.prod(strides)))
        space = itertools.chain(*((1 + axis, 2 + rank + axis) for axis in range(rank)))
        blocks = jnp.transpose(blocks, (0, *space, 1 + rank, blocks.ndim - 1))
        blocks = blocks.reshape(n, *(m * s for m, s in zip(places, strides, strict=True)), -1)
    axes = zip(geometry.padding, strides, geometry.inputs, strict=True)
    starts = [(lo % s, lo % s + size) for (lo, _), s, size in axes]
    first, last = zip((0, n), *starts, (0, blocks.shape[-1]), strict=True)
    return lax.slice(blocks, first, last)


def scattered_dx(dy: Any, w: Any, geometry: Geometry, accumulate: Any) -> Any:
    """One product per kernel cell; each is laid where its inputs were. No product with zeros, whatever the strides."""
    back = exchanged(w, geometry.groups)
    total = None
    for k, start in zip(geometry.offsets, geometry.starts(), strict=True):
        product = _apply(dy, back[k], geometry.groups, accumulate)
        laid = lax.pad(product, jnp.zeros((), product.dtype), _places(product, start, geometry))
        total = laid if total is None else total + laid
    assert total is not None
    cut = [(0, 0, 0), *((-lo, -hi, 0) for lo, hi in geometry.pads), (0, 0, 0)]
    return lax.pad(total, jnp.zeros((), total.dtype), cut)


def _places(product: Any, start: Cells, geometry: Geometry) -> list[tuple[int, int, int]]:
    axes = zip(start, geometry.used, geometry.outputs, geometry.strides, strict=True)
    around = [(a, used - a - (p - 1) * s - 1, s - 1) for a, used, p, s in axes]
    return [(0, 0, 0), *around, (0, 0, 0)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def library_forward(x: Any, w: Any, geometry: Geometry, accumulate: Any) -> Any:
    """The `lax` convolution. Whoever differentiates it gets products: its own gradients are slow in a loop on CPU."""
    return _library(x, w, geometry).astype(accumulate)


@library_forward.defjvp
def _library_tangent(geometry: Geometry, accumulate: Any, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (x, w), (dx, dw) = primals, tangents
    along = patches_forward(dx, w, geometry, accumulate) + patches_forward(x, dw, geometry, accumulate)
    return library_forward(x, w, geometry, accumulate), along


def _library(x: Any, w: Any, geometry: Geometry) -> Any:
    space = "HWD"[: geometry.rank]
    return lax.conv_general_dilated(
        x,
        w,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=geometry.groups,
    )


def library_dx(dy: Any, w: Any, geometry: Geometry, accumulate: Any) -> Any:
    x = jax.ShapeDtypeStruct((dy.shape[0], *geometry.inputs, w.shape[-2] * geometry.groups), dy.dtype)
    pull = jax.linear_transpose(lambda x: _library(x, w, geometry), x)
    return pull(dy)[0]


def library_dw(x: Any, dy: Any, geometry: Geometry, accumulate: Any) -> Any:
    shape = (*geometry.kernel, x.shape[-1] // geometry.groups, dy.shape[-1])
    pull = jax.linear_transpose(lambda w: _library(x, w, geometry), jax.ShapeDtypeStruct(shape, x.dtype))
    return pull(dy)[0]


def in_chunks(function: Callable, arrays: tuple, chunk: int) -> Any:
    """(per example, sums) = function(*arrays), over `chunk` examples at a time: what it makes on the way stays in the cache."""
    examples = arrays[0].shape[0]
    chunk = max(n for n in range(1, max(1, min(chunk, examples)) + 1) if examples % n == 0) if examples else 0
    return function(*arrays) if chunk in (0, examples) else cut_up(function, arrays, chunk)


def cut_up(function: Callable, arrays: tuple, chunk: int) -> Any:
    """The same for a chunk that divides the number of examples, which may be a symbol."""
    examples = arrays[0].shape[0]
    cut = lambda a: a.reshape(examples // chunk, chunk, *a.shape[1:])
    shapes = jax.eval_shape(function, *(jax.ShapeDtypeStruct((chunk, *a.shape[1:]), a.dtype) for a in arrays))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes[1])

    def step(sums, part):
        each, more = function(*part)
        return jax.tree.map(jnp.add, sums, more), each

    sums, each = lax.scan(step, zeros, tuple(map(cut, arrays)))
    return jax.tree.map(lambda a: a.reshape(examples, *a.shape[2:]), each), sums

"""The windows of a pooling: their geometry is that of a convolution, w cells wide and s apart per axis.

    cell = s o + k - lo        o window, k place in the window, lo cells of padding before the input

Back from windows to cells, without a scatter: with the padded cell p = cell + lo = s i + a (phase a < s), the windows that see
it are o = i - q at the places k = s q + a, for every q with s q + a < w. So the sum over windows is one over ceil(w/s) shifts q
per axis, each of a slice of the padded windows, and all phases at once: no more than one where windows do not overlap.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import refuse, require_float, shown
from fdl.layer import Layer, Params, Pass, State, bind, no_parameters
from fdl.layers.conv.geometry import Cells, Geometry, explicit_padding, per_axis, same_padding
from fdl.op import Op


def windows(where: str, x: Any, window: Any, strides: Any, padding: Any) -> Geometry:
    """Of x [N, *places, C]; refuses what has no output."""
    require_float(where, "x", x)
    rank = x.ndim - 2
    if not 1 <= rank <= 3:
        refuse(where, f"x has shape {list(x.shape)}, wanted [N, T, C], [N, H, W, C] or one more axis of places")
    if isinstance(window, tuple | list) and len(window) != rank:
        refuse(where, f"window is {window!r}, x has shape {list(x.shape)}; wanted one size for each of {rank} axes")
    inputs = tuple(x.shape[1:-1])
    window = per_axis(where, "window", window, rank)
    strides = window if strides is None else per_axis(where, "strides", strides, rank)
    if isinstance(padding, str) and padding == "SAME":
        pairs = same_padding(inputs, window, strides)
    else:
        pairs = explicit_padding(where, 0 if isinstance(padding, str) and padding == "VALID" else padding, rank)
    for width, pair in zip(window, pairs, strict=True):
        if max(pair) >= width:
            refuse(where, f"padding is {padding!r}, wanted less than the window, {list(window)}: one would see nothing")
    found = Geometry(inputs, window, strides, pairs, (1,) * rank, 1)
    if min(inputs) < 1 or min(found.outputs) < 1:
        refuse(where, f'window is {list(window)}, x has {list(inputs)} places: no output; pad ("SAME"), or take less')
    return found


def checked(where: str, window: Any, strides: Any, padding: Any) -> dict[str, Any]:
    """The options of a pooling layer, hashable; refuses what no x could make right."""
    many = lambda value: isinstance(value, tuple | list)
    rank = next((len(value) for value in (window, strides, padding) if many(value)), 1)
    if not 1 <= rank <= 3:
        refuse(where, f"window is {window!r}, wanted a whole number, or one for each of 1 to 3 axes of places")
    sizes = per_axis(where, "window", window, rank)
    steps = None if strides is None else per_axis(where, "strides", strides, rank)
    pairs = explicit_padding(where, 0 if padding in ("SAME", "VALID") else padding, rank)
    # one number stands for every axis of an x whose rank is not known yet
    return {
        "window": sizes if many(window) else window,
        "strides": steps if many(strides) else strides,
        "padding": pairs if many(padding) else padding,
    }


def layer_of(op: Op, window: Any, strides: Any, padding: Any) -> Layer:
    """Its layer: [N, *places, C] -> [N, *fewer, C]. A mask of steps is refused where windows would mix or skip steps."""
    settings = {"op": op.bind(**checked(op.name, window, strides, padding))}
    return Layer(op.name, init=no_parameters, run=bind(_run, **settings), backward=bind(_backward, **settings))


def _run(walk: Pass, params: Params, state: State, x: Any, *, op: Op) -> tuple[Any, State, Any]:
    if walk.mask is not None and walk.mask.ndim == 2:
        options = {name: kept.value for name, kept in op.options}
        of = windows(op.name, x, options["window"], options["strides"], options["padding"])
        if of.kernel[0] > 1 or of.outputs[0] != of.inputs[0]:
            refuse(
                op.name,
                f"got a mask of steps, {shown(walk.mask)}, and windows over steps: they would mix steps that count with those "
                "that do not, and change how many there are; use global_max_pool or global_avg_pool, or no mask",
            )
    y, residuals = walk.evaluate(op, x)
    return y, state, residuals


def _backward(residuals: Any, dy: Any, *, op: Op) -> tuple[Params, Any]:
    return {}, op.backward(residuals, dy)[0]


def cells(x: jax.Array, geometry: Geometry, fill: Any) -> Iterator[jax.Array]:
    """For each place in the window, in row-major order, that cell of every window [N, *outputs, C]; `fill` is the padding."""
    # cells at the end that no window sees are not sliced; cutting them off would be a copy
    padded = _padded(x, [(lo, max(hi, 0)) for lo, hi in geometry.pads], fill)
    axes = zip(geometry.outputs, geometry.strides, strict=True)
    spans = [(out - 1) * stride + 1 for out, stride in axes]
    for start in geometry.starts():
        stop = [at + span for at, span in zip(start, spans, strict=True)]
        yield jax.lax.slice(padded, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *geometry.strides, 1))


def shifts(geometry: Geometry, *filled: tuple[jax.Array, Any]) -> Iterator[tuple[Cells, list[jax.Array]]]:
    """For every shift q, the windows i - q of these arrays [N, *outputs, C], as [N, i1, 1, i2, 1, ..., C].

    filled: (array, what windows that are not there hold).
    """
    blocks, most = _blocks(geometry), most_shifts(geometry)
    pads = [(q - 1, block - out) for q, block, out in zip(most, blocks, geometry.outputs, strict=True)]
    padded = [_padded(array, pads, fill) for array, fill in filled]
    for shift in itertools.product(*map(range, most)):
        start = [q - 1 - at for q, at in zip(most, shift, strict=True)]
        stop = [at + block for at, block in zip(start, blocks, strict=True)]
        yield shift, [_apart(jax.lax.slice(a, (0, *start, 0), (a.shape[0], *stop, a.shape[-1]))) for a in padded]


def most_shifts(geometry: Geometry) -> Cells:
    """ceil(w/s)"""
    return tuple(-(-w // s) for w, s in zip(geometry.kernel, geometry.strides, strict=True))


def places(geometry: Geometry, shift: Cells) -> list[np.ndarray]:
    """Per axis the place s q + a of each phase a, as it broadcasts against what `shifts` yields."""
    found = []
    for axis, (q, stride) in enumerate(zip(shift, geometry.strides, strict=True)):
        shape = [1] * (2 * geometry.rank + 2)
        shape[2 * axis + 2] = stride
        found.append((q * stride + np.arange(stride)).reshape(shape))
    return found


def to_cells(geometry: Geometry, blocks: jax.Array) -> jax.Array:
    """[N, i1, a1, i2, a2, ..., C] as the cells of the input."""
    sizes = [block * stride for block, stride in zip(_blocks(geometry), geometry.strides, strict=True)]
    padded = blocks.reshape(blocks.shape[0], *sizes, blocks.shape[-1])
    axes = zip(sizes, geometry.inputs, geometry.padding, strict=True)
    return _padded(padded, [(-lo, lo + there - size) for size, there, (lo, _) in axes], 0)


def counts(geometry: Geometry) -> Any:
    """How many cells of the input each window sees, [1, *outputs, 1], or a number where it is the same for all."""
    axes = zip(geometry.inputs, geometry.kernel, geometry.strides, geometry.padding, geometry.outputs, strict=True)
    found = np.ones((), int)
    for n, w, s, (lo, _), out in axes:
        start = s * np.arange(out) - lo
        found = found[..., None] * (np.minimum(start + w, n) - np.maximum(start, 0))
    return int(found.flat[0]) if (found == found.flat[0]).all() else found[None, ..., None]


def _blocks(geometry: Geometry) -> Cells:
    """How many i there are: the last is that of the last cell of the input."""
    axes = zip(geometry.inputs, geometry.padding, geometry.strides, strict=True)
    return tuple(-(-(lo + n) // s) for n, (lo, _), s in axes)


def _padded(x: jax.Array, pads: Any, fill: Any) -> jax.Array:
    if not any(map(any, pads)):
        return x
    return jax.lax.pad(x, jnp.asarray(fill, x.dtype), ((0, 0, 0), *((lo, hi, 0) for lo, hi in pads), (0, 0, 0)))


def _apart(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], *itertools.chain(*((n, 1) for n in x.shape[1:-1])), x.shape[-1])

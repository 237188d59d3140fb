"""Blocks in the layout of a library, or a refusal where they do not fit.

Biases have two kinds: "b" beside the product with x, "s" beside the product with h. Where both only ever add up, a layout may have
one of them: it holds the sum, and a layout with both takes a sum as its b, with s = 0. Gradients go the other way about: both
biases have the gradient of their sum, so one of them is read, and both are written.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fdl.convert._layout import Axes, Blocks, Layout, agrees, is_column, kind, plain
from fdl.errors import refuse

_MEANING = {"b": "a bias", "s": "a bias beside h", "p": "a peephole"}


def write(
    where: str,
    form: str,
    blocks: Blocks,
    layouts: Sequence[Layout],
    axes: Axes,
    *,
    at: str = "",
    apart: frozenset[str] = frozenset(),
    gradients: bool = False,
) -> Any:
    """The weights in that one of the layouts of this form which loses and adds least.

    apart: biases of kind "s" that do not just add up with their "b". At least one layout has the form.
    """
    found = [
        (layout, _biases(where, blocks, layout, at, apart, gradients)) for layout in layouts if layout.form == form
    ]
    cost = lambda layout, blocks: (len(set(blocks) - layout.blocks), len(layout.blocks - set(blocks)))
    layout, blocks = min(found, key=lambda pair: cost(*pair))
    lost = sorted(name for name in set(blocks) - layout.blocks if not gradients and np.any(blocks[name]))
    if lost:
        names = ", ".join(f"{name} ({_MEANING.get(kind(name), kind(name))})" for name in lost)
        refuse(
            where,
            f"{at}{names} is not 0, wanted 0: the target {list(layout.arrays)} has no place for it, and would be another "
            "function; choose another target, or train without it",
        )
    missing = sorted(layout.blocks - set(blocks))
    if missing and gradients:
        refuse(
            where,
            f"{at.rstrip(': ') or 'weights'} has no gradient of {', '.join(missing)}, which the target {list(layout.arrays)} wants; "
            "convert the target's gradients into the source's layout and compare there",
        )
    known: dict[str, Any] = {}
    for name, block in blocks.items():
        agrees(axes[kind(name)], block.shape, known)
    dtype = next(iter(blocks.values())).dtype
    filled = {name: np.zeros([known[axis] for axis in axes[kind(name)].split()], dtype) for name in missing}
    arrays = {path: _joined(blocks | filled, layout, path, len(known.get("*", ()))) for path in layout.arrays}
    return list(arrays.values()) if layout.listed else _nested(arrays)


def _biases(where: str, blocks: Blocks, layout: Layout, at: str, apart: frozenset[str], gradients: bool) -> Blocks:
    """The blocks with the biases b and s as the layout has them, where they add up."""
    blocks = dict(blocks)
    for b in sorted(name for name in layout.blocks | set(blocks) if kind(name) in "bs"):
        b, s = f"b{b[1:]}", f"s{b[1:]}"
        there = [name for name in (b, s) if name in blocks]
        wanted = [name for name in (b, s) if name in layout.blocks]
        if s in apart or not there or not wanted or there == wanted:
            continue
        values = [blocks.pop(name) for name in there]
        if gradients:
            if len(values) == 2:
                _require_equal(where, at, b, s, *values)
            blocks |= dict.fromkeys(wanted, values[0])
        else:
            total = values[0] + values[1] if len(values) == 2 else values[0]
            blocks |= dict(zip(wanted, (total, np.zeros_like(total)), strict=False))
    return blocks


def _require_equal(where: str, at: str, b: str, s: str, one: np.ndarray, other: np.ndarray) -> None:
    one, other = one.astype(np.float64), other.astype(np.float64)
    apart, size = np.nanmax(np.abs(one - other), initial=0), np.nanmax(np.abs(one), initial=0)
    if apart > 0.1 * size:  # rounding in 16 bits stays below, weights do not
        refuse(
            where,
            f"{at}the gradients of {b} and {s} differ by {apart:.2g} of {size:.2g}, wanted equal ones, for only the sum of the "
            "two biases matters; are these weights, not gradients?",
        )


def _joined(blocks: Blocks, layout: Layout, path: str, spatial: int) -> np.ndarray:
    signed = lambda name: -blocks[plain(name)] if name.startswith("-") else blocks[name]
    rows = layout.rows(path)
    lines = [np.concatenate([signed(n) for n in row], axis=-1) if len(row) > 1 else signed(row[0]) for row in rows]
    array = np.stack(lines) if len(lines) > 1 else lines[0]
    if is_column(layout, path):
        array = array.reshape(-1, *(1,) * spatial)
    elif layout.outputs_first and array.ndim > 1 and len(rows) == 1:
        array = np.moveaxis(array, (-1, -2), (0, 1))
    return np.array(array, order="C")  # a copy: nothing that comes out is memory of the caller


def _nested(arrays: Blocks) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, array in arrays.items():
        *outer, name = path.split("/")
        inner = nested
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[name] = array
    return nested

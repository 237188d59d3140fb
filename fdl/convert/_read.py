"""The blocks of some weights, and what makes them others than the layout says."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fdl.convert._layout import Axes, Blocks, Layout, agrees, is_column, kind, plain
from fdl.errors import is_array, refuse, refuse_type, require_float, shown


def read(where: str, weights: Any, layouts: Sequence[Layout], axes: Axes, at: str = "") -> tuple[str, Blocks]:
    """(the form, the blocks: views where they can be). at: which part of the weights this is, for messages."""
    layout, arrays = _matched(where, weights, layouts, axes, at)
    known: dict[str, Any] = {}
    blocks: Blocks = {}
    first = next(iter(arrays))
    for path, array in arrays.items():
        rows = layout.rows(path)
        names = [name for row in rows for name in row]
        found = _parts(array, layout, path, len(known.get("*", ())))
        if len(found) != len(names) or not agrees(axes[kind(names[0])], found[0].shape, known):
            wanted = _wanted_shape(layout, path, axes, known) + " beside the arrays before it" * (path != first)
            refuse(where, f"{at}{path} has shape {list(array.shape)}, wanted {wanted}")
        for name, block in zip(names, found, strict=True):
            blocks[plain(name)] = -block if name.startswith("-") else block
    return layout.form, blocks


def _matched(where: str, weights: Any, layouts: Sequence[Layout], axes: Axes, at: str) -> tuple[Layout, Blocks]:
    """The layout with as many arrays, of these paths and numbers of axes."""
    what, listed = at.rstrip(": ") or "weights", layouts[0].listed
    wanted = ", or ".join(dict.fromkeys(str(list(layout.arrays)) for layout in layouts))
    if listed and isinstance(weights, list | tuple):
        given = {str(i): array for i, array in enumerate(weights)}
    elif not listed and isinstance(weights, Mapping):
        given = _flattened(weights)
    else:
        refuse_type(where, f"{what} is {shown(weights)}, wanted a {'list' if listed else 'dict'} of arrays: {wanted}")
    flat = {path: _array(where, f"{at}{path}", array) for path, array in given.items()}
    if listed:
        fitting = [(l, dict(zip(l.arrays, flat.values(), strict=True))) for l in layouts if len(l.arrays) == len(flat)]
    else:
        fitting = [(l, {path: flat[path] for path in l.arrays}) for l in layouts if set(l.arrays) == set(flat)]
    if not fitting:
        refuse(where, f"{what} has {f'{len(flat)} arrays' if listed else sorted(flat)}, wanted {wanted}")
    if len(fitting) > 1:
        rank = lambda layout, path: len(axes[kind(layout.arrays[path])].split()) + (len(layout.rows(path)) > 1)
        alike = [(l, found) for l, found in fitting if all(a.ndim == rank(l, path) for path, a in found.items())]
        fitting = alike or fitting[:1]
    if len(fitting) > 1:
        forms = " and ".join(layout.form for layout, _ in fitting)
        refuse(where, f"{what} fits {forms}, and only a bias would tell them apart; say which with reset_after")
    return fitting[0]


def _flattened(weights: Mapping, prefix: str = "") -> dict[str, Any]:
    """{"ir/kernel": array}; what is None is not there."""
    flat: dict[str, Any] = {}
    for name, value in weights.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{name}/")
        elif value is not None:
            flat[f"{prefix}{name}"] = value
    return flat


def _array(where: str, name: str, array: Any) -> np.ndarray:
    if not is_array(array) or not hasattr(array, "__array__"):
        refuse_type(where, f"{name} is {shown(array)}, wanted a NumPy array; convert it with np.asarray")
    try:
        array = np.asarray(array)
    except (RuntimeError, TypeError) as error:  # a tensor on a device, in bfloat16, or one that requires its gradient
        remedy = "of a tensor pass tensor.detach().cpu().float().numpy()"
        refuse_type(
            where, f"{name} is {shown(array)}, which NumPy cannot read ({error}), wanted a NumPy array; {remedy}"
        )
    require_float(where, name, array)
    return array


def _parts(array: np.ndarray, layout: Layout, path: str, spatial: int) -> list[np.ndarray]:
    """The blocks of an array, turned as fdl has them; none where it cannot be cut so."""
    rows = layout.rows(path)
    if len(rows) > 1:
        lines = list(array) if array.ndim == 2 and len(array) == len(rows) else []
    elif is_column(layout, path):
        lines = [array.reshape(-1)] if array.shape[1:] == (1,) * spatial else []
    elif layout.outputs_first and array.ndim > 1:
        lines = [np.moveaxis(array, (0, 1), (-1, -2))]
    else:
        lines = [array]
    if len(rows[0]) == 1:
        return lines
    whole = all(line.ndim and line.shape[-1] % len(rows[0]) == 0 for line in lines)
    return [part for line in lines for part in np.split(line, len(rows[0]), axis=-1)] if whole else []


def _wanted_shape(layout: Layout, path: str, axes: Axes, known: dict[str, Any]) -> str:
    rows = layout.rows(path)
    shape = [str(known.get(axis, axis)) if axis != "*" else "*K" for axis in axes[kind(rows[0][0])].split()]
    if len(rows[0]) > 1:
        shape[-1] = f"{len(rows[0])} x {shape[-1]}"
    if layout.outputs_first and len(shape) > 1 and len(rows) == 1:
        shape = [shape[-1], shape[-2], *shape[:-2]]
    if is_column(layout, path):
        shape += ["1"] * len(known["*"])
    return f"[{', '.join([str(len(rows))] * (len(rows) > 1) + shape)}]"

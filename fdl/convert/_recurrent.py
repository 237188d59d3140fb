"""Recurrent weights: cells, both directions of a layer, and layers on top of each other, in the container of each library."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fdl.convert._layout import Blocks, Layout, kind, require_known
from fdl.convert._read import read
from fdl.convert._write import write
from fdl.errors import refuse, refuse_type, require_bool, require_same_dtype, shown

AXES = {"w": "I D", "u": "D D", "b": "D", "s": "D", "p": "D"}
DIRECTIONS = ("forward", "backward")

Layer = dict[str, Any]  # direction -> the weights of a cell


class Container(NamedTuple):
    """How a library holds more than one cell. layers: weights -> layers, bottom first; held: the inverse."""

    layers: Callable[[str, Any], list[Layer]]
    held: Callable[[str, list[Layer]], Any]


def converted(
    cell: str,
    table: Mapping[str, Sequence[Layout]],
    weights: Any,
    source: Any,
    target: Any,
    *,
    bias: Any,
    gradients: Any,
    apart: frozenset[str] = frozenset(),
    form: str | None = None,
) -> Any:
    where = f"convert.{cell}"
    require_known(where, table, source, target)
    require_bool(where, "gradients", gradients)
    readable = [layout for layout in table[source] if form in (None, layout.form)] or table[source]

    def found_in(at: str, own: Any) -> tuple[str, Blocks]:
        found, blocks = read(where, own, readable, AXES, at)
        if form not in (None, found):
            refuse(where, f"{at}weights are of {found}, reset_after wants {form}; leave it out")
        _require_one_dtype(where, at, blocks)
        return found, blocks

    def written(at: str, own: tuple[str, Blocks]) -> Any:
        layouts = _writable(where, table, target, own[0], bias)
        return write(where, *own, layouts, AXES, at=at, apart=apart, gradients=gradients)

    cells = _each(found_in, _CONTAINERS[source].layers(where, weights))
    if "torch" in (source, target):
        _require_torch_stack(where, cells)
    return _CONTAINERS[target].held(cell, _each(written, cells))


def _each(function: Callable[[str, Any], Any], layers: list[Layer]) -> list[Layer]:
    """function(at, cell) of every cell; at says which one in error messages, where there are several."""
    several = len(layers) > 1 or len(layers[0]) > 1
    return [
        {direction: function(f"layer {i} {direction}: " if several else "", cell) for direction, cell in layer.items()}
        for i, layer in enumerate(layers)
    ]


def _writable(where: str, table: Mapping[str, Sequence[Layout]], target: str, form: str, bias: Any) -> list[Layout]:
    layouts = [layout for layout in table[target] if layout.form == form]
    if not layouts:
        able = [name for name in table if any(layout.form == form for layout in table[name])]
        refuse(
            where,
            f"the weights are of {form}, which target {target!r} does not have; no other weights give the same function: "
            f"wanted one of {', '.join(able)}",
        )
    if bias is None:
        return layouts
    require_bool(where, "bias", bias)
    chosen = [layout for layout in layouts if bias == any(kind(block) in "bs" for block in layout.blocks)]
    if not chosen:
        refuse(where, f"bias is {bias}, but target {target!r} always has biases, they are 0 here; leave it out")
    return chosen


def _require_one_dtype(where: str, at: str, blocks: Blocks) -> None:
    first, *others = blocks
    for name in others:
        require_same_dtype(where, f"{at}{first}", blocks[first], name, blocks[name])


def _require_torch_stack(where: str, layers: list[Layer]) -> None:
    """All layers have the same directions and features, and read the concatenated outputs of the one below."""
    sizes = lambda layer: [
        next(block.shape for name, block in blocks.items() if kind(name) == "w") for _, blocks in layer.values()
    ]
    inputs, features = sizes(layers[0])[0]
    for i, layer in enumerate(layers):
        wanted = [(inputs, features)] * len(layers[0])
        if sizes(layer) != wanted:
            refuse(
                where,
                f"layer {i} has inputs and features {sizes(layer)}, wanted {wanted}: layers of torch have the same features "
                "and directions, side by side; convert other ones layer by layer",
            )
        inputs = features * len(layer)


# ---- containers


_TORCH = re.compile(r"(?P<name>\w+)_l(?P<layer>\d+)(?P<reverse>_reverse)?")


def _of_torch(where: str, weights: Any) -> list[Layer]:
    if not isinstance(weights, Mapping):
        refuse_type(where, f"weights is {shown(weights)}, wanted the dict of state_dict()")
    layers: dict[int, Layer] = {}
    for key, array in weights.items():
        match = _TORCH.fullmatch(str(key))
        if match is None:
            refuse(
                where,
                f"weights has {key!r}, wanted weight_ih_l0, weight_hh_l0, ...: take the module's prefix off the keys; for the "
                "weights of one cell say torch_cell",
            )
        direction = DIRECTIONS[match["reverse"] is not None]
        layers.setdefault(int(match["layer"]), {}).setdefault(direction, {})[match["name"]] = array
    got = {i: sorted(layer) for i, layer in sorted(layers.items())}
    if not layers or list(got) != list(range(len(got))) or any("forward" not in names for names in got.values()):
        refuse(where, f"weights has the layers {got}, wanted 0, 1, ... without a gap, each with its forward direction")
    return [{d: layers[i][d] for d in DIRECTIONS if d in layers[i]} for i in range(len(layers))]


def _as_torch(cell: str, layers: list[Layer]) -> dict[str, Any]:
    suffix = {"forward": "", "backward": "_reverse"}
    return {
        f"{name}_l{i}{suffix[direction]}": array
        for i, layer in enumerate(layers)
        for direction, arrays in layer.items()
        for name, array in arrays.items()
    }


def _stacked(layer_of: Callable[[str, Any], Layer], held: Callable[[Layer], Any]) -> Container:
    """Several layers are a list of layers."""

    def layers(where: str, weights: Any) -> list[Layer]:
        several = isinstance(weights, list | tuple) and not any(
            isinstance(w, np.ndarray) or hasattr(w, "dtype") for w in weights
        )
        if several and not weights:
            refuse(where, "weights is empty, wanted at least one layer")
        return [layer_of(where, layer) for layer in (weights if several else [weights])]

    return Container(layers, lambda cell, layers: held(layers[0]) if len(layers) == 1 else [held(l) for l in layers])


def _named(names: tuple[str, str], inner: str | None = None) -> Container:
    """Both directions are a dict with these names, and each of them may be in another one named `inner`."""

    def layer(where: str, weights: Any) -> Layer:
        unwrapped = lambda w: w[inner] if inner and isinstance(w, Mapping) and set(w) == {inner} else w
        if isinstance(weights, Mapping) and set(weights) & set(names):
            if set(weights) != set(names):
                refuse(where, f"weights has {sorted(weights)}, wanted both of {list(names)}")
            return {d: unwrapped(weights[name]) for d, name in zip(DIRECTIONS, names, strict=True)}
        return {"forward": unwrapped(weights)}

    def held(layer: Layer) -> Any:
        wrapped = lambda w: {inner: w} if inner else w
        if len(layer) == 1:
            return layer["forward"]
        return {name: wrapped(layer[d]) for d, name in zip(DIRECTIONS, names, strict=True)}

    return _stacked(layer, held)


def _keras_layer(where: str, weights: Any) -> Layer:
    """Bidirectional.get_weights() is one list after the other."""
    if isinstance(weights, list | tuple) and len(weights) in (4, 6):
        half = len(weights) // 2
        return {"forward": weights[:half], "backward": weights[half:]}
    return {"forward": weights}


_NUMBERED = re.compile(r".*_(\d+)")
_PLAIN = _named(DIRECTIONS)


def _of_fdl(where: str, weights: Any) -> list[Layer]:
    """fdl.serial numbers its layers, and JAX sorts gru_10 before gru_2."""
    nested = isinstance(weights, Mapping) and all(isinstance(layer, Mapping) for layer in weights.values())
    if not nested or not weights or set(weights) & set(DIRECTIONS):
        return _PLAIN.layers(where, weights)
    numbers = {}
    for name in weights:
        found = _NUMBERED.fullmatch(str(name))
        if found is None:
            refuse(
                where, f"weights has {name!r}, wanted names with numbers, gru_0; pass a list of the layers, in order"
            )
        numbers[name] = int(found[1])
    return _PLAIN.layers(where, [weights[name] for name in sorted(weights, key=lambda name: numbers[name])])


def _as_fdl(cell: str, layers: list[Layer]) -> Any:
    if len(layers) == 1:
        return _PLAIN.held(cell, layers)
    return {
        f"{cell if len(layer) == 1 else 'parallel'}_{i}": _PLAIN.held(cell, [layer]) for i, layer in enumerate(layers)
    }


_FLAX = _named(("forward_rnn", "backward_rnn"), inner="cell")
_CONTAINERS = {
    "fdl": Container(_of_fdl, _as_fdl),
    "torch": Container(_of_torch, _as_torch),
    "torch_cell": _PLAIN,
    "keras": _stacked(_keras_layer, lambda layer: [array for arrays in layer.values() for array in arrays]),
    "flax": _FLAX,
    "nnx": _FLAX,
    "nnx_optimized": _FLAX,
    "equinox": _PLAIN,
}

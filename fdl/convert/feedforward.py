"""Weights of layers without a state of their own: a permutation of axes and other names. Gradients convert in the same way.

| layer                     | fdl            | torch, equinox  | keras, flax, nnx  |
|---------------------------|----------------|-----------------|-------------------|
| dense                     | w [I, O]       | [O, I]          | [I, O]            |
| conv, G groups            | w [*K, I/G, O] | [O, I/G, *K]    | [*K, I/G, O]      |
| embedding                 | w [V, D]       | [V, D]          | [V, D]            |
| layer, group, batch norm  | scale, shift   | weight, bias    | gamma/scale, beta/bias |

What the weights do not say has to be set by hand: eps (Keras 1e-3, Flax 1e-6 for layer norm, the others 1e-5), paddings, and the
order of the features that a flattened image enters a dense layer in: torch flattens [C, H, W], the others [H, W, C].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fdl.convert._layout import Layout, require_known
from fdl.convert._read import read
from fdl.convert._write import write

Table = Mapping[str, Sequence[Layout]]


def _both(layout: Layout, *optional: str) -> tuple[Layout, Layout]:
    return layout, layout.without(*optional)


_WEIGHT = {"weight": "w", "bias": "b"}
_KERNEL = {"kernel": "w", "bias": "b"}
_MATRIX = {
    "fdl": _both(Layout({"w": "w", "b": "b"}), "b"),
    "torch": _both(Layout(_WEIGHT, outputs_first=True), "b"),
    "keras": _both(Layout(_KERNEL, listed=True), "b"),
    "flax": _both(Layout(_KERNEL), "b"),
    "nnx": _both(Layout(_KERNEL), "b"),
}
DENSE: Table = _MATRIX | {"equinox": _both(Layout(_WEIGHT, outputs_first=True), "b")}
CONV: Table = _MATRIX | {"equinox": _both(Layout(_WEIGHT, outputs_first=True, columns=True), "b")}
EMBEDDING: Table = {
    "fdl": (Layout({"w": "w"}),),
    "torch": (Layout({"weight": "w"}),),
    "keras": (Layout({"embeddings": "w"}, listed=True),),
    "flax": (Layout({"embedding": "w"}),),
    "nnx": (Layout({"embedding": "w"}),),
    "equinox": (Layout({"weight": "w"}),),
}
NORM: Table = {
    "fdl": _both(Layout({"scale": "scale", "shift": "shift"}), "shift"),
    "torch": _both(Layout({"weight": "scale", "bias": "shift"}), "shift"),
    "keras": _both(Layout({"gamma": "scale", "beta": "shift"}, listed=True), "shift"),
    "flax": _both(Layout({"scale": "scale", "bias": "shift"}), "shift"),
    "nnx": _both(Layout({"scale": "scale", "bias": "shift"}), "shift"),
    "equinox": _both(Layout({"weight": "scale", "bias": "shift"}), "shift"),
}
_STATISTICS = {"mean": "mean", "var": "var"}
BATCH_NORM: Table = {
    "fdl": _both(
        Layout(
            {"params/scale": "scale", "params/shift": "shift"}
            | {f"state/{name}": name for name in ("mean", "var", "weight")}
        ),
        *("scale", "shift"),
    ),
    "torch": _both(
        Layout({"weight": "scale", "bias": "shift", "running_mean": "mean", "running_var": "var"}), "scale", "shift"
    ),
    "keras": _both(
        Layout({"gamma": "scale", "beta": "shift", "moving_mean": "mean", "moving_variance": "var"}, listed=True),
        *("scale", "shift"),
    ),
    "flax": _both(
        Layout(
            {"params/scale": "scale", "params/bias": "shift"} | {f"batch_stats/{name}": name for name in _STATISTICS}
        ),
        *("scale", "shift"),
    ),
    "nnx": _both(Layout({"scale": "scale", "bias": "shift"} | _STATISTICS), "scale", "shift"),
}


def _converted(layer: str, table: Table, weights: Any, source: Any, target: Any, axes: Mapping[str, str]) -> Any:
    where = f"convert.{layer}"
    require_known(where, table, source, target)
    return write(where, *read(where, weights, table[source], axes), table[target], axes)


def dense(weights: Any, source: str = "torch", target: str = "fdl") -> Any:
    """The weights of a dense layer, with or without a bias, from the layout of one library in that of another.

    >>> torch = {"weight": np.ones((2, 3), np.float32), "bias": np.zeros((2,), np.float32)}  # of Linear(3, 2)
    >>> fdl.convert.dense(torch, source="torch", target="fdl")["w"].shape
    (3, 2)
    """
    return _converted("dense", DENSE, weights, source, target, {"w": "I O", "b": "O"})


def conv(weights: Any, source: str = "torch", target: str = "fdl") -> Any:
    """The weights of a convolution of any rank and any groups. A depthwise layer of Keras [*K, I, M] is not one of them.

    >>> torch = {"weight": np.ones((8, 3, 5, 5), np.float32)}  # of Conv2d(3, 8, 5, bias=False)
    >>> fdl.convert.conv(torch, source="torch", target="fdl")["w"].shape
    (5, 5, 3, 8)
    """
    return _converted("conv", CONV, weights, source, target, {"w": "* I O", "b": "O"})


def embedding(weights: Any, source: str = "torch", target: str = "fdl") -> Any:
    """The table of an embedding [V, D], which is the same everywhere but for its name.

    >>> fdl.convert.embedding({"w": np.ones((10, 3), np.float32)}, source="fdl", target="torch")["weight"].shape
    (10, 3)
    """
    return _converted("embedding", EMBEDDING, weights, source, target, {"w": "V D"})


def layer_norm(weights: Any, source: str = "torch", target: str = "fdl") -> Any:
    """The scale, and the shift if there is one.

    >>> torch = {"weight": np.ones((4,), np.float32), "bias": np.zeros((4,), np.float32)}
    >>> sorted(fdl.convert.layer_norm(torch, source="torch", target="fdl"))
    ['scale', 'shift']
    """
    return _converted("layer_norm", NORM, weights, source, target, {"scale": "*", "shift": "*"})


def group_norm(weights: Any, source: str = "torch", target: str = "fdl") -> Any:
    """The scale, and the shift if there is one; of instance normalization too.

    >>> torch = {"weight": np.ones((4,), np.float32), "bias": np.zeros((4,), np.float32)}
    >>> sorted(fdl.convert.group_norm(torch, source="torch", target="flax"))
    ['bias', 'scale']
    """
    return _converted("group_norm", NORM, weights, source, target, {"scale": "D", "shift": "D"})


def rms_norm(weights: Any, source: str = "torch", target: str = "fdl") -> Any:
    """The scale, which is all there is.

    >>> fdl.convert.rms_norm({"scale": np.ones((4,), np.float32)}, source="fdl", target="flax")["scale"].shape
    (4,)
    """
    table = {name: layouts[1:] for name, layouts in NORM.items()}
    return _converted("rms_norm", table, weights, source, target, {"scale": "*"})


def batch_norm(weights: Any, source: str = "torch", target: str = "fdl") -> Any:
    """Scale, shift and running statistics; fdl's are {"params": ..., "state": ...}, flax's {"params", "batch_stats"}.

    fdl's running averages begin at 0 and are divided by the weight of what they have seen, the others' begin at 0 and 1: to the
    others they go divided, what has seen nothing as mean 0 and variance 1, and from the others with weight 1. In use
    all are the same function, given the same eps. torch's num_batches_tracked has no part in it: it is taken off, and
    load_state_dict does without.

        >>> one = np.ones((4,), np.float32)
        >>> torch = {"weight": one, "bias": one, "running_mean": one, "running_var": one}
        >>> sorted(fdl.convert.batch_norm(torch, source="torch", target="fdl")["state"])
        ['mean', 'var', 'weight']
    """
    axes = {"scale": "D", "shift": "D", "mean": "D", "var": "D", "weight": ""}
    where = "convert.batch_norm"
    require_known(where, BATCH_NORM, source, target)
    if source == "torch" and isinstance(weights, Mapping):
        weights = {name: array for name, array in weights.items() if name != "num_batches_tracked"}
    form, blocks = read(where, weights, BATCH_NORM[source], axes)
    if target == "fdl":
        blocks.setdefault("weight", np.ones((), blocks["mean"].dtype))
    elif source == "fdl":
        weight = blocks.pop("weight")
        blocks |= (
            {name: blocks[name] / weight for name in _STATISTICS}
            if weight > 0
            else {
                "mean": np.zeros_like(blocks["mean"]),
                "var": np.ones_like(blocks["var"]),
            }
        )
    return write(where, form, blocks, BATCH_NORM[target], axes)

"""What a model is made of: layers, output shapes, parameter counts, and what the backward pass keeps."""

import dataclasses
import math
from typing import Any

import jax
from jax.extend.core import Literal

from fdl.backprop import require_model
from fdl.layer import Layer, input_spec


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer. shape: of its output for one example. kept: bytes of residuals per example, parameters not counted."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    kept: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """`print(fdl.summary(model, shape))` shows the table."""

    rows: tuple[Row, ...]
    parameters: int
    kept: int

    def __str__(self) -> str:
        head = ("layer", "output", "parameters", "kept for backward")
        body = [
            (row.name, f"{row.dtype}{list(row.shape)}", f"{row.parameters:,}", _bytes(row.kept)) for row in self.rows
        ]
        total = ("total", "", f"{self.parameters:,}", f"{_bytes(self.kept)} per example")
        lines = [head, *body, total]
        widths = [max(len(line[c]) for line in lines) for c in range(4)]
        text = [
            "  ".join(
                (line[0].ljust(widths[0]), line[1].ljust(widths[1]), line[2].rjust(widths[2]), line[3].rjust(widths[3]))
            )
            for line in lines
        ]
        rule = "-" * len(text[0])
        return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])


def summary(model: Layer, shape: Any, dtype: Any = None) -> Summary:
    """A table of the layers, for examples of this shape (see `Layer.init`); nothing is computed, only traced.

    Residuals are counted once, where they are first kept: an array that two layers share, and the parameters themselves,
    take no further memory. Bytes are for one example; a batch of N keeps N times as much.
    """
    require_model("summary", model)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(lambda key: model.init(key, shape, dtype), key)
    spec = input_spec(model.name, shape, dtype)
    x = jax.ShapeDtypeStruct((1, *spec.shape), spec.dtype)

    def forward(params, state, x, key):
        y, _, residuals = model.forward(params, state, x, train=True, key=key)
        return y, residuals

    y, residuals = jax.eval_shape(forward, params, state, x, key)
    shapes: dict[str, Any] = {}
    if model.layers:
        # the error at a layer's output has the shape of that output
        shapes = jax.eval_shape(lambda residuals, dy: _deltas(model, residuals, dy), residuals, y)
    kept = _kept_bytes(model, forward, params, state, x, key)
    counts = _by_layer(model, params, math.prod)
    rows = tuple(
        Row(name, out.shape[1:], str(out.dtype), counts.get(name, 0), kept.get(name, 0))
        for name, out in ((name, shapes.get(name, y)) for name in model.names or (model.name,))
    )
    return Summary(rows, sum(row.parameters for row in rows), sum(row.kept for row in rows))


def _deltas(model: Layer, residuals: Any, dy: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    model.backward(residuals, dy, deltas=found)
    return found


def _kept_bytes(model: Layer, forward: Any, params: Any, state: Any, x: Any, key: Any) -> dict[str, int]:
    jaxpr = jax.make_jaxpr(forward)(params, state, x, key).jaxpr
    _, residuals = jax.eval_shape(forward, params, state, x, key)
    names = [_layer_of(model, path) for path, _ in jax.tree_util.tree_flatten_with_path(residuals)[0]]
    free = set(jaxpr.invars[: len(jax.tree.leaves((params, state)))])
    total: dict[str, int] = {}
    # residuals are the last outputs of the trace
    for name, variable in zip(names, jaxpr.outvars[len(jaxpr.outvars) - len(names) :], strict=True):
        if isinstance(variable, Literal) or variable in free:
            continue
        free.add(variable)
        total[name] = total.get(name, 0) + variable.aval.size * variable.aval.dtype.itemsize
    return total


def _by_layer(model: Layer, tree: Any, size: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = _layer_of(model, path)
        total[name] = total.get(name, 0) + size(leaf.shape)
    return total


def _layer_of(model: Layer, path: Any) -> str:
    """The layer that a leaf of params or residuals belongs to: the longest prefix of dict keys that is a layer's name."""
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    prefixes = ["/".join(map(str, keys[:n])) for n in range(len(keys), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in model.names), model.name)


def _bytes(n: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} B"

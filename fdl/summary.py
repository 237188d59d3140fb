"""What a model is made of: layers, shapes, parameters, FLOPs, receptive fields, and what the backward pass keeps."""

import dataclasses
import functools
import math
from typing import Any

import jax

from fdl.backprop import require_model
from fdl.layer import Layer, Pass, input_spec
from fdl.layers.activations import ACTIVATIONS
from fdl.layers.conv.geometry import per_axis
from fdl.op import Op


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer, for one example.

    shape: of its output. kept: bytes of residuals, parameters not counted. flops: of the products in its forward, a multiplication and
    an addition each, those with padding included; sums and functions of single entries are not counted. receptive: the cells of
    the model's input that one of its output cells depends on, per spatial axis; None where that is not defined or not known.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    kept: int
    flops: int = 0
    receptive: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """`print(fdl.summary(model, shape))` shows the table."""

    rows: tuple[Row, ...]
    parameters: int
    kept: int
    flops: int = 0

    def __str__(self) -> str:
        head = ("layer", "output", "parameters", "FLOPs", "kept for backward", "receptive field")
        body = [
            (
                row.name,
                f"{row.dtype}{list(row.shape)}",
                f"{row.parameters:,}",
                f"{row.flops:,}",
                _bytes(row.kept),
                "x".join(map(str, row.receptive or ())),
            )
            for row in self.rows
        ]
        total = ("total", "", f"{self.parameters:,}", f"{self.flops:,}", f"{_bytes(self.kept)} per example", "")
        lines = [head, *body, total]
        if not any(row.receptive for row in self.rows):
            lines = [line[:-1] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
        rule = "-" * max(map(len, text))
        return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])


def summary(model: Layer, shape: Any, dtype: Any = None) -> Summary:
    """A table of the layers, for examples of this shape (see `Layer.init`); nothing is computed, only traced.

    Residuals are counted once, where they are first kept: an array that two layers share, and the parameters themselves,
    take no further memory. Bytes are for one example; a batch of N keeps N times as much.

        >>> fdl.summary(fdl.serial(fdl.dense(3), fdl.relu()), (5,)).parameters
        18
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
    calls = _calls(model, params, state, x, key)
    flops: dict[str, int] = {}
    for name, op, args in calls:
        flops[name] = flops.get(name, 0) + _flops(jax.make_jaxpr(op.equation)(*args).jaxpr)
    fields = receptive_fields(model, calls)
    rows = tuple(
        Row(
            name,
            out.shape[1:],
            str(out.dtype),
            counts.get(name, 0),
            kept.get(name, 0),
            flops.get(name, 0),
            fields.get(name),
        )
        for name, out in ((name, shapes.get(name, y)) for name in model.names or (model.name,))
    )
    parameters, kept_bytes, operations = (
        sum(getattr(row, of) for row in rows) for of in ("parameters", "kept", "flops")
    )
    return Summary(rows, parameters, kept_bytes, operations)


def _aligned(line: tuple[str, ...], widths: list[int]) -> list[str]:
    return [cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(line, widths, strict=True))]


def _deltas(model: Layer, residuals: Any, dy: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    model.backward(residuals, dy, deltas=found)
    return found


def _kept_bytes(model: Layer, forward: Any, params: Any, state: Any, x: Any, key: Any) -> dict[str, int]:
    from jax.extend.core import Literal  # half of the time of `import fdl` where it is imported with the module

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


@dataclasses.dataclass(frozen=True)
class _Recording(Pass):
    """A walk that notes every call of an Op with the name of the layer that made it."""

    path: str = ""
    layer: Any = None
    calls: Any = None

    def __post_init__(self):
        object.__setattr__(self, "evaluate", functools.partial(_noted, self.path, self.calls))

    def child(self, index: int, layer: Layer) -> Pass:
        name = self.layer.layers[index][0]
        child = super().child(index, layer)
        return dataclasses.replace(child, path=f"{self.path}/{name}" if self.path else name, layer=layer)


def _calls(model: Layer, params: Any, state: Any, x: Any, key: Any) -> list[tuple[str, Op, tuple]]:
    """(layer, op, shapes of its arguments), in order."""
    calls: list[tuple[str, Op, tuple]] = []

    def run(params, state, x, key):
        walk = _Recording(_plainly, True, key, None, "", model, calls)
        return model._run(walk, params, state, x)[0]

    jax.eval_shape(run, params, state, x, key)
    return [(name or model.name, op, args) for name, op, args in calls]


def _plainly(op: Op, *args: Any, **options: Any) -> tuple[Any, Any]:
    return op.equation(*args, **options), None


def _noted(path: str, calls: list, op: Op, *args: Any, **options: Any) -> tuple[Any, Any]:
    op = op.bind(**options)
    calls.append((path, op, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)))
    return _plainly(op, *args)


def _flops(jaxpr: Any) -> int:
    """Of the products in a program: two for each multiplication and addition."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (over, _), _ = eqn.params["dimension_numbers"]
            total += 2 * eqn.outvars[0].aval.size * math.prod(eqn.invars[0].aval.shape[axis] for axis in over)
        inner = [_flops(getattr(sub, "jaxpr", sub)) for sub in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")
        ) if hasattr(sub, "eqns") or hasattr(sub, "jaxpr")]  # fmt: skip
        total += sum(inner) * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else sum(inner)
    return total


def receptive_fields(model: Layer, calls: list[tuple[str, Op, tuple]]) -> dict[str, tuple[int, ...]]:
    """By layer, from the first convolution or pooling on, as long as the layers form a chain of these and of what keeps places apart.

    Batch normalization is taken as in use: in training its statistics depend on all places.

    A window of `extent` cells, `strides` apart, on cells that see `field` and lie `jump` apart in the input sees field + (extent - 1) jump.
    """
    if not _is_chain(model):
        return {}
    found: dict[str, tuple[int, ...]] = {}
    field, jump = (), ()
    for name, op, args in calls:
        window = _window(op, args)
        if window is not None:
            extent, strides = window
            field, jump = field or (1,) * len(extent), jump or (1,) * len(extent)
            if len(extent) != len(field):
                return found
            field = tuple(f + (e - 1) * j for f, e, j in zip(field, extent, jump, strict=True))
            jump = tuple(j * s for j, s in zip(jump, strides, strict=True))
        elif not _pointwise(op):
            return found  # every cell may see every other: flatten, statistics over places, transposed windows
        if field:
            found[name] = field
    return found


_POINTWISE = {*ACTIVATIONS, "prelu", "dropout", "batch_norm", "batch_norm_inference", "dense", "rms_norm"}


def _pointwise(op: Op) -> bool:
    """Whether every place of its output sees that place alone."""
    options = {name: kept.value for name, kept in op.options}
    return op.name in _POINTWISE or (op.name == "layer_norm" and options.get("dims", 1) == 1)


def _is_chain(model: Layer) -> bool:
    return not model.layers or (model.name == "serial" and all(_is_chain(layer) for _, layer in model.layers))


def _window(op: Op, args: tuple) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """(extent, strides) of a convolution or a pooling op; None for all others."""
    options = {name: kept.value for name, kept in op.options}
    if op.name == "conv":
        kernel = args[0]["w"].shape[:-2]
        dilation = per_axis(op.name, "dilation", options.get("dilation", 1), len(kernel))
        extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        return extent, per_axis(op.name, "strides", options.get("strides", 1), len(kernel))
    if op.name in ("max_pool", "avg_pool"):
        rank = len(args[0].shape) - 2
        window = per_axis(op.name, "window", options.get("window", 2), rank)
        return window, per_axis(op.name, "strides", options.get("strides") or window, rank)
    return None


def _bytes(n: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} B"

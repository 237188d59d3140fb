"""Backpropagation as a sum over paths.

Between a weight w[j, i] of a dense layer and the cost C lie the paths: x[j] times the weight reaches unit i, whose output
reaches every unit of the next layer, and so on up to the outputs. The chain rule gives one product per path, and the
derivative is their sum:

    dC/dw[j, i] = sum over paths   a[j] * h'(z[i]) * w[i, k] * h'(z[k]) * ... * w[.., o] * dC/dy[o]

Backprop is the same sum with its common factors taken out: the error delta at a unit gathers all paths from there on.

The three-layer network of the textbook, layers counted from the output (0): C = (a - y)^2, a = h(z), z = sum_i w10_i a1_i + b,
a1_i = h(z1_i), z1_i = sum_j w21_ij a2_j + b1_i, a2_j = h(z2_j), z2_j = sum_k w32_jk a3_k + b2_j. `closed_forms` holds its
derivatives written out.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import refuse, refuse_type, require_array, shown
from fdl.layer import Layer, Params
from fdl.layers.activations import ACTIVATIONS
from fdl.op import Op


@dataclasses.dataclass(frozen=True)
class Path:
    """One way from a weight to the cost: the units it passes, its factors by name, and their product."""

    units: tuple[int, ...]
    factors: tuple[tuple[str, float], ...]
    product: float


@dataclasses.dataclass(frozen=True)
class _Factor:
    """One factor of every path: an array, and which of the path's units index it."""

    name: str
    array: np.ndarray
    places: tuple[int, ...]

    def of(self, units: tuple[int, ...]) -> float:
        return float(self.array[tuple(units[place] for place in self.places)])


@dataclasses.dataclass(frozen=True)
class Paths:
    """Every path from one weight of one example to the cost.

    >>> model, loss = fdl.serial(fdl.dense(3), fdl.tanh(), fdl.dense(2)), fdl.losses.mean_squared_error
    >>> params, _ = model.init(jax.random.key(0), (4,))
    >>> x, y = jnp.ones((4,), jnp.float32), jnp.zeros((2,), jnp.float32)
    >>> found = fdl.backprop.paths(model, loss, params, x, y, weight=("dense_0", "w", 0, 1))
    >>> bool(np.isclose(found.total, sum(path.product for path in found)))
    True
    """

    weight: tuple
    layers: tuple[str, ...]  # the dense layers whose units a path names, the weight's own first
    products: np.ndarray  # [1, D, D', ...]: one product per path, by the unit in each of `layers`
    _first_unit: int
    _factors: tuple[_Factor, ...]

    @property
    def count(self) -> int:
        """How many paths there are: the product of the widths of the layers after the weight's own."""
        return self.products.size

    @property
    def total(self) -> float:
        """The sum over all paths: dC/dweight."""
        return float(self.products.sum())

    def largest(self, k: int = 10) -> list[Path]:
        """The k paths of the largest magnitude, largest first."""
        order = np.argsort(-np.abs(self.products), axis=None, kind="stable")[:k]
        return [self._path(np.unravel_index(flat, self.products.shape)) for flat in order]

    def __iter__(self) -> Iterator[Path]:
        return (self._path(index) for index in np.ndindex(self.products.shape))

    def __len__(self) -> int:
        return self.count

    def _path(self, index: tuple) -> Path:
        units = (self._first_unit, *map(int, index[1:]))
        factors = tuple((factor.name, factor.of(units)) for factor in self._factors)
        return Path(units, factors, float(self.products[index]))

    def table(self, k: int = 10) -> str:
        """The k largest paths as text: the units, every factor, the product; then the sum over all."""
        shown = self.largest(k)
        rows = [["path", *(factor.name for factor in self._factors), "product"]]
        for path in shown:
            values = [*(value for _, value in path.factors), path.product]
            rows.append([" > ".join(map(str, path.units)), *(f"{value:.6g}" for value in values)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        rest = "" if len(shown) == self.count else f", the {len(shown)} largest shown"
        return "\n".join([*lines, f"sum over {self.count} path(s){rest}: {self.total:.10g}"])

    def __str__(self) -> str:
        layer, leaf, *index = self.weight
        return f"dC / d {layer}.{leaf}{index}, a path is units of {' > '.join(self.layers)}\n{self.table()}"


def paths(model: Layer, loss: Op, params: Params, x: Any, target: Any, *, weight: tuple, limit: int = 10_000) -> Paths:
    """Every path from one weight to the cost of one example, with its product; `.total` is the derivative.

    model: `serial` of dense layers, elementwise activations, flatten and dropout (which does not drop here).
    x, target: one example, without a batch axis or with one of size 1. weight: (layer, "w", j, i) or (layer, "b", i).
    Errors: InputError for an unknown layer or weight, a layer that mixes units in another way than dense does, more than
    one example, or more paths than `limit`.

        >>> model, loss = fdl.serial(fdl.dense(3), fdl.tanh(), fdl.dense(2)), fdl.losses.mean_squared_error
        >>> params, _ = model.init(jax.random.key(0), (4,))
        >>> x, y = jnp.ones((4,), jnp.float32), jnp.zeros((2,), jnp.float32)
        >>> fdl.backprop.paths(model, loss, params, x, y, weight=("dense_0", "w", 0, 1)).count  # through either output
        2
    """
    where = "backprop.paths"
    if not isinstance(loss, Op):
        refuse_type(where, f"loss is {shown(loss)}, wanted an Op such as fdl.losses.mean_squared_error")
    x, target = _one_example(where, x, target)
    stages, dy = _stages(where, model, loss, params, x, target)
    start, (j, i) = _locate(where, stages, weight)
    after = stages[start:]
    count = math.prod(stage.slope.size for stage in after[1:])
    if count > limit:
        refuse(where, f"{count} paths from {weight} to the cost, limit is {limit}; raise limit=, or ask a later layer")
    first = after[0]
    entry = np.ones(1) if j is None else np.asarray([first.x[j]])
    products = entry * first.slope[i]
    factors = [] if j is None else [_Factor(f"input[{j}]", np.full(first.slope.shape, first.x[j]), (0,))]
    factors.append(_Factor(f"h'({first.name})", first.slope, (0,)))
    previous = slice(i, i + 1)
    for place, stage in enumerate(after[1:], start=1):
        products = products[..., None] * stage.w[previous] * stage.slope
        factors += [_Factor(f"{stage.name}.w", stage.w, (place - 1, place))]
        factors += [_Factor(f"h'({stage.name})", stage.slope, (place,))]
        previous = slice(None)
    products = products * dy[previous]
    factors.append(_Factor("dC/dy", dy, (len(after) - 1,)))
    return Paths(tuple(weight), tuple(stage.name for stage in after), products, i, tuple(factors))


@dataclasses.dataclass(frozen=True)
class _Stage:
    """A dense layer and the elementwise layers after it, at one example."""

    name: str
    x: np.ndarray  # [I]
    w: np.ndarray  # [I, O]
    slope: np.ndarray  # [O]: the product of the activations' derivatives


def _stages(where: str, model: Layer, loss: Op, params: Params, x: Any, target: Any) -> tuple[list[_Stage], np.ndarray]:
    if model.name != "serial":
        refuse(where, f"model is a {model.name}, wanted fdl.serial of dense layers and activations")
    for name, layer in model.layers:
        if layer.name not in {"dense", "flatten", "dropout", *ACTIVATIONS}:
            refuse(
                where, f"{name} is a {layer.name}, which mixes units; paths run through dense layers and activations"
            )
    inputs, slopes, dy = jax.device_get(_walk(model, loss, params, x, target))
    names = [name for name, layer in model.layers if layer.name == "dense"]
    stages = [
        _Stage(name, of_x, np.asarray(params[name]["w"]), slope)
        for name, of_x, slope in zip(names, inputs, slopes, strict=True)
    ]
    return stages, dy


@functools.partial(jax.jit, static_argnums=(0, 1))
def _walk(model: Layer, loss: Op, params: Params, x: Any, target: Any) -> tuple[list, list, Any]:
    """(the input of every dense layer, the product of the slopes after it, the error at the output), of one example."""
    inputs, slopes = [], []
    for name, layer in model.layers:
        y, _, residuals = layer.forward(params.get(name, {}), {}, x)
        if layer.name == "dense":
            inputs.append(x[0])
            slopes.append(jnp.ones_like(y[0]))
        elif slopes:
            # elementwise: each output has one input, so this cotangent reads off the diagonal of the Jacobian
            slopes[-1] *= layer.backward(residuals, jnp.ones_like(y))[1][0]
        x = y
    values, residuals = loss.forward(x, target)
    return inputs, slopes, loss.backward(residuals, jnp.ones_like(values))[0][0]


def _one_example(where: str, x: Any, target: Any) -> tuple[Any, Any]:
    require_array(where, "x", x)
    if x.ndim == 1:
        return jnp.asarray(x)[None], jnp.asarray(target)[None]
    if x.ndim == 0 or x.shape[0] != 1:
        refuse(where, f"x has shape {list(x.shape)}, wanted one example: x[0], target[0] of a batch")
    return jnp.asarray(x), jnp.asarray(target)


def _locate(where: str, stages: list[_Stage], weight: Any) -> tuple[int, tuple[int | None, int]]:
    """(which stage, (j, i)); j is None for a bias."""
    names = [stage.name for stage in stages]
    if not isinstance(weight, tuple | list) or len(weight) < 3 or weight[0] not in names:
        refuse(where, f'weight is {weight!r}, wanted (layer, "w", j, i) or (layer, "b", i) with layer one of {names}')
    name, leaf, *index = weight
    start = names.index(name)
    sizes = {"w": stages[start].w.shape, "b": stages[start].w.shape[1:]}.get(leaf, ())
    fits = len(index) == len(sizes) and all(
        isinstance(n, int | np.integer) and 0 <= n < size for n, size in zip(index, sizes, strict=True)
    )
    if not sizes or not fits:
        refuse(
            where,
            f"weight is {weight!r}, but {name} has w{list(stages[start].w.shape)} and b{[stages[start].w.shape[1]]}",
        )
    return start, (index[0] if leaf == "w" else None, index[-1])


def closed_forms(
    h: Op, x: Any, y: Any, *, w32: Any, b2: Any, w21: Any, b1: Any, w10: Any, b: Any
) -> dict[str, jax.Array]:
    """The derivatives of the three-layer network, each written out (see the module's docstring for its equations).

        dC/dw10_i  = 2 (a - y) h'(z) a1_i
        dC/db      = 2 (a - y) h'(z)
        dC/dw21_ij = 2 (a - y) h'(z) w10_i h'(z1_i) a2_j
        dC/dw32_jk = 2 (a - y) h'(z) sum_i w10_i h'(z1_i) w21_ij h'(z2_j) a3_k

    h: an activation such as fdl.ops.sigmoid. x: a3 [K]. y: the target, a scalar. Weights as fdl holds them, [I, O]:
    w32 [K, J], w21 [J, I], w10 [I]; biases b2 [J], b1 [I], b []. Returns {"w10", "b", "w21", "w32"}, shaped like the weights.

        >>> one, two = jnp.float32([1]), jnp.float32([[1]])
        >>> found = fdl.backprop.closed_forms(fdl.ops.relu, one, 2.0, w32=two, b2=one, w21=two, b1=one, w10=one, b=1.0)
        >>> sorted(found)
        ['b', 'w10', 'w21', 'w32']
    """
    a3 = x
    z2 = a3 @ w32 + b2  # [J]
    a2, h2 = h(z2), _slope(h, z2)
    z1 = a2 @ w21 + b1  # [I]
    a1, h1 = h(z1), _slope(h, z1)
    z = a1 @ w10 + b  # []
    a, h0 = h(z), _slope(h, z)
    error = 2 * (a - y) * h0
    return {
        "w10": error * a1,
        "b": error,
        "w21": error * jnp.einsum("i,i,j->ji", w10, h1, a2),
        "w32": error * jnp.einsum("i,i,ji,j,k->kj", w10, h1, w21, h2, a3),
    }


def _slope(h: Op, z: Any) -> jax.Array:
    """h'(z) of an elementwise op."""
    _, residuals = h.forward(z)
    return h.backward(residuals, jnp.ones_like(z))[0]

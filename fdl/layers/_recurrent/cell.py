"""What a cell is, and the curves its gates take.

A cell makes a new state from the last one and the input part a = x w:

    equation(params, state, x) -> state               one step, as the textbook writes it: the oracle
    split(params) -> weights                          the arrays one step multiplies by, made once before the loop
    step(weights, state, a) -> (state, kept)          the same step, with what the way back needs
    back(flipped, state, kept, dstate) -> (dstate, errors)
                                                      the error one step back: state is the one before the step, dstate the
                                                      error of the one after it; flipped are the weights, matrices transposed
    gradients(state, kept, errors) -> (dparams, da)   of the weights, from many steps at once: rows [n, D], n over steps and
                                                      examples; the engine makes dw and dx from da

A state is a dict of arrays [N, D]; "h" is what comes out.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse
from fdl.layers._weights import drawn
from fdl.layers.activations import ACTIVATIONS
from fdl.op import accumulator

glorot_uniform = jax.nn.initializers.glorot_uniform()
orthogonal = jax.nn.initializers.orthogonal()


@dataclasses.dataclass(frozen=True)
class Cell:
    """One recurrent unit (see the module's docstring). params maps sizes (I, D) to the shapes of its parameters."""

    name: str
    shapes: Callable  # (I, D) -> {name: shape}
    equation: Callable
    split: Callable
    step: Callable
    back: Callable
    gradients: Callable
    state: tuple[str, ...] = ("h",)
    empty: float = 0.0  # every entry of the state before the first step, and after a reset


@dataclasses.dataclass(frozen=True)
class Curve:
    """An activation inside a cell. The slope comes from the value where it can: nothing else is kept then."""

    value: Callable
    of_value: Callable | None  # value -> slope
    of_input: Callable

    def __call__(self, x: Any) -> tuple[Any, tuple]:
        """(value, what `slope` needs beside it)."""
        return self.value(x), () if self.of_value is not None else (self.of_input(x),)

    def slope(self, y: Any, more: tuple) -> Any:
        return self.of_value(y) if self.of_value is not None else more[0]


_OF_VALUE: dict[str, Callable] = {
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: (1 - y) * (1 + y),
    "relu": lambda y: (y > 0).astype(y.dtype),
}


_INTO_UNIT = ("hard_sigmoid", "sigmoid")


def curve(where: str, argument: str, name: str) -> Curve:
    if argument == "gate" and name not in _INTO_UNIT:
        refuse(where, f"gate is {name!r}, wanted an activation into [0, 1]: {', '.join(_INTO_UNIT)}")
    if name not in ACTIVATIONS:
        refuse(where, f"{argument} is {name!r}, wanted the name of an activation: {', '.join(sorted(ACTIVATIONS))}")
    row = ACTIVATIONS[name]
    options = row.options()
    return Curve(lambda x: row.f(x, **options), _OF_VALUE.get(name), lambda x: row.f1(x, **options))


def textbook(name: str) -> Callable:
    """The activation as its equation has it."""
    return ACTIVATIONS[name].equation


def transposed(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: w.T if w.ndim == 2 else w for name, w in weights.items()}


def row(b: Any) -> Any:
    """[D] as a row that adds to [N, D]."""
    return b.reshape(1, -1)


def first_weights(
    where: str, key: Any, shapes: dict[str, tuple], dtype: Any, w_init: Callable, u_init: Callable
) -> dict:
    """w by w_init, u in square blocks by u_init, one for each gate, the rest 0."""
    params = {}
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        own = jax.random.fold_in(key, i)
        if name == "w":
            params[name] = drawn(where, w_init, own, shape, dtype)
        elif name == "u":
            size = shape[0]
            keys = jax.random.split(own, shape[1] // size)
            wide = accumulator(dtype)  # orthogonal is a QR, which JAX does not have in 16 bits
            blocks = [drawn(where, u_init, k, (size, size), wide) for k in keys]
            params[name] = jnp.concatenate(blocks, axis=1).astype(dtype)
        else:
            params[name] = jnp.zeros(shape, dtype)
    return params

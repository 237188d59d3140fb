"""A layer that draws at random while training and passes x in use."""

from typing import Any

from fdl.layer import Layer, Params, Pass, State, bind, no_parameters
from fdl.op import Op


def in_training(op: Op) -> Layer:
    """op: (x, key), with all its options bound. In use y = x."""
    return Layer(op.name, init=no_parameters, run=bind(_run, op=op), backward=bind(_backward, op=op), stochastic=True)


def _run(walk: Pass, params: Params, state: State, x: Any, *, op: Op) -> tuple[Any, State, Any]:
    if not walk.train:
        return x, state, None
    y, residuals = walk.evaluate(op, x, walk.key)
    return y, state, residuals


def _backward(residuals: Any, dy: Any, *, op: Op) -> tuple[Params, Any]:
    return {}, dy if residuals is None else op.backward(residuals, dy)[0]

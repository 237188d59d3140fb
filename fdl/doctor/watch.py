"""The model with an observer at every layer that is not a composite: what went in, what came out, and the errors on the way back.

The composites are rebuilt with observed children, so that whatever they do to arrays between layers stays theirs. An observer
notes what passes while JAX traces, as `deltas` of `backward` does: nothing is computed for it.
"""

import dataclasses
from typing import Any

from fdl.compose import rebuilt
from fdl.layer import Layer, Params, Pass, State, bind

COMPOSITES = ("serial", "residual", "parallel")


@dataclasses.dataclass
class Seen:
    """One layer in one pass. Composites hand arrays on as they are: one that is another's output is the same object."""

    layer: Layer
    walk: Pass
    params: Params
    state: State
    x: Any
    y: Any
    residuals: Any
    dy: Any = None
    dx: Any = None
    dparams: Any = None


class Notes:
    """What the observers saw, by the name of the layer. Compared by identity: it is of one pass."""

    def __init__(self):
        self.layers: dict[str, Seen] = {}


def observed(model: Layer) -> tuple[Layer, Notes]:
    """(the model, observed, what will be seen); names as in `model.names`, or the model's own if it is one layer."""
    notes = Notes()
    return _observed(model, "", notes), notes


def _observed(layer: Layer, name: str, notes: Notes) -> Layer:
    if layer.layers and layer.name in COMPOSITES:
        inside = f"{name}/" if name else ""
        return rebuilt(layer, tuple((child, _observed(inner, inside + child, notes)) for child, inner in layer.layers))
    noted = {"layer": layer, "name": name or layer.name, "notes": notes}
    return Layer(
        layer.name,
        init=layer._init,
        run=bind(_run, **noted),
        backward=bind(_backward, **noted),
        stochastic=layer.stochastic,
        examples=layer.examples,
    )


def _run(walk: Pass, params: Params, state: State, x: Any, *, layer: Layer, name: str, notes: Notes):
    y, new_state, residuals = layer._run(walk, params, state, x)
    notes.layers[name] = Seen(layer, walk, params, state, x, y, residuals)
    return y, new_state, residuals


def _backward(residuals: Any, dy: Any, *, layer: Layer, name: str, notes: Notes) -> tuple[Params, Any]:
    dparams, dx = layer.backward(residuals, dy)
    seen = notes.layers[name]
    seen.dy, seen.dx, seen.dparams = dy, dx, dparams
    return dparams, dx

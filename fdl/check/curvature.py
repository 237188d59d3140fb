"""Second derivatives without a reference: the steps of `fdl.check.numerical`, taken of the gradient that was checked.

<v, gradient(x)> is a function like any other. Its derivative in reverse is the second derivative that is judged, and its complex
step or its central differences are what judges it: a backward pass in which a `stop_gradient` cuts the second derivative off is
seen, though nothing else has second derivatives to compare with.
"""

import dataclasses
from typing import Any

import numpy as np

from fdl.check.evaluate import WIDE, Measured, Point
from fdl.check.numerical import Evidence, evidence
from fdl.check.rounding import unit_roundoff
from fdl.check.subject import Differentiated, Result, pulled


@dataclasses.dataclass(frozen=True, eq=False)
class Slopes:
    """The gradients at fixed cotangents, as a function that is differentiated; its cotangents are directions v."""

    subject: Differentiated
    w: list

    def outputs(self, active: list, fixed: Any) -> tuple[list, tuple[list, list]]:
        return self.subject(active, fixed, self.w).gradients, ([], [])

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        return pulled(lambda active: self.outputs(active, fixed), active, w)


def second_evidence(candidate: Differentiated, point: Point, rng: np.random.Generator) -> list[Evidence] | None:
    """Leaf by leaf; None where not all of it is computed in float64. `point.w` is (cotangents, v). Raises what differentiating
    twice raises."""
    w, v = point.w
    slopes, at = Slopes(candidate, w), dataclasses.replace(point, w=v)
    measured = Measured(slopes, WIDE, rng)
    if max(measured.precisions(at), default=0.0) > unit_roundoff(np.float64):
        return None
    return evidence(slopes, measured, at, len(point.active), rng)  # pyright: ignore[reportArgumentType]

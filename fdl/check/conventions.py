"""What a gradient entry may be at a kink if every entry of the output takes its slope by a convention of its own.

Of concatenate([min(a, b), max(a, b)]) at a = b both may send their cotangents to a: no slope of the sum around does, and it is
a subgradient all the same. Moved around the point, forward mode along one entry x gives the slopes of all output entries y at
once, and the interval is the sum of theirs:

    sum over y of min(w dy/dx)  <=  dx  <=  sum over y of max(w dy/dx)
"""

import dataclasses

import numpy as np

from fdl.check.adjoint import Forward
from fdl.check.compare import Truth
from fdl.check.evaluate import Measured, Point
from fdl.check.kinks import Jump, moved_around
from fdl.check.subject import Differentiated

_ASKED = 32  # entries; if it explains so many, it explains the others


class Conventions:
    """The intervals of the entries of the gradients at one point."""

    def __init__(self, truth: Measured, point: Point, rng: np.random.Generator):
        self.truth, self.point, self.rng = truth, point, rng
        self._forward: Measured | None = None

    def interval(self, place: int, index: tuple[int, ...]) -> tuple[float, float] | None:
        """(lowest, highest) of one entry of active leaf `place`; None without a forward mode."""
        if not isinstance(self.truth.subject, Differentiated):
            return None
        along = [np.zeros(x.shape) for x in self.point.active]
        along[place][index] = 1.0
        at = dataclasses.replace(self.point, w=along)
        if self._forward is None:
            self._forward = Measured(Forward(self.truth.subject), self.truth.precision, self.rng)
        try:
            met = [
                self._forward.near(at, x).arrays for x in moved_around(self.point, self.truth.precision.wide, self.rng)
            ]
        except Exception:  # a custom_vjp has none
            return None
        with np.errstate(all="ignore"):
            slopes = [
                np.stack([w * y for y in of]) for w, of in zip(self.point.w, zip(*met, strict=True), strict=False)
            ]
            return float(sum(np.sum(s.min(0)) for s in slopes)), float(sum(np.sum(s.max(0)) for s in slopes))


def explained(
    got: np.ndarray, truth: Truth, jump: Jump, wrong: np.ndarray, all_of: list[Conventions], place: int
) -> Truth:
    """The truth without the wrong entries at a kink that such conventions explain; the points of `all_of` are summed over."""
    at_kink = wrong & jump.there & np.isfinite(got)
    entries = [tuple(int(i) for i in index) for index in np.argwhere(at_kink)]
    inside = np.zeros(got.shape, bool)
    for entry in entries[:_ASKED]:
        intervals = [conventions.interval(place, entry) for conventions in all_of]
        ends = [ends for ends in intervals if ends is not None]
        if len(ends) < len(intervals):
            return truth
        low, high = (sum(end[side] for end in ends) for side in (0, 1))
        inside[entry] = low - truth.allowed[entry] <= got[entry] <= high + truth.allowed[entry]
    if len(entries) > _ASKED and all(inside[entry] for entry in entries[:_ASKED]):
        inside = at_kink
    return dataclasses.replace(truth, comparable=truth.comparable & ~inside, kinks=truth.kinks + int(inside.sum()))

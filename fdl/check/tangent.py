"""Forward mode as a witness: <w, J v>, where the size of <w, y> hides what one leaf does to it.

A difference of <w, y> sees a leaf down to the rounding of <w, y>, which is that of the largest leaf. A derivative in forward
mode is no difference: its rounding is that of the leaf's own terms. What is differentiated is the computation without
derivatives written by hand; JAX's rules for its operations it shares with what is judged, and their transposes not. So it
settles what steps leave open, and accuses nobody without a complex step that says the same.
"""

from typing import Any

import numpy as np

from fdl.check.adjoint import Forward
from fdl.check.compare import FORMULA
from fdl.check.evaluate import Measured, Point, Precision
from fdl.check.primal import plain_of
from fdl.check.rounding import unit_roundoff
from fdl.check.subject import Differentiated


class Tangent:
    """<w, J v> along a direction v in one leaf, and its rounding; compiled when it is first asked for."""

    def __init__(self, candidate: Differentiated, precision: Precision, point: Point, rng: np.random.Generator):
        self.candidate, self.precision, self.point, self.rng = candidate, precision, point, rng
        self._forward: Measured | None = None
        self._missing = False

    def __call__(self, place: int, v: np.ndarray) -> tuple[float, float] | None:
        """None where there is no forward mode, or one that is no witness: a derivative written by hand stays in it."""
        if self._missing:
            return None
        w: list[Any] = [np.zeros(x.shape) for x in self.point.active]
        w[place] = v
        at = Point(self.point.active, self.point.fixed, w)
        try:
            along, scales, u = self._measured(at)
        except Exception:  # a callback, a kernel: JAX has no derivative of it
            self._missing = True
            return None
        with np.errstate(all="ignore"):
            triples = list(zip(self.point.w, along, scales, strict=True))
            wanted = sum(float(np.sum(np.where(w != 0, w * y, 0.0))) for w, y, _ in triples)
            rounding = FORMULA * u * float(np.sqrt(sum(np.sum(np.square(w * s)) for w, _, s in triples)))
        return (wanted, rounding) if np.isfinite(wanted) and np.isfinite(rounding) else None

    def _measured(self, at: Point) -> tuple[list[np.ndarray], list[np.ndarray], float]:
        if self._forward is None:
            with self.precision.scope():
                active, fixed, _ = self.precision.operands(self.point)
            plain = plain_of(self.candidate, self.precision, active, fixed)
            self._forward = Measured(Forward(plain), self.precision, self.rng)
        forward = self._forward
        return forward(at).arrays, forward.scale(at), max(unit_roundoff(np.float64), *forward.precisions(at))

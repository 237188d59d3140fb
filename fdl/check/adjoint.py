"""The exact tests: what a backward pass has to satisfy whatever the function is, to rounding and without a step.

adjoint        <J v, w> = <v, J^T w>, with J v from the reference in forward mode, which shares nothing with a backward pass;
               v normal and with signs at random (Rademacher), for every leaf, on its own
linearity      2^40, 2^-40 and -1 times the cotangent give as many times the gradient, a sum of two the sum (see `Judge`)
independence   what the reference does not depend on has the gradient 0: where only a part of the outputs has a cotangent,
               the entries that have no influence on that part get none

All of them run in float64. At a kink a candidate may take another slope than the reference: its entries there are left to
`fdl.check.kinks`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from fdl.check.compare import FORMULA
from fdl.check.evaluate import Measured, Point, brief
from fdl.check.rounding import unit_roundoff
from fdl.check.subject import Differentiated, Result

SEEDS = 2  # a normal direction and one of signs
_FAULT = 1e-2  # of an entry: what the probabilities are about


@dataclasses.dataclass(frozen=True, eq=False)
class Forward:
    """The derivative of the outputs along w, in forward mode, as a subject."""

    subject: Differentiated

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        v = [direction.astype(x.dtype) for direction, x in zip(w, active, strict=True)]
        run = lambda active: self.subject.outputs(active, fixed)[0]
        return Result(jax.jvp(run, (active,), (v,))[1], [], [])


@dataclasses.dataclass(frozen=True, eq=False)
class Pairing:
    """One direction in one leaf: <J v, w> and how far rounding may take it."""

    place: int  # which gradient
    v: np.ndarray
    signs: bool
    wanted: float
    rounding: float

    def error(self, gradient: np.ndarray, allowed: np.ndarray) -> tuple[float, float]:
        """(|<J v, w> - <v, gradient>|, what is allowed), from the entries' own allowance."""
        with np.errstate(all="ignore"):
            return abs(self.wanted - float(np.sum(self.v * gradient))), self.margin(allowed)

    def margin(self, allowed: np.ndarray) -> float:
        return self.rounding + float(np.sum(np.abs(self.v) * allowed))

    def seen(self, fault: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """The probability, over directions of this kind, that a fault of that size in an entry is seen."""
        with np.errstate(all="ignore"):
            ratio = np.nan_to_num(self.margin(allowed) / np.abs(fault), nan=np.inf)
        return (
            (ratio < 1).astype(float) if self.signs else np.vectorize(math.erfc, otypes=[float])(ratio / math.sqrt(2))
        )


class Pairings:
    """The directions in which a reference was differentiated in forward mode; `note` says why there are none."""

    def __init__(self, reference: Differentiated, truth: Measured, point: Point, rng: np.random.Generator):
        self.note = ""
        self.all: list[Pairing] = []
        forward = Measured(Forward(reference), truth.precision, rng)
        try:
            for place, x in enumerate(point.active):
                self.all += [self._pairing(forward, point, place, x, seed, rng) for seed in range(SEEDS)]
        except Exception as error:  # a custom_vjp has no forward mode
            self.all, self.note = [], brief(error)

    def of(self, place: int) -> list[Pairing]:
        return [pairing for pairing in self.all if pairing.place == place and np.isfinite(pairing.wanted)]

    def _pairing(
        self, forward: Measured, point: Point, place: int, x: np.ndarray, seed: int, rng: np.random.Generator
    ) -> Pairing:
        draw = rng.integers(0, 2, x.shape) * 2.0 - 1.0 if seed % 2 else rng.standard_normal(x.shape)
        v = np.where(
            np.isfinite(x), np.asarray(draw).astype(x.dtype).astype(np.float64), 0.0
        )  # exact in the leaf's dtype
        at = dataclasses.replace(point, w=[v if i == place else np.zeros(y.shape) for i, y in enumerate(point.active)])
        along, scales = forward(at).arrays, forward.scale(at)
        u = max(unit_roundoff(np.float64), *forward.precisions(at))
        with np.errstate(all="ignore"):
            wanted = sum(float(np.sum(w * y)) for w, y in zip(point.w, along, strict=True))
            rounding = sum(float(np.sum(np.abs(w) * s)) for w, s in zip(point.w, scales, strict=True))
        return Pairing(place, v, bool(seed % 2), wanted, FORMULA * u * rounding)


def probability(pairings: Sequence[Pairing], gradient: np.ndarray, natural: float, allowed: np.ndarray) -> float:
    """That a fault in one entry, any of them alike, is seen along one of the directions: 1 % of it, or 1e-6 of `natural`."""
    fault = np.maximum(_FAULT * np.abs(gradient), 1e-6 * natural)
    missed = np.ones(gradient.shape)
    for pairing in pairings:
        missed = missed * (1 - pairing.seen(fault, allowed))
    return float(np.mean(1 - missed)) if gradient.size else 0.0


def parts_of(point: Point, rng: np.random.Generator) -> list[tuple[int, int | None, Point]]:
    """(output, index along its first axis, the point with a cotangent there alone): parts of the outputs, drawn at random."""
    places = [
        (output, index)
        for output, w in enumerate(point.w)
        for index in (range(w.shape[0]) if np.ndim(w) and w.shape[0] > 1 else (None,))
    ]
    if len(places) < 2:
        return []
    found = []
    for at in rng.permutation(len(places))[:SEEDS]:
        output, index = places[at]
        w = [np.zeros_like(x) for x in point.w]
        kept = ... if index is None else index
        w[output][kept] = point.w[output][kept]
        found.append((output, index, dataclasses.replace(point, w=w)))
    return found

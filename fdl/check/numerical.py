"""Evidence without a reference: central differences with Richardson extrapolation, in float64, leaf by leaf.

For a direction v in one argument leaf, phi(h) = <w, f(x + h v)> and

    D(h) = (phi(h) - phi(-h)) / 2h = <v, dx> + c1 h^2 + c2 h^4 + ...
    T[k, 0] = D(h[k])        T[k, j] = T[k, j-1] + (T[k, j-1] - T[k-1, j-1]) / ((h[k-j] / h[k])^2 - 1)

over a ladder of steps h. The best T is the one whose neighbours in the table differ least from it (Ridders 1982). Its error
is that difference, the rounding of phi over h, and how far the odd and the even rungs, each a ladder of its own, disagree:
a function too rough for the steps has lucky neighbours, but not twice the same. What the ladder cannot estimate to one part
in a million decides nothing, and what it cannot estimate to one part in a thousand accuses nobody.

Each leaf has directions of its own, so that no leaf hides behind another: every coordinate of a small leaf, else signs at
random, at the size of the leaf and at the size of every entry.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from fdl.check.compare import rms
from fdl.check.evaluate import Evaluation, Measured, Outcome, Point
from fdl.check.subject import Differentiated, Result

_COORDINATES = 8  # leaves up to this size are tried entry by entry
_DIRECTIONS = 8
_STEPS = 0.25 * 0.5 ** np.arange(14)
_ENOUGH = 1e-6  # of the size of the derivative: an error estimate below it decides,
_ROUGH = 1e-3  # and one above this accuses nobody
_MARGIN = 30.0  # times the estimated error


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence for one leaf."""

    directions: int
    wrong: int
    undecided: str  # why, or ""
    worst: float  # the largest difference over what is allowed
    got: float  # <v, dx> of the worst direction
    wanted: float
    decided: np.ndarray  # the entries in which a fault of 1 % would have been seen
    sees: np.ndarray  # the relative error of an entry that would have been seen


def no_evidence(shape: tuple[int, ...], reason: str) -> Evidence:
    """The evidence for a leaf on which nothing could be tried."""
    nothing = np.zeros(shape, bool)
    return Evidence(0, 0, reason, 0.0, np.nan, np.nan, nothing, np.full(shape, np.inf))


@dataclasses.dataclass(frozen=True, eq=False)
class _Value:
    """The value alone, as a subject without gradients."""

    subject: Differentiated

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        return Result(self.subject.outputs(active, fixed)[0], [], [])


def evidence(
    candidate: Differentiated, measured: Measured, point: Point, values: int, rng: np.random.Generator
) -> list[Evidence]:
    """One row per differentiated leaf. `measured` is the candidate in float64, its first `values` arrays the outputs."""
    outcome, scales = measured(point), measured.scale(point)
    run = Evaluation(_Value(candidate), measured.precision, quick=True)
    with np.errstate(all="ignore"):
        parts = zip(point.w, scales[:values], measured.precisions(point)[:values], strict=False)
        noise = float(np.sqrt(sum(np.sum(np.square(w * u * s)) for w, s, u in parts)))
        flow = float(np.sqrt(sum(np.sum(np.square(w * y)) for w, y in zip(point.w, outcome.arrays, strict=False))))
    rows = []
    for place, leaf in enumerate(point.active):
        dx = outcome.arrays[values + place]
        size = _size(leaf, point.active)
        tried = [_try(run, point, place, v, dx, noise, flow) for v in _directions(leaf, size, rng)]
        rows.append(_row(tried, dx))
    return rows


def _size(leaf: np.ndarray, others: list[np.ndarray]) -> float:
    return rms(leaf) or max(rms(x) for x in others) or 1.0


def _directions(leaf: np.ndarray, size: float, rng: np.random.Generator) -> list[np.ndarray]:
    x = np.abs(leaf.astype(np.float64))
    if leaf.size <= _COORDINATES:
        unit = np.eye(leaf.size).reshape(leaf.size, *leaf.shape)
        return [v * np.where(x > 0, x, size) for v in unit]
    signs = [rng.integers(0, 2, leaf.shape) * 2.0 - 1.0 for _ in range(_DIRECTIONS)]
    return [sign * (size if i % 2 else np.where(x > 0, x, size)) for i, sign in enumerate(signs)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Tried:
    v: np.ndarray
    got: float
    wanted: float
    allowed: float
    natural: float
    converged: bool  # well enough to accuse


def _try(
    run: Callable[[Point], Outcome], point: Point, place: int, v: np.ndarray, dx: np.ndarray, noise: float, flow: float
) -> _Tried:
    def values(h: float) -> list[np.ndarray]:
        active = [x.astype(np.float64) for x in point.active]
        active[place] = active[place] + h * v
        return run(dataclasses.replace(point, active=active)).arrays

    with np.errstate(all="ignore"):
        slopes = []
        for h in _STEPS:
            above, below = values(h), values(-h)
            # differences of outputs first: <w, y> itself may cancel
            slopes.append(
                sum(float(np.sum(w * (a - b))) for w, a, b in zip(point.w, above, below, strict=False)) / (2 * h)
            )
        ladder = np.stack([_STEPS, np.asarray(slopes), noise / _STEPS])
        wanted, error = _extrapolated(*ladder)
        ladders = [_extrapolated(*ladder[:, i::2])[0] for i in (0, 1)]
        error = max(error, abs(ladders[0] - ladders[1])) if np.isfinite(ladders).all() else np.inf
        got = float(np.sum(v * dx))
        natural = max(float(np.sqrt(np.sum(np.square(v * dx)))), abs(wanted), 1e-3 * flow)
        converged = error <= max(_ROUGH * abs(wanted), _ENOUGH * 1e-3 * flow)
    return _Tried(v, got, wanted, float(_MARGIN * error + 1e-11 * natural), natural, bool(converged))


def _extrapolated(steps: np.ndarray, slopes: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """(best estimate, its error) from the ladder of central differences."""
    best, best_error = float("nan"), float("inf")
    previous: list[float] = []
    for k, slope in enumerate(slopes):
        row = [float(slope)]
        for j in range(1, min(k, 6) + 1):
            row.append(row[j - 1] + (row[j - 1] - previous[j - 1]) / float((steps[k - j] / steps[k]) ** 2 - 1))
        for j in range(1, len(row)):
            error = max(abs(row[j] - row[j - 1]), abs(row[j] - previous[j - 1])) + float(noise[k])
            if error < best_error:  # false for nan
                best, best_error = row[j], error
        previous = row
    return best, best_error


def _row(tried: list[_Tried], dx: np.ndarray) -> Evidence:
    differences = [abs(t.got - t.wanted) / t.allowed for t in tried]
    ratios = [np.inf if np.isnan(d) and not np.isfinite(t.got) else d for d, t in zip(differences, tried, strict=True)]
    wrong = [i for i, t in enumerate(tried) if ratios[i] > 1 and t.converged]
    weak = [
        t for i, t in enumerate(tried) if not t.allowed <= _ENOUGH * t.natural or (ratios[i] > 1 and not t.converged)
    ]
    known = [i for i, ratio in enumerate(ratios) if not np.isnan(ratio)]
    worst = max(wrong or known, key=lambda i: ratios[i], default=0)
    undecided = ""
    if not wrong and weak:
        undecided = (
            f"central differences are too rough here (good to {weak[0].allowed / weak[0].natural:.0e}, {_ENOUGH:.0e} needed)"
            if np.isfinite(weak[0].allowed)
            else "the value is not finite around the point"
        )
    with np.errstate(all="ignore"):
        typical = np.maximum(np.abs(dx), 1e-3 * rms(dx))
        # where the gradient is zero throughout: a fault is measured by the size it has by its units
        parts = [(t, np.abs(t.v) * typical if dx.any() else np.full(dx.shape, t.natural)) for t in tried]
        sees = np.min([np.where(t.v != 0, t.allowed / part, np.inf) for t, part in parts], axis=0)
    sees = np.where(np.isnan(sees), np.inf, sees)
    return Evidence(
        directions=len(tried),
        wrong=len(wrong),
        undecided=undecided,
        worst=float(ratios[worst]),
        got=tried[worst].got,
        wanted=tried[worst].wanted,
        decided=sees <= 1e-2,
        sees=sees,
    )

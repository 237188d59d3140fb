"""Evidence without a reference: complex steps, or central differences with Richardson extrapolation, in float64, leaf by leaf.

Where f is analytic, which its jaxpr says, f(x + i h v) has <v, dx> h as its imaginary part: exact to rounding, for h may be as
small as one likes and nothing is subtracted (Squire and Trapp 1998). That decides. Elsewhere, and before anybody is accused:

For a direction v in one argument leaf, phi(h) = <w, f(x + h v)> and

    D(h) = (phi(h) - phi(-h)) / 2h = <v, dx> + c1 h^2 + c2 h^4 + ...
    T[k, 0] = D(h[k])        T[k, j] = T[k, j-1] + (T[k, j-1] - T[k-1, j-1]) / ((h[k-j] / h[k])^2 - 1)

over a ladder of steps h. The best T is the one whose neighbours in the table differ least from it (Ridders 1982). Its error
is that difference, the rounding of phi over h, and how far the odd and the even rungs, each a ladder of its own, disagree:
a function too rough for the steps has lucky neighbours, but not twice the same. What the ladder cannot estimate to one part
in a million decides nothing, and what it cannot estimate to one part in a thousand accuses nobody.

Where f has a kink the slopes on either side, from ladders of (phi(h) - phi(0)) / h and of (phi(0) - phi(-h)) / h, come out
different. Any slope between them is a subgradient and is left out; one outside is wrong.

What accuses also says how fast the Taylor remainder phi(h) - phi(0) - h <v, dx> shrinks, over the steps at which it stands
above the rounding of phi: like h^2 for a right gradient, like h for a wrong one.

Each leaf has directions of its own, so that no leaf hides behind another: every coordinate of a small leaf, else signs at
random, at the size of the leaf and at the size of every entry; and along entries of about the same slope alone, so that a
small one does not hide behind large ones. These are as rough as they are: they accuse, and leave nothing undecided.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from fdl.check.analytic import ComplexStep, complex_step
from fdl.check.compare import FORMULA, rms
from fdl.check.evaluate import Evaluation, Measured, Outcome, Point
from fdl.check.rounding import unit_roundoff
from fdl.check.subject import Differentiated, Result
from fdl.check.tangent import Tangent

STEP, DIFFERENCES, FORWARD = "complex step", "central differences", "forward mode"
_COORDINATES = 8  # leaves up to this size are tried entry by entry
_DIRECTIONS = 4
_BLOCKS = 32
_STEPS = 0.25 * 0.5 ** np.arange(14)
_MIDDLE = 9  # of the steps: 5e-4, small against most curvatures
_ENOUGH = 1e-6  # of the size of the derivative: an error estimate below it decides,
_SEEN = 1e-2  # of a leaf's own size: what differences have to see of it
_NOTHING = 1e-6  # of what cancels in an entry: it is zero up to rounding
_ROUGH = 1e-3  # and one above this accuses nobody
_MARGIN = 30.0  # times the estimated error
_FLOOR = 1e-12  # of the size of the derivative
_OTHERS = (1.37, 0.61)  # times the complex step: other digits, to see its rounding
_EQUAL = 3  # entries: of two equal ones the slopes on either side show all there is
_APART = 2.0**-10  # of their size, by which equal entries are moved apart,
_ORDERS = 16  # in so many ways at random,
_TINY = 2.0**-24  # and a step along v that changes no order
_ABOVE = 100.0  # times the rounding of phi: a Taylor remainder that is seen
_SLOW = 1.5  # between the order of the remainder of a wrong gradient, 1, and of a right one, 2


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence for one leaf."""

    directions: int
    kinks: int  # of them, at which the slope lies between those on either side
    wrong: int
    undecided: str  # why, or ""
    worst: float  # the largest difference over what is allowed
    got: float  # <v, dx> of the worst direction
    wanted: float
    method: str  # "complex step" or "central differences"
    order: float  # with which the Taylor remainder of the worst direction shrinks; nan where that is not seen
    decided: np.ndarray  # the entries in which a fault of 1 % would have been seen
    sees: np.ndarray  # the relative error of an entry that would have been seen

    @property
    def said(self) -> str:
        """What convicts, in words."""
        if self.wrong and self.order < _SLOW:
            return f"the Taylor remainder shrinks like h^{self.order:.2f}, a right gradient's like h^2"
        return ""


def no_evidence(shape: tuple[int, ...], reason: str) -> Evidence:
    """The evidence for a leaf on which nothing could be tried."""
    nothing = np.zeros(shape, bool)
    return Evidence(0, 0, 0, reason, 0.0, np.nan, np.nan, DIFFERENCES, np.nan, nothing, np.full(shape, np.inf))


@dataclasses.dataclass(frozen=True, eq=False)
class _Value:
    """The value alone, as a subject without gradients."""

    subject: Differentiated

    def __call__(self, active: list, fixed: Any, w: list) -> Result:
        return Result(self.subject.outputs(active, fixed)[0], [], [])


def evidence(
    candidate: Differentiated,
    measured: Measured,
    point: Point,
    values: int,
    rng: np.random.Generator,
    *,
    thorough: bool = True,
) -> list[Evidence]:
    """One row per differentiated leaf. `measured` is the candidate in float64, its first `values` arrays the outputs.

    thorough: along entries of about the same slope too, where nothing else looks at single entries.
    """
    outcome, scales = measured(point), measured.scale(point)
    run = Evaluation(_Value(candidate), measured.precision, quick=True)
    with np.errstate(all="ignore"):
        parts = zip(point.w, scales[:values], measured.precisions(point)[:values], strict=False)
        roundings = [np.abs(w * u * s) for w, s, u in parts]
        flow = float(np.sqrt(sum(np.sum(np.square(w * y)) for w, y in zip(point.w, outcome.arrays, strict=False))))
    step = complex_step(candidate, measured.precision, point, outcome.arrays, scales)
    tangent = Tangent(candidate, measured.precision, point, rng)
    rows = []
    for place, leaf in enumerate(point.active):
        dx, scale = outcome.arrays[values + place], scales[values + place]
        size, tried = _size(leaf, point.active), []
        rounding = measured.precisions(point)[values + place] * scale
        blocks = _blocks(leaf, size, dx, rng) if thorough else []
        for number, v in enumerate(directions := _directions(leaf, size, rng) + blocks):
            by_step = None if step is None else _try_step(step, place, v, dx, scale, rounding)
            if by_step is None or not by_step.settles:
                by_differences = _try(run, point, outcome.arrays, place, v, dx, rounding, roundings, flow)
                by_step = _of_all(by_step, by_differences, tangent, place, dx, scale, rounding)
            tried.append(dataclasses.replace(by_step, extra=number >= len(directions) - len(blocks)))
        rows.append(_row(tried, dx, scale))
    return rows


def _size(leaf: np.ndarray, others: list[np.ndarray]) -> float:
    return rms(leaf) or max(rms(x) for x in others) or 1.0


def _directions(leaf: np.ndarray, size: float, rng: np.random.Generator) -> list[np.ndarray]:
    moves = np.isfinite(leaf)  # an infinite entry, of a mask, is a constant
    x = np.where(moves, np.abs(leaf.astype(np.float64)), 0.0)
    if leaf.size <= _COORDINATES:
        unit = np.eye(leaf.size).reshape(leaf.size, *leaf.shape)[moves.ravel()]
        return [v * np.where(x > 0, x, size) for v in unit]
    signs = [moves * (rng.integers(0, 2, leaf.shape) * 2.0 - 1.0) for _ in range(_DIRECTIONS)]
    return [sign * (size if i % 2 else np.where(x > 0, x, size)) for i, sign in enumerate(signs)]


def _blocks(leaf: np.ndarray, size: float, dx: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Directions along entries of about the same slope, for a leaf that is not tried entry by entry."""
    moves = np.flatnonzero(np.isfinite(leaf) & np.isfinite(dx) & (dx != 0))
    if leaf.size <= _COORDINATES or moves.size <= _BLOCKS:
        return []
    order = moves[np.argsort(np.abs(dx.ravel()[moves]))]
    found = []
    for block in np.array_split(order, _BLOCKS):
        v = np.zeros(leaf.size)
        v[block] = (rng.integers(0, 2, block.size) * 2.0 - 1.0) * size
        found.append(v.reshape(leaf.shape))
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Tried:
    v: np.ndarray
    got: float
    wanted: float
    allowed: float
    natural: float
    converged: bool  # well enough to accuse
    method: str
    order: float = np.nan
    rough: bool = False  # no slope was found, for other reasons than rounding or the order of equal entries
    at_kink: bool = False  # a slope between those on either side: neither right nor wrong
    extra: bool = False  # accuses, and leaves nothing undecided

    @property
    def error(self) -> float:
        with np.errstate(all="ignore"):
            return float(np.abs(np.float64(self.got) - self.wanted))

    @property
    def ratio(self) -> float:
        """The difference over what is allowed; infinite where the gradient is not finite, nan where the evidence is not."""
        with np.errstate(all="ignore"):
            ratio = float(np.float64(self.error) / self.allowed) if self.error != 0 else 0.0
        return np.inf if np.isnan(ratio) and not np.isfinite(self.got) else ratio

    @property
    def settles(self) -> bool:
        """Whether it shows the gradient to be right."""
        return self.ratio <= 1 and self.allowed <= _ENOUGH * self.natural


def _along(v: np.ndarray, dx: np.ndarray) -> float:
    """<v, dx>; what is not finite in dx counts where v is not 0."""
    return float(np.sum(np.where(v != 0, v * dx, 0.0)))


def _norm(v: np.ndarray, x: np.ndarray) -> float:
    """The size of v x over what is finite in x."""
    return float(np.sqrt(np.sum(np.square(np.where((v != 0) & np.isfinite(x), v * x, 0.0)))))


def _try_step(
    step: ComplexStep, place: int, v: np.ndarray, dx: np.ndarray, scale: np.ndarray, rounding: np.ndarray
) -> _Tried | None:
    """By a complex step; None if it does not come out. Its size is the leaf's own, that of what cancels in it included."""
    with np.errstate(all="ignore"):
        wanted, got = step(place, v), _along(v, dx)
        if not np.isfinite(wanted):
            return None
        natural = max(_norm(v, dx), abs(wanted), _norm(v, scale))
        allowed = FORMULA * float(np.sqrt(np.sum(np.square(v * rounding)))) + _FLOOR * natural
        if not abs(got - wanted) <= allowed:  # it rounds as well, which other steps show
            noise = max(abs(step(place, v * other) / other - wanted) for other in _OTHERS)
            allowed += _MARGIN * noise
            natural = max(natural, noise / unit_roundoff(np.float64))
    return _Tried(v, got, wanted, allowed, natural, True, STEP)


def _of_all(
    by_step: _Tried | None,
    by_differences: _Tried,
    tangent: Tangent,
    place: int,
    dx: np.ndarray,
    scale: np.ndarray,
    rounding: np.ndarray,
) -> _Tried:
    """Who accuses, and who settles it.

    Central differences accuse where they converge, for complex functions may be less accurate than real ones; and they
    settle it if they would have seen what the complex step says. Else forward mode is asked.
    """
    told = by_differences.at_kink or (by_differences.converged and by_differences.ratio > 1)
    open_to_step = by_step is not None and not by_differences.allowed < by_step.error
    # a leaf whose own size is below what they see
    hidden = not by_differences.allowed <= _SEEN * _norm(by_differences.v, scale)
    if told or (by_differences.converged and by_differences.settles and not open_to_step and not hidden):
        return by_differences
    v = by_differences.v
    if not by_differences.rough and (found := tangent(place, v)) is not None:
        wanted, rounds = found
        natural = max(_norm(v, dx), abs(wanted), _norm(v, scale), rounds / (FORMULA * unit_roundoff(np.float64)))
        allowed = rounds + FORMULA * _norm(v, rounding) + _FLOOR * natural
        by_forward = _Tried(v, by_differences.got, wanted, allowed, natural, False, FORWARD, by_differences.order)
        if by_forward.settles and (by_step is None or abs(wanted - by_step.wanted) <= allowed + by_step.allowed):
            return by_forward
        if by_step is not None and by_step.ratio > 1 and abs(wanted - by_step.wanted) <= by_step.allowed + allowed:
            return dataclasses.replace(by_step, order=by_differences.order)
    if by_step is None:
        nothing = hidden and not _norm(v, scale)  # a gradient of 0, which they would not tell from the right one
        most = max(by_differences.allowed, by_differences.natural)
        return dataclasses.replace(by_differences, allowed=most) if nothing else by_differences
    clear = not by_differences.converged and by_step.error > _ENOUGH * max(by_step.natural, by_differences.natural)
    return dataclasses.replace(by_step, converged=clear, order=by_differences.order)


def _try(
    run: Callable[[Point], Outcome],
    point: Point,
    values: list[np.ndarray],
    place: int,
    v: np.ndarray,
    dx: np.ndarray,
    rounding: np.ndarray,
    roundings: list[np.ndarray],
    flow: float,
) -> _Tried:
    """By central differences. rounding: of the entries of dx; roundings: of those of <w, y>, by output."""

    def at(h: float) -> list[np.ndarray]:
        active = [x.astype(np.float64) for x in point.active]
        active[place] = active[place] + h * v
        return run(dataclasses.replace(point, active=active)).arrays

    def difference(above: list[np.ndarray], below: list[np.ndarray]) -> float:
        # differences of outputs first: <w, y> itself may cancel
        return sum(float(np.sum(w * (a - b))) for w, a, b in zip(point.w, above, below, strict=False))

    def slope_at(x: np.ndarray) -> float:
        """Along v, with the leaf at x: a step so small that it changes no order."""
        above, below = (
            run(
                dataclasses.replace(point, active=[*point.active[:place], x + h * v, *point.active[place + 1 :]])
            ).arrays
            for h in (_TINY, -_TINY)
        )
        return difference(above, below) / (2 * _TINY)

    with np.errstate(all="ignore"):
        slopes, rises, falls, widths = [], [], [], []
        noise = 0.0
        for h in _STEPS:
            above, below = at(h), at(-h)
            # what no step has moved is the same number, and its rounding cancels
            moved = [(a != y) | (b != y) for a, b, y in zip(above, below, values, strict=False)]
            parts = zip(moved, roundings, strict=False)
            noise = max(noise, float(np.sqrt(sum(np.sum(np.square(r[m])) for m, r in parts))))
            bends = [
                np.abs(w) * np.abs((a - y) - (y - b)) for w, a, y, b in zip(point.w, above, values, below, strict=False)
            ]
            widths.append(sum(float(np.sum(bend)) for bend in bends) / h)
            slopes.append(difference(above, below) / (2 * h))
            rises.append(difference(above, values))
            falls.append(difference(values, below))
        ladder = np.stack([_STEPS, np.asarray(slopes), noise / _STEPS])
        # of a seam between two smooth pieces that meet with one slope, the error is a series in h
        wanted, error = min((_of_ladder(ladder, power) for power in (2, 1)), key=lambda found: found[1])
        got = _along(v, dx)
        natural = max(_norm(v, dx), abs(wanted), 1e-3 * flow)
        sides = [_extrapolated(_STEPS, np.asarray(d) / _STEPS, noise / _STEPS, power=1) for d in (rises, falls)]
        if (jump := _jump(sides, float(widths[_MIDDLE]), natural)) is not None:
            low, high, slack = jump
            nearest = min(max(got, low), high)
            inside = abs(got - nearest) <= slack
            sure = inside or not _goes_by_order(slope_at, point.active[place], v, natural)
            return _Tried(v, got, nearest, slack, natural, sure, DIFFERENCES, at_kink=inside)
        converged = error <= max(_ROUGH * abs(wanted), _ENOUGH * 1e-3 * flow)
        rough = not converged
        order = _order(_STEPS, np.abs(np.asarray(rises) - _STEPS * got), noise)
        own = FORMULA * float(np.linalg.norm((v * rounding)[(v != 0) & np.isfinite(rounding)]))
        allowed = float(_MARGIN * error + own + _FLOOR * natural)
        if converged and not abs(got - wanted) <= allowed:
            converged = not _goes_by_order(slope_at, point.active[place], v, natural)
    return _Tried(v, got, wanted, allowed, natural, bool(converged), DIFFERENCES, order, rough)


def _goes_by_order(slope_at: Callable[[np.ndarray], float], values: np.ndarray, v: np.ndarray, natural: float) -> bool:
    """Whether entries that are equal are told apart by their order, as in a sort.

    Of three equal entries one goes to the middle output, whichever is moved up or down: no slope along v shows which. With
    the equal entries apart the slopes do, and differ from one order to another.
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    equal = np.isfinite(values) & (counts[inverse.reshape(values.shape)] >= _EQUAL)
    if not equal.any() or not (v[equal] != 0).any():
        return False
    rng, size = np.random.default_rng(0), np.where(values == 0, 1.0, np.abs(values.astype(np.float64)))
    aside = _APART * np.where(equal, size, 0.0)
    apart = [values + aside * rng.uniform(-1, 1, values.shape) for _ in range(_ORDERS)]
    slopes = [slope_at(x) for x in apart]
    return not max(slopes) - min(slopes) <= 10 * _ROUGH * natural


def _jump(sides: list[tuple[float, float]], width: float, natural: float) -> tuple[float, float, float] | None:
    """(lowest, highest slope, how well they are known) where the slopes on either side differ for certain.

    width: how far the slopes of the single outputs differ, added up. Kinks of several outputs may compensate each other.
    """
    (up, up_error), (down, down_error) = sides
    slack = _MARGIN * (up_error + down_error) + _FLOOR * natural
    if not abs(up - down) > max(slack, _ROUGH * natural):
        return None
    middle, half = (up + down) / 2, max(abs(up - down), width) / 2
    return middle - half, middle + half, slack


def _order(steps: np.ndarray, remainders: np.ndarray, noise: float) -> float:
    """With which power of the step the remainder shrinks, where it is seen above the noise; nan if at fewer than 3 steps."""
    seen = np.isfinite(remainders) & (remainders > _ABOVE * noise)
    seen &= np.cumprod(seen).astype(bool)  # down to the floor, and not what comes up again from it
    if seen.sum() < 3:
        return float("nan")
    x, y = np.log(steps[seen][-4:]), np.log(remainders[seen][-4:])
    return float(np.polyfit(x, y, 1)[0])


def _extrapolated(steps: np.ndarray, slopes: np.ndarray, noise: np.ndarray, power: int = 2) -> tuple[float, float]:
    """(best estimate, its error) from a ladder of differences whose error is a series in h^power."""
    best, best_error = float("nan"), float("inf")
    previous: list[float] = []
    for k, slope in enumerate(slopes):
        row = [float(slope)]
        for j in range(1, min(k, 6) + 1):
            row.append(row[j - 1] + (row[j - 1] - previous[j - 1]) / float((steps[k - j] / steps[k]) ** power - 1))
        for j in range(1, len(row)):
            error = max(abs(row[j] - row[j - 1]), abs(row[j] - previous[j - 1])) + float(noise[k])
            if error < best_error:  # false for nan
                best, best_error = row[j], error
        previous = row
    return best, best_error


def _of_ladder(ladder: np.ndarray, power: int) -> tuple[float, float]:
    """The best estimate, and its error: also how far the odd and the even rungs disagree."""
    wanted, error = _extrapolated(*ladder, power=power)
    ladders = [_extrapolated(*ladder[:, i::2], power=power)[0] for i in (0, 1)]
    return wanted, max(error, abs(ladders[0] - ladders[1])) if np.isfinite(ladders).all() else float("inf")


def _share(tried: _Tried) -> float:
    return tried.allowed / tried.natural if tried.natural > 0 else float("inf")


def _row(tried: list[_Tried], dx: np.ndarray, scale: np.ndarray) -> Evidence:
    ratios = [t.ratio for t in tried]
    wrong = [i for i, t in enumerate(tried) if ratios[i] > 1 and t.converged]
    weak = [
        t
        for i, t in enumerate(tried)
        if not (t.at_kink or t.extra) and (not t.allowed <= _ENOUGH * t.natural or (ratios[i] > 1 and not t.converged))
    ]
    known = [i for i, ratio in enumerate(ratios) if not np.isnan(ratio)]
    worst = max(wrong or known, key=lambda i: ratios[i], default=0)
    undecided = ""
    if not wrong and weak:
        undecided = (
            f"central differences are too rough here (good to {_share(weak[0]):.0e}, {_ENOUGH:.0e} needed)"
            if np.isfinite(weak[0].allowed)
            else "the value is not finite around the point"
        )
    with np.errstate(all="ignore"):
        typical = np.maximum(np.abs(dx), 1e-3 * rms(dx))
        # where the gradient is zero throughout: a fault is measured by the size it has by its units
        usable = [t for t in tried if not t.at_kink and not (t.ratio > 1 and not t.converged)]
        parts = [(t, np.abs(t.v) * typical if dx.any() else np.full(dx.shape, t.natural)) for t in usable]
        shares = [np.where((part == 0) & (t.allowed == 0), _FLOOR, t.allowed / part) for t, part in parts]
        sees = _least([np.where(t.v != 0, share, np.inf) for t, share in zip(usable, shares, strict=True)], dx)
        # zero up to rounding: what cancels in it is larger by far
        zero = _least([np.where(t.v != 0, t.allowed / np.abs(t.v * scale), np.inf) for t in usable], dx) <= _NOTHING
    return Evidence(
        directions=len(tried),
        kinks=sum(t.at_kink for t in tried),
        wrong=len(wrong),
        undecided=undecided,
        worst=float(ratios[worst]),
        got=tried[worst].got,
        wanted=tried[worst].wanted,
        method=tried[worst].method if wrong else max((t.method for t in tried), key=[t.method for t in tried].count),
        order=tried[worst].order,
        decided=(sees <= _SEEN) | zero,
        sees=sees,
    )


def _least(shares: list[np.ndarray], dx: np.ndarray) -> np.ndarray:
    """Entry by entry, over all directions; infinite where none says anything."""
    least = np.min([np.full(dx.shape, np.inf), *shares], axis=0)
    return np.where(np.isnan(least), np.inf, least)

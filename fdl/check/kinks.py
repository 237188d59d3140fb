"""Kinks: where the slope jumps, between which values, and whether what a candidate returned lies between them.

At a kink the derivative is no number but an interval of subgradients. It is measured: the arguments are moved a little, all
up, all down, the first entries most, the last most, and at random; the lowest and the highest gradient met on the way are the
ends. A jump is what stays when the arguments are moved 256 times less.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fdl.check.compare import FORMULA, Item
from fdl.check.evaluate import Measured, Outcome, Point
from fdl.check.report import Kink
from fdl.check.rounding import unit_roundoff

_STEPS_ASIDE = (2.0**-24, 2.0**-32)  # by which arguments are moved to see a kink
_EQUAL_ENTRIES = 64  # of an array
_WAYS_AT_RANDOM = 16  # in 16 random directions one entry goes to one side only once in 30,000 times
_ALIKE = 1e-3  # of a jump: two slopes closer than this are the same one
_CLEAR = 1e3  # times what rounding may do: a smaller jump is not spoken of
_MOST = 1000  # entries that a report lists


@dataclasses.dataclass(frozen=True, eq=False)
class Jump:
    """The lowest and the highest truth around a point, entry by entry; equal where there is no kink.

    single: only these two were met, so that the interval is known; else several kinks meet, and not all ways past them
    were tried.
    """

    low: np.ndarray
    high: np.ndarray
    single: np.ndarray

    @property
    def there(self) -> np.ndarray:
        with np.errstate(all="ignore"):
            return self.high > self.low

    def of(self, got: np.ndarray, wanted: np.ndarray, allowed: np.ndarray) -> "Jump":
        """The jump as far as it may explain `got`: nothing outside of an interval that is known."""
        with np.errstate(all="ignore"):
            outside = self.single & ~self.holds(got, allowed)
        return Jump(np.where(outside, wanted, self.low), np.where(outside, wanted, self.high), self.single)

    def holds(self, got: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Whether an entry lies in the interval."""
        return (got >= self.low - allowed) & (got <= self.high + allowed)


def summed(jumps: Sequence[Jump]) -> Jump:
    """The jump of a sum."""
    if len(jumps) == 1:
        return jumps[0]
    low, high = sum(jump.low for jump in jumps), sum(jump.high for jump in jumps)
    return Jump(np.asarray(low), np.asarray(high), np.zeros(np.shape(low), bool))


def jumps(truth: Measured, point: Point, rng: np.random.Generator) -> list[Jump]:
    """One for every array of the truth."""
    ways = _ways(point, rng)
    far, near = (_around(truth, point, step, ways) for step in _STEPS_ASIDE)
    found = []
    for t, wide, narrow in zip(truth(point).arrays, far, near, strict=True):
        with np.errstate(all="ignore"):
            low, high = (extreme.reduce([t, *narrow]) for extreme in (np.fmin, np.fmax))
            far_low, far_high = (extreme.reduce([t, *wide]) for extreme in (np.fmin, np.fmax))
            jump = high - low > (far_high - far_low) / 2
            close = _ALIKE * (high - low)
            single = np.all([(x - low <= close) | (high - x <= close) for x in narrow], axis=0)
        found.append(Jump(np.where(jump, low, t), np.where(jump, high, t), jump & single))
    return found


def _ways(point: Point, rng: np.random.Generator) -> list[list]:
    """How to move every entry: all up or all down, alike, most the first and most the last (of equal entries one then
    leads, by the usual conventions), and at random."""
    amounts = {
        "alike": lambda x: np.ones(x.shape),
        "first": lambda x: np.linspace(1.0, 0.5, x.size).reshape(x.shape),
        "last": lambda x: np.linspace(0.5, 1.0, x.size).reshape(x.shape),
    }
    ways = [[sign * amount(x) for x in point.active] for amount in amounts.values() for sign in (1.0, -1.0)]
    draw = lambda x: (rng.integers(0, 2, x.shape) * 2 - 1) * rng.uniform(0.5, 1.0, x.shape)
    ways += [[draw(x) for x in point.active] for _ in range(_WAYS_AT_RANDOM)]
    return ways + list(_each_of_equal_entries(point))


def _each_of_equal_entries(point: Point) -> Iterator[list]:
    """Every entry that has its equal in its array moved up alone: of many that tie, each is the largest once."""
    still = [np.zeros(x.shape) for x in point.active]
    for place, x in enumerate(point.active):
        _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
        tied = np.flatnonzero(counts[inverse.ravel()] > 1)
        for at in tied[:_EQUAL_ENTRIES]:
            alone = np.zeros(x.size)
            alone[at] = 1.0
            yield [alone.reshape(x.shape) if other == place else y for other, y in enumerate(still)]


def _around(truth: Measured, point: Point, step: float, ways: list[list]) -> list[list[np.ndarray]]:
    """Per array, the truth along every way when the entries of the arguments are moved by up to +-step of their size."""
    sizes = [_sizes(x) for x in point.active]
    met = []
    for way in ways:
        with np.errstate(all="ignore"):  # infinite arguments
            triples = zip(point.active, way, sizes, strict=True)
            moved = [x.astype(np.float64) + step * by * size for x, by, size in triples]
        met.append(truth.near(point, moved).arrays)
    return [list(arrays) for arrays in zip(*met, strict=True)]


def _sizes(x: np.ndarray) -> np.ndarray:
    """The size of every entry; a zero has that of the smallest entry that is none."""
    size = np.abs(x.astype(np.float64))
    return np.where(size > 0, size, np.min(size, initial=np.inf, where=size > 0) if size.any() else 1.0)


# ---- in words ----


def kinks_of(
    way: str,
    truth: Measured,
    candidate: Callable[[Point], Outcome],
    jumps_at: Callable[[Point], list[Jump]],
    point: Point,
    items: Sequence[Item],
) -> list[Kink]:
    """The entries of the gradients that are at a kink, and what the candidate returned there.

    Slopes are those of the sum of the outputs, a cotangent of ones: readable numbers. Where that hides a kink, and it shows
    under the cotangents of `point`, the numbers are those of the gradient there.
    """
    ones = dataclasses.replace(point, w=[np.ones(np.shape(w)) for w in point.w])
    found: dict[tuple[int, tuple[int, ...]], Kink] = {}
    for at, what in ((ones, "slope"), (point, "gradient")):
        got, scales = candidate(at), truth.scale(at)
        u = max(truth.precisions(at), default=0.0)
        for place, jump in enumerate(jumps_at(at)):
            if not items[place].is_derivative:
                continue
            x, returned = point.active[place - len(items)], got.arrays[place]
            allowed = FORMULA * max(u, unit_roundoff(got.dtypes[place])) * scales[place]
            with np.errstate(all="ignore"):
                clear = jump.high - jump.low > _CLEAR * allowed
            if returned.shape != clear.shape:
                continue
            held = jump.holds(returned, allowed)
            for index in np.argwhere(clear)[: _MOST - len(found)]:
                i = tuple(int(k) for k in index)
                numbers = (float(x[i]), float(jump.low[i]), float(jump.high[i]), float(returned[i]), bool(held[i]))
                found.setdefault((place, i), Kink(items[place].leaf, way, i, what, *numbers))
    return list(found.values())

"""Kinks: where the slope jumps, between which values, and whether what a candidate returned lies between them.

At a kink the derivative is no number but an interval of subgradients. It is measured: the arguments are moved a little, all
up, all down, the first entries most, the last most, and at random; the lowest and the highest gradient met on the way are the
ends. A jump is what stays when the arguments are moved 256 times less. That is done output by output, and the intervals are
added up: of (min(a, b), max(a, b)) at a = b each may send its cotangent to either side, though their sum is smooth.

Entries whose slopes jump together are also judged together. Every subgradient, and every mixture of them that some convention
makes output by output, lies in the smallest plane through the gradients around: the gradients of min(a, b) at a = b are (w, 0)
and (0, w), and whatever is returned has to add up to w. That is necessary, not sufficient, so that it accuses nobody of a
convention. The plane is that of every entry moved alone, up and down, and of moves at random; where more entries jump together
than can be moved one by one, nothing is said.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fdl.check.compare import FORMULA, Item
from fdl.check.evaluate import Measured, Outcome, Point
from fdl.check.report import Kink, path_of
from fdl.check.rounding import unit_roundoff

_STEPS_ASIDE = (2.0**-24, 2.0**-32)  # by which arguments are moved to see a kink,
_STEPS_IN_FLOAT32 = (2.0**-10, 2.0**-18)  # and where there is no float64
_EQUAL_ENTRIES = 64  # of an array
_WAYS_AT_RANDOM = 16  # in 16 random directions one entry goes to one side only once in 30,000 times
_ALIKE = 1e-3  # of a jump: two slopes closer than this are the same one
_CLEAR = 1e3  # times what rounding may do: a smaller jump is not spoken of
_MOST = 1000  # entries that a report lists
_TOGETHER = 128  # entries whose slopes jump together that are judged together
_GROUPS = 32  # of such entries
_MOVED_ALONE = 256  # entries, to see which jump together
_OFF_THE_PLANE = 1e-2  # of the jumps: what is further off is no subgradient
_TOLD = 6  # of them, in words
_FLAT = 1e-5  # of the largest: a smaller singular value is the curvature between two points, and no jump


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
    """One for every array of the truth. Several outputs may each take a slope by a convention of its own: their jumps add up,
    also where in the sum of the outputs one hides the other."""
    alone = _outputs_alone(point)
    if len(alone) < 2:
        return _jumps(truth, point, rng)
    values = len(truth(point).arrays) - len(point.active)  # they do not depend on the cotangent
    parts = [_jumps(truth, part, rng) for part in alone]
    return [*parts[0][:values], *(_of_all_outputs(of) for of in list(zip(*parts, strict=True))[values:])]


def _outputs_alone(point: Point) -> list[Point]:
    """The point with the cotangent of one output alone, for every output that has one."""
    return [
        dataclasses.replace(point, w=[w if at == output else np.zeros_like(w) for at, w in enumerate(point.w)])
        for output, kept in enumerate(point.w)
        if kept.any()
    ]


def _of_all_outputs(parts: Sequence[Jump]) -> Jump:
    """The jump of a sum of which every part takes its own side; known where that of every part that jumps is."""
    total = summed(parts)
    single = np.logical_and.reduce([part.single | ~part.there for part in parts]) & total.there
    return dataclasses.replace(total, single=single)


def _jumps(truth: Measured, point: Point, rng: np.random.Generator) -> list[Jump]:
    ways = _ways(point, rng)
    steps = _STEPS_ASIDE if truth.precision.wide else _STEPS_IN_FLOAT32
    far, near = (_around(truth, point, step, ways) for step in steps)
    arrays = truth(point).arrays
    values = len(arrays) - len(point.active)
    found = []
    for place, (t, wide, narrow) in enumerate(zip(arrays, far, near, strict=True)):
        with np.errstate(all="ignore"):
            low, high = (extreme.reduce([t, *narrow]) for extreme in (np.fmin, np.fmax))
            far_low, far_high = (extreme.reduce([t, *wide]) for extreme in (np.fmin, np.fmax))
            jump = high - low > (far_high - far_low) / 2
            close = _ALIKE * (high - low)
            # an entry that is not moved stays at its kink, and shows the reference's convention
            still = [
                (way[place - values] == 0) & (x == t) if place >= values else False
                for way, x in zip(ways, narrow, strict=True)
            ]
            met = [(x - low <= close) | (high - x <= close) | at for x, at in zip(narrow, still, strict=True)]
        found.append(Jump(np.where(jump, low, t), np.where(jump, high, t), jump & np.all(met, axis=0)))
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
    met = [truth.near(point, moved).arrays for moved in _moved(point, step, ways)]
    return [list(arrays) for arrays in zip(*met, strict=True)]


def moved_around(point: Point, wide: bool, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """The arguments, moved a little in every way."""
    return _moved(point, (_STEPS_ASIDE if wide else _STEPS_IN_FLOAT32)[-1], _ways(point, rng))


def _moved(point: Point, step: float, ways: list[list]) -> list[list[np.ndarray]]:
    sizes = [_sizes(x) for x in point.active]
    with np.errstate(all="ignore"):  # infinite arguments
        return [
            [x.astype(np.float64) + step * by * size for x, by, size in zip(point.active, way, sizes, strict=True)]
            for way in ways
        ]


def _sizes(x: np.ndarray) -> np.ndarray:
    """The size of every entry; a zero has that of the smallest entry that is none."""
    size = np.abs(x.astype(np.float64))
    return np.where(size > 0, size, np.min(size, initial=np.inf, where=size > 0) if size.any() else 1.0)


# ---- entries that jump together ----


@dataclasses.dataclass(frozen=True)
class Outside:
    """Gradient entries that no subgradient has together. `along`: how much of each; `wanted` is <along, g> for all of them.

    over: how far off, over what is allowed.
    """

    entries: tuple[tuple[int, tuple[int, ...]], ...]  # (which gradient, index)
    along: tuple[float, ...]
    got: float
    wanted: float
    over: float

    def told(self, leaves: Sequence[str]) -> str:
        """What is wrong, in words; `leaves` are the names of the gradients."""
        names = [path_of(leaves[place], index) for place, index in self.entries]
        terms = [f"{share:.3g} {name}".removeprefix("1 ") for share, name in zip(self.along, names, strict=True)]
        more = f" and {len(terms) - _TOLD} more" if len(terms) > _TOLD else ""
        return (
            f"no subgradient: along ({', '.join(terms[:_TOLD])}{more}) every slope around is {self.wanted:.6g}, "
            f"that of the gradient {self.got:.6g}"
        )


class Together:
    """The gradients around a point, entry by entry and together. `own`: the gradients at the point are the reference's."""

    def __init__(self, truth: Measured, point: Point, jumps: Sequence[Jump], rng: np.random.Generator, *, own: bool):
        self.truth, self.point, self.rng, self.own = truth, point, rng, own
        self.jumps = jumps[len(jumps) - len(point.active) :]
        self.sizes = _flat([_sizes(x) for x in point.active])
        self.moves = np.isfinite(_flat(point.active))
        self.low, self.high = _flat([jump.low for jump in self.jumps]), _flat([jump.high for jump in self.jumps])
        with np.errstate(all="ignore"):
            clear = self.high - self.low > _FLAT * np.maximum(np.abs(self.high), np.abs(self.low))
            self.there = clear & np.isfinite(self.high - self.low) & self.moves
        self._alone: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def outside(self, got: Sequence[np.ndarray], roundoff: float) -> Iterator[Outside]:
        """Where the gradients `got`, rounded so, are none that lie in the plane of those around."""
        returned = _flat(got)
        with np.errstate(all="ignore"):
            differs = np.abs(returned - self._gradient(0)) > _ALIKE * (self.high - self.low)
        suspects = self.there & np.isfinite(returned) & (differs | self.own)
        if not suspects.any():
            return
        for group in self._groups(suspects)[:_GROUPS]:
            if (found := self._off_the_plane(group, returned, roundoff)) is not None:
                yield found

    def _groups(self, suspects: np.ndarray) -> list[list[int]]:
        """The entries whose slopes jump when one of them is moved, as groups with a suspect in each."""
        order = np.argsort(~suspects, kind="stable")  # suspects first
        group_of = {int(i): {int(i)} for i in order[: min(_MOVED_ALONE, int(self.there.sum()))]}
        for entry in list(group_of):
            with np.errstate(all="ignore"):
                jumps = np.any(
                    [np.abs(x - self._gradient(0)) > _ALIKE * (self.high - self.low) for x in self._moved_alone(entry)],
                    0,
                )
            for other in np.flatnonzero(jumps & self.there):
                joined = group_of[entry] | group_of.get(int(other), {int(other)})
                group_of.update(dict.fromkeys(joined, joined))
        groups = {min(group): sorted(group) for group in group_of.values()}
        return [group for group in groups.values() if 1 < len(group) <= _TOGETHER and suspects[group].any()]

    def _off_the_plane(self, group: list[int], returned: np.ndarray, roundoff: float) -> Outside | None:
        around = [gradient for entry in group for gradient in self._moved_alone(entry)]
        only = np.isin(np.arange(self.there.size), group)
        around += [self._gradient(self._draw() * only) for _ in range(_WAYS_AT_RANDOM)]
        around += [self._gradient(self._draw()) for _ in range(_WAYS_AT_RANDOM)]
        if not self.own:
            around.append(self._gradient(0))  # a convention of the reference's is one for everybody
        jump = (self.high - self.low)[group]
        slopes = np.stack([gradient[group] for gradient in around]) / jump
        off = returned[group] / jump - slopes[0]
        if not np.isfinite(slopes).all():
            return None
        plane, earlier = _spanned(slopes), _spanned(slopes[: len(slopes) - _WAYS_AT_RANDOM])
        if len(plane) != len(earlier):  # still growing: not all of it was met
            return None
        size = float(np.linalg.norm(off))
        off = off - plane.T @ (plane @ off)
        distance = float(np.linalg.norm(off))
        allowed = max(_OFF_THE_PLANE, FORMULA * roundoff) * max(1.0, size)
        if distance <= allowed:
            return None
        along = off / jump
        along /= along[np.argmax(np.abs(along))]
        taken = [k for k in range(len(group)) if abs(off[k]) > 1e-6 * distance]
        entries = tuple(self._place(group[k]) for k in taken)
        numbers = (float(along @ returned[group]), float(along @ (slopes[0] * jump)), distance / allowed)
        return Outside(entries, tuple(float(along[k]) for k in taken), *numbers)

    def _moved_alone(self, entry: int) -> tuple[np.ndarray, np.ndarray]:
        """The gradients when one entry is moved up, and when it is moved down."""
        if entry not in self._alone:
            one = np.zeros(self.there.size)
            one[entry] = 1.0
            self._alone[entry] = self._gradient(one), self._gradient(-one)
        return self._alone[entry]

    def _draw(self) -> np.ndarray:
        size = self.there.size
        return (self.rng.integers(0, 2, size) * 2 - 1) * self.rng.uniform(0.5, 1.0, size)

    def _gradient(self, way: Any) -> np.ndarray:
        """All gradients in a row, where the entries are moved by `way` times the smaller step."""
        if isinstance(way, int):
            outcome = self.truth(self.point)
        else:
            x = _flat(self.point.active)
            with np.errstate(all="ignore"):
                moved = np.where(self.moves, x + _STEPS_ASIDE[-1] * way * self.sizes, x)
            ends = np.cumsum([x.size for x in self.point.active])[:-1]
            parts = zip(np.split(moved, ends), self.point.active, strict=True)
            outcome = self.truth.near(self.point, [part.reshape(x.shape) for part, x in parts])
        return _flat(outcome.arrays[len(outcome.arrays) - len(self.point.active) :])

    def _place(self, entry: int) -> tuple[int, tuple[int, ...]]:
        for place, x in enumerate(self.point.active):
            if entry < x.size:
                return place, tuple(int(i) for i in np.unravel_index(entry, x.shape))
            entry -= x.size
        raise IndexError(entry)


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(x).astype(np.float64).ravel() for x in arrays])


def _spanned(slopes: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span the differences of the rows."""
    _, values, rows = np.linalg.svd(slopes - slopes[0], full_matrices=False)
    return rows[values > _FLAT * max(1.0, float(values[0]))]


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

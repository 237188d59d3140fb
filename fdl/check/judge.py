"""Holding a candidate against the truth, at one point and in one mode."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fdl.check.compare import Item, Truth, natural_size, of_formula, of_rounding, without_kinks, wrong_entries
from fdl.check.evaluate import WIDE, Evaluation, Measured, Outcome, Point, Precision, brief
from fdl.check.ledger import Ledger, Where
from fdl.check.rounding import unit_roundoff, working_precision
from fdl.check.subject import Second, Subject

_U64 = unit_roundoff(np.float64)
_STEPS_ASIDE = (2.0**-24, 2.0**-32)  # by which arguments are moved to see a kink
_WAYS_AT_RANDOM = 16  # in 16 random directions one entry goes to one side only once in 30,000 times


class Standard:
    """What candidates are held against: the truth, and the plain version in the precision of the arguments."""

    def __init__(
        self,
        reference: Subject,
        first: Point,
        items: list[Item],
        others: tuple[str, ...],
        native: Precision,
        rng: np.random.Generator,
    ):
        self.reference, self.items, self.others, self.native, self.rng = reference, items, others, native, rng
        self.notes: list[str] = []
        self.truth = self._truth(first)
        self._plain = Evaluation(reference, native, quick=True)
        self._plain_outcomes: dict[int, Outcome] = {}
        self._precisions: dict[int, list[float]] = {}
        self._kinks: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def _truth(self, first: Point) -> Measured:
        """The reference in float64, or where it does not run there, in its own precision."""
        truth = Measured(self.reference, WIDE, self.rng)
        try:
            truth(first)
        except Exception as error:
            truth = Measured(self.reference, self.native, self.rng)
            truth(first)
            self.notes.append(
                f"the reference does not run in float64 ({brief(error)}): the truth is that of its own precision"
            )
        if truth.note:
            self.notes.append(f"rounding inside the reference was not seen, only that of its arguments ({truth.note})")
        return truth

    def plain(self, point: Point) -> Outcome:
        """The reference in the precision of the arguments."""
        if id(point) not in self._plain_outcomes:
            try:
                self._plain_outcomes[id(point)] = self._plain(point)
            except Exception:  # it cannot be compiled, or runs in float64 only
                self._plain_outcomes[id(point)] = self.truth(point)
        return self._plain_outcomes[id(point)]

    def precisions(self, subject: Subject, point: Point) -> list[float]:
        """The coarsest roundoff with which each array is computed when the arguments are as given."""
        if id(subject) not in self._precisions:
            with self.native.scope():
                try:
                    found = working_precision(
                        lambda *operands: subject(*operands)._replace(others=[]), *self.native.operands(point)
                    )
                except Exception:  # it cannot be traced
                    found = [0.0] * len(self.items)
            self._precisions[id(subject)] = found
        return self._precisions[id(subject)]

    def kinks(self, point: Point) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per array, the lowest and the highest truth around the point where they differ by a jump, else twice the truth.

        A jump is what stays when the arguments are moved 256 times less.
        """
        if id(point) not in self._kinks:
            ways = self._ways(point)
            far, near = (self._around(point, step, ways) for step in _STEPS_ASIDE)
            found = []
            for t, *bounds in zip(self.truth(point).arrays, *far, *near, strict=True):
                far_low, far_high, low, high = bounds
                with np.errstate(all="ignore"):
                    jump = high - low > (far_high - far_low) / 2
                found.append((np.where(jump, low, t), np.where(jump, high, t)))
            self._kinks[id(point)] = found
        return self._kinks[id(point)]

    def _ways(self, point: Point) -> list[list]:
        """How to move every entry: all up or all down, alike, most the first and most the last (of equal entries one then
        leads, by the usual conventions), and at random."""
        amounts = {
            "alike": lambda x: np.ones(x.shape),
            "first": lambda x: np.linspace(1.0, 0.5, x.size).reshape(x.shape),
            "last": lambda x: np.linspace(0.5, 1.0, x.size).reshape(x.shape),
        }
        ways = [[sign * amount(x) for x in point.active] for amount in amounts.values() for sign in (1.0, -1.0)]
        draw = lambda x: (self.rng.integers(0, 2, x.shape) * 2 - 1) * self.rng.uniform(0.5, 1.0, x.shape)
        return ways + [[draw(x) for x in point.active] for _ in range(_WAYS_AT_RANDOM)]

    def _around(self, point: Point, step: float, ways: list[list]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(lowest, highest) truth when every entry of the arguments is moved by up to +-step of its size."""
        low = high = self.truth(point).arrays
        sizes = [_sizes(x) for x in point.active]
        for way in ways:
            moved = [
                x.astype(np.float64) + step * by * size for x, by, size in zip(point.active, way, sizes, strict=True)
            ]
            arrays = self.truth.near(point, moved).arrays
            low = [np.fmin(*pair) for pair in zip(low, arrays, strict=True)]
            high = [np.fmax(*pair) for pair in zip(high, arrays, strict=True)]
        return low, high

    def natural(self, place: int, point: Point) -> float:
        """The size of an array by its units; the flow is <w, y>, what all that flows back adds up to."""
        outcome = self.truth(point)
        wanted, values = outcome.arrays[place], len(self.items) - len(point.active)
        if not self.items[place].is_derivative:
            return float(np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted)))
        with np.errstate(all="ignore"):
            pairs = zip(point.w, outcome.arrays[:values], strict=False)
            flows = [float(np.max(np.abs(w * y), initial=0.0)) * w.size**0.5 for w, y in pairs]
        return natural_size(wanted, point.active[place - values], point.active, max(flows, default=0.0))


def _sizes(x: np.ndarray) -> np.ndarray:
    """The size of every entry; a zero has that of the smallest entry that is none."""
    size = np.abs(x.astype(np.float64))
    return np.where(size > 0, size, np.min(size, initial=np.inf, where=size > 0) if size.any() else 1.0)


class Judge:
    """One candidate against the standard; what it finds goes into the ledger."""

    def __init__(self, standard: Standard, way: str, candidate: Subject, points: list[Point], ledger: Ledger):
        self.standard, self.way, self.candidate, self.ledger = standard, way, candidate, ledger
        self.notes: list[str] = []
        self.wide = self._in_float64(points)
        exact = self.wide is not None and max(self.wide.precisions(points[0]), default=0.0) <= _U64
        # in float64 nothing hides in rounding
        self.sharpest = WIDE if exact else standard.native

    def compare(self, mode: str, precision: Precision, point: Point, got: Outcome) -> None:
        """Compares every array of `got`, which ran in `precision`."""
        if precision.x64 and self.wide is not None:
            self._compare_formula(mode, point, got, self.wide)
        else:
            self._compare_rounding(mode, point, got)

    def compare_second(self, mode: str, point: Point) -> None:
        """Second derivatives, of the candidate and of the reference. `point.w` is (cotangents, v)."""
        truth = Measured(Second(self.standard.reference), self.sharpest, self.standard.rng)
        own = Measured(Second(self.candidate), self.sharpest, self.standard.rng)
        got, wanted = own(point), truth(point)
        gradients = [item for item in self.standard.items if item.is_derivative]
        for place, item in enumerate(gradients):
            dtype = "float64" if self.sharpest.wide else str(got.dtypes[place])
            allowance = self._formula_allowance(place, point, wanted, truth, own)
            where = Where(self.way, mode, dtype)
            self._settle(Item("second derivative", item.leaf), where, got.arrays[place], allowance, None, natural=0.0)

    def _in_float64(self, points: list[Point]) -> Measured | None:
        """Is the formula right? None if the candidate or the reference does not run in float64."""
        standard, name = self.standard, self.way or "the candidate"
        if standard.truth.precision is not WIDE:
            return None
        own = Measured(self.candidate, WIDE, standard.rng)
        try:
            found = own(points[0])
        except Exception as error:
            if not standard.native.x64:  # else the modes say so
                reason = f"{name} does not run in float64 ({brief(error)})"
                self.notes.append(f"{reason}: judged in the precision of its arguments alone")
            return None
        if len(found.arrays) != len(standard.items):
            return None
        if self.candidate is not standard.reference:
            for point in points:
                self._compare_formula("float64", point, own(point), own, narrow_too=standard.native.x64)
        narrow = [str(item) for item, u in zip(standard.items, own.precisions(points[0]), strict=True) if u > _U64]
        if narrow and not standard.native.x64:
            reason = (
                f"{name} computes {', '.join(narrow[:3])}{', ...' if len(narrow) > 3 else ''} in lower precision inside"
            )
            self.notes.append(f"{reason}: judged in the precision of its arguments alone")
        return own

    def _compare_formula(self, mode: str, point: Point, got: Outcome, own: Measured, narrow_too: bool = True) -> None:
        truth = self.standard.truth
        wanted = truth(point)
        for place in self._alike(mode, got, wanted):
            narrow = max(truth.precisions(point)[place], own.precisions(point)[place]) > _U64
            if narrow_too or not narrow:
                allowance = self._formula_allowance(place, point, wanted, truth, own)
                natural, where = self.standard.natural(place, point), Where(self.way, mode, "float64")
                kinks = lambda place=place: self.standard.kinks(point)[place]
                self._settle(self.standard.items[place], where, got.arrays[place], allowance, kinks, natural)
        self._compare_others(mode, got, wanted)

    def _formula_allowance(
        self, place: int, point: Point, wanted: Outcome, truth: Measured, own: Measured
    ) -> Callable[[bool], Truth]:
        u = max(truth.precisions(point)[place], own.precisions(point)[place])

        def allowance(thorough: bool) -> Truth:
            scale, own_scale = (measured.scale(point, thorough=thorough)[place] for measured in (truth, own))
            return of_formula(wanted.arrays[place], scale, own_scale, u)

        return allowance

    def _compare_rounding(self, mode: str, point: Point, got: Outcome) -> None:
        standard = self.standard
        wanted, plain = standard.truth(point), standard.plain(point)
        known = [standard.precisions(subject, point) for subject in (standard.reference, self.candidate)]
        us = [max(unit_roundoff(dtype), *pair) for dtype, *pair in zip(got.dtypes, *known, strict=True)]
        for place in self._alike(mode, got, wanted):
            allowance = self._rounding_allowance(place, point, us, wanted, plain, got.dtypes[place])
            natural, where = standard.natural(place, point), Where(self.way, mode, str(got.dtypes[place]))
            kinks = lambda place=place: standard.kinks(point)[place]
            self._settle(standard.items[place], where, got.arrays[place], allowance, kinks, natural)
        self._compare_others(mode, got, plain)

    def _rounding_allowance(
        self, place: int, point: Point, us: list[float], wanted: Outcome, plain: Outcome, dtype: Any
    ) -> Callable[[bool], Truth]:
        own = self.wide if self.wide is not None and self.wide.precisions(point)[place] <= _U64 else None

        def allowance(thorough: bool) -> Truth:
            scale = self.standard.truth.scale(point, max(us), thorough=thorough)[place]
            own_scale = own.scale(point, max(us), thorough=thorough)[place] if own is not None else None
            return of_rounding(wanted.arrays[place], scale, own_scale, us[place], plain.arrays[place], dtype)

        return allowance

    def _settle(
        self,
        item: Item,
        where: Where,
        got: np.ndarray,
        allowance: Callable[[bool], Truth],
        kinks: Callable[[], tuple[np.ndarray, np.ndarray]] | None,
        natural: float,
    ) -> None:
        """Enters the comparison. A candidate is accused only of what neither many draws of the rounding nor a kink explain."""
        truth = allowance(False)
        if wrong_entries(got, truth).any():
            truth = allowance(True)
        if kinks is not None and self.standard.truth.precision.wide and wrong_entries(got, truth).any():
            truth = without_kinks(got, truth, *kinks())
        self.ledger.add(item, where, got, truth, natural)

    def _alike(self, mode: str, got: Outcome, wanted: Outcome) -> list[int]:
        """The arrays whose shape is as it should be; the others are failures."""
        if len(got.arrays) != len(wanted.arrays):
            message = f"returned {len(got.arrays)} floating arrays, wanted {len(wanted.arrays)}"
            self.ledger.error(self.way, mode, message)
            return []
        alike = []
        for place, (x, y) in enumerate(zip(got.arrays, wanted.arrays, strict=True)):
            if x.shape == y.shape:
                alike.append(place)
            else:
                item = self.standard.items[place]
                message = f"returned the {item} with shape {list(x.shape)}, wanted {list(y.shape)}"
                self.ledger.error(self.way, mode, message, item.leaf)
        return alike

    def _compare_others(self, mode: str, got: Outcome, wanted: Outcome) -> None:
        for output, x, y in zip(self.standard.others, got.others, wanted.others, strict=False):
            if not np.array_equal(x, y):
                self.ledger.error(self.way, mode, f"returned another {output} than the reference", output)

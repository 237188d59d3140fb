"""Holding a candidate against the truth, at one point and in one mode."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fdl.check.adjoint import Pairings, parts_of, probability
from fdl.check.aggregate import common_error
from fdl.check.compare import (
    FORMULA,
    Item,
    Truth,
    largest,
    natural_size,
    of_formula,
    of_rounding,
    rms,
    without_kinks,
    wrong_entries,
)
from fdl.check.conventions import Conventions, explained
from fdl.check.draws import Traces, draws_by_precision
from fdl.check.evaluate import WIDE, Evaluation, Measured, Outcome, Point, Precision, brief
from fdl.check.kinks import Jump, Together, jumps, summed
from fdl.check.ledger import Ledger, Where
from fdl.check.report import ExactTest, Failure, path_of
from fdl.check.rounding import unit_roundoff, working_precision
from fdl.check.subject import Differentiated, Subject
from fdl.check.transformed import Second
from fdl.check.widened import widened

_U64 = unit_roundoff(np.float64)
_FACTORS = (("2^40", 2.0**40), ("2^-40", 2.0**-40), ("-1", -1.0))  # by which a cotangent is scaled
_LINEAR = 1e-9  # of the largest entry


class Standard:
    """What candidates are held against: the truth, and the plain version in the precision of the arguments."""

    def __init__(
        self,
        reference: Differentiated,
        traces: Traces,
        items: list[Item],
        others: tuple[str, ...],
        native: Precision,
        rng: np.random.Generator,
        widen: bool = False,
        is_primal: bool = False,
    ):
        """is_primal: the reference is the candidate's own computation.

        widen: the truth is the reference in float64 throughout, where it computes in fewer digits inside."""
        self.reference, self.items, self.others, self.native, self.rng = reference, items, others, native, rng
        self.notes: list[str] = []
        self.is_primal = is_primal
        first = traces.point
        self.truth = self._truth(first)
        if widen:
            self._widen(first)
        self._plain = Evaluation(reference, native, quick=True)
        self._plain_outcomes: dict[int, tuple[Point, Outcome]] = {}
        self._precisions: dict[tuple, list[float]] = {}
        self._kinks: dict[tuple[int, int], tuple[Point, list[Jump]]] = {}
        self._conventions: dict[tuple[int, int], tuple[Point, Conventions]] = {}
        self._seconds: dict[Precision, Measured] = {}
        self._pairings: Pairings | None = None
        # the truth for what runs in the precision of the arguments
        self.near_truth = self.truth
        if self.truth.precision.wide and not native.x64 and draws_by_precision(reference, native, traces):
            self.near_truth = Measured(reference, native, rng)
            self.notes.append(
                "other random numbers are drawn in float64: what runs in the precision of the arguments is held against the reference "
                "in the same precision"
            )

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

    def _widen(self, first: Point) -> None:
        narrow = self.truth
        if narrow.precision is not WIDE or max(narrow.precisions(first), default=0.0) <= _U64:
            return
        try:
            wide = Measured(widened(self.reference), WIDE, self.rng)
            same = [x.shape for x in wide(first).arrays] == [x.shape for x in narrow(first).arrays]
        except Exception:  # a kernel, a solver with rules of its own
            return
        if same:
            self.truth = wide

    @property
    def is_widened(self) -> bool:
        return self.truth.subject is not self.reference

    def plain(self, point: Point) -> Outcome:
        """The reference in the precision of the arguments."""
        try:
            return self.plain_or_raise(point)
        except Exception:  # it cannot be compiled, or runs in float64 only
            self._plain_outcomes[id(point)] = (point, self.truth(point))
            return self.truth(point)

    def plain_or_raise(self, point: Point) -> Outcome:
        if id(point) not in self._plain_outcomes:
            self._plain_outcomes[id(point)] = (point, self._plain(point))
        return self._plain_outcomes[id(point)][1]

    def precisions(self, subject: Subject, point: Point) -> list[float]:
        """The coarsest roundoff with which each array is computed when the arguments are as given."""
        known = (id(subject), *(x.dtype for x in point.active))
        if known not in self._precisions:
            with self.native.scope():
                try:
                    found = working_precision(
                        lambda *operands: subject(*operands)._replace(others=[]), *self.native.operands(point)
                    )
                except Exception:  # it cannot be traced
                    found = [0.0] * len(self.items)
            self._precisions[known] = found
        return self._precisions[known]

    def kinks(self, point: Point, *, near: bool = False) -> list[Jump]:
        """Per array, where the truth jumps around the point. near: that for the precision of the arguments."""
        truth = self.near_truth if near else self.truth
        if (id(point), id(truth)) not in self._kinks:
            self._kinks[id(point), id(truth)] = (point, jumps(truth, point, self.rng))
        return self._kinks[id(point), id(truth)][1]

    def conventions(self, point: Point, *, near: bool = False) -> Conventions:
        """What entries may be at a kink of several outputs."""
        truth = self.near_truth if near else self.truth
        if (id(point), id(truth)) not in self._conventions:
            self._conventions[id(point), id(truth)] = (point, Conventions(truth, point, self.rng))
        return self._conventions[id(point), id(truth)][1]

    def pairings(self, point: Point) -> Pairings:
        """The reference in forward mode, along directions in every leaf."""
        if self._pairings is None:
            self._pairings = Pairings(self.reference, self.truth, point, self.rng)
            if self._pairings.note:
                self.notes.append(f"no adjoint test: the reference has no forward mode ({self._pairings.note})")
        return self._pairings

    def second(self, point: Point, sharpest: Precision) -> Measured:
        """The second derivatives of the reference; raises what it raises."""
        if sharpest not in self._seconds:
            self._seconds[sharpest] = Measured(Second(self.reference), sharpest, self.rng)
        self._seconds[sharpest](point)
        return self._seconds[sharpest]

    def natural(self, place: int, point: Point) -> float:
        """The size of an array by its units; the flow is <w, y>, what all that flows back adds up to."""
        outcome = self.truth(point)
        wanted, values = outcome.arrays[place], len(self.items) - len(point.active)
        if not self.items[place].is_derivative:
            return largest(wanted)
        with np.errstate(all="ignore"):
            pairs = zip(point.w, outcome.arrays[:values], strict=False)
            flows = [float(np.max(np.abs(w * y), initial=0.0)) * w.size**0.5 for w, y in pairs]
        return natural_size(wanted, point.active[place - values], point.active, max(flows, default=0.0))

    def natural_second(self, place: int, point: Point) -> float:
        """The size of a second derivative along v by its units: that of the gradient, times the size of v over that of x."""
        w, v = point.w
        shares = [rms(along) / (rms(x) or 1.0) for along, x in zip(v, point.active, strict=True)]
        values = len(self.items) - len(point.active)
        return self.natural(values + place, dataclasses.replace(point, w=w)) * max(shares)


@dataclasses.dataclass(frozen=True, eq=False)
class _At:
    """Which of the results is compared, at the sum of which points; near: in the precision of the arguments."""

    place: int
    points: list[Point]
    near: bool = False


class Judge:
    """One candidate against the standard; what it finds goes into the ledger."""

    def __init__(self, standard: Standard, way: str, candidate: Subject, points: list[Point], ledger: Ledger):
        self.standard, self.way, self.candidate, self.ledger = standard, way, candidate, ledger
        self.notes: list[str] = []
        self.wide = self._in_float64(points)
        exact = self.wide is not None and max(self.wide.precisions(points[0]), default=0.0) <= _U64
        # in float64 nothing hides in rounding
        self.sharpest = WIDE if exact else standard.native

    def compare(
        self,
        mode: str,
        precision: Precision,
        point: Point | Sequence[Point],
        got: Outcome,
        places: Sequence[int] | None = None,
    ) -> None:
        """Compares the arrays of `got`, which ran in `precision`. Several points: the truth is the sum over them.

        places: which of the results they are; without it, all of them.
        """
        points = [point] if isinstance(point, Point) else list(point)
        # where one argument is float32 beside float64 ones, its gradient is rounded to float32
        exact = precision.wide or (precision.x64 and all(x.dtype == np.float64 for x in points[0].active))
        if exact and self.wide is not None and not self.standard.is_widened:
            self._compare_formula(mode, points, got, self.wide, places)
        else:
            self.compare_rounding(mode, points, got, places)

    def compare_second(self, mode: str, point: Point, transformation: Callable[[Subject], Subject]) -> None:
        """Second derivatives, of the candidate and of the reference. `point.w` is (cotangents, v)."""
        truth = self.standard.second(point, self.sharpest)
        own = Measured(transformation(self.candidate), self.sharpest, self.standard.rng)
        got = own(point)
        gradients = [item for item in self.standard.items if item.is_derivative]
        for place, item in enumerate(gradients):
            dtype = "float64" if self.sharpest.wide else str(got.dtypes[place])
            allowance = self._formula_allowance(place, [point], truth, own)
            where = Where(self.way, mode, dtype)
            natural = self.standard.natural_second(place, point)
            self._settle(Item("second derivative", item.leaf), where, got.arrays[place], allowance, None, natural)

    def compare_together(self, point: Point, *, own: bool = False) -> None:
        """At kinks: whether the gradient entries that jump together are a subgradient together, over all arguments.

        own: the candidate is its own reference, and its gradient at the point is held against those around.
        """
        standard = self.standard
        if not standard.truth.precision.wide or max(standard.truth.precisions(point), default=0.0) > _U64:
            return
        precise = self.wide is not None and max(self.wide.precisions(point), default=0.0) <= _U64
        run = (
            self.wide if precise and self.wide is not None else Evaluation(self.candidate, standard.native, quick=True)
        )
        values, got = len(standard.items) - len(point.active), run(point)
        if len(got.arrays) != len(standard.items):
            return
        u = _U64 if precise else max(unit_roundoff(dtype) for dtype in got.dtypes)
        together = Together(standard.truth, point, standard.kinks(point), standard.rng, own=own)
        mode, dtypes = ("float64" if precise else "jit"), [str(dtype) for dtype in got.dtypes]
        for found in together.outside(got.arrays[values:], u):
            said = found.told([item.leaf for item in standard.items[values:]])
            for place in dict.fromkeys(place for place, _ in found.entries):
                indices = [index for at, index in found.entries if at == place]
                item, x = standard.items[values + place], got.arrays[values + place]
                failure = Failure(
                    quantity=item.kind,
                    leaf=item.leaf,
                    way=self.way,
                    mode=mode,
                    dtype="float64" if precise else dtypes[values + place],
                    message=said,
                    index=indices[0],
                    got=float(x[indices[0]]),
                    wanted=float(standard.truth(point).arrays[values + place][indices[0]]),
                    error_over_allowed=found.over,
                    wrong=len(indices),
                    entries=x.size,
                )
                self.ledger.accuse(item, failure)

    @property
    def is_own_reference(self) -> bool:
        return self.candidate is self.standard.reference

    def _in_float64(self, points: list[Point]) -> Measured | None:
        """Is the formula right? None if the candidate or the reference does not run in float64."""
        standard, name = self.standard, self.way or "the candidate"
        if standard.truth.precision is not WIDE:
            return None
        own = (
            standard.truth if self.candidate is standard.truth.subject else Measured(self.candidate, WIDE, standard.rng)
        )
        try:
            found = own(points[0])
        except Exception as error:
            if not standard.native.x64:  # else the modes say so
                reason = f"{name} does not run in float64 ({brief(error)})"
                self.notes.append(f"{reason}: judged in the precision of its arguments alone")
            return None
        if len(found.arrays) != len(standard.items):
            return None
        if not self.is_own_reference:
            for point in points:
                self._compare_formula("float64", [point], own(point), own, narrow_too=standard.native.x64)
            if max(own.precisions(points[0]), default=0.0) <= _U64:
                self._exact_tests(own, points[0])
        elif max(own.precisions(points[0]), default=0.0) <= _U64:
            self._require_linear(own, points[0], len(standard.items) - len(points[0].active), failed=False)
        narrow = [str(item) for item, u in zip(standard.items, own.precisions(points[0]), strict=True) if u > _U64]
        if narrow and not standard.native.x64:
            reason = (
                f"{name} computes {', '.join(narrow[:3])}{', ...' if len(narrow) > 3 else ''} in lower precision inside"
            )
            held = (
                "held against the same in float64"
                if standard.is_widened
                else "judged in the precision of its arguments alone"
            )
            self.notes.append(f"{reason}: {held}")
        return own

    # ---- exact tests ----

    def _exact_tests(self, own: Measured, point: Point) -> None:
        values = len(self.standard.items) - len(point.active)
        # what is wrong entry by entry is said so already
        failed = {failure.leaf for failure in self.ledger.failures}
        gradients = [self._as_at_kinks(own, point, place) for place in range(values, len(self.standard.items))]
        if not self.standard.is_primal:  # steps are taken instead, which know nothing of JAX's rules
            self._require_adjoint(point, values, gradients, failed)
        self._require_linear(own, point, values, bool(failed))
        self._require_independence(own, point, values)

    def _as_at_kinks(self, own: Measured, point: Point, place: int) -> tuple[np.ndarray, np.ndarray]:
        """(a gradient, what is allowed in it); the reference's where the candidate took another slope at a kink."""
        got, allowance = own(point).arrays[place], self._formula_allowance(place, [point], self.standard.truth, own)
        settled, _ = self._settled(got, allowance, _At(place, [point]))
        return np.where(settled.comparable, got, settled.wanted), settled.allowed

    def _require_adjoint(
        self, point: Point, values: int, gradients: list[tuple[np.ndarray, np.ndarray]], failed: set[str]
    ) -> None:
        standard, pairings = self.standard, self.standard.pairings(point)
        for place, (gradient, allowed) in enumerate(gradients):
            item, along = standard.items[values + place], pairings.of(place)
            if not along or not np.isfinite(allowed).all():
                continue
            errors = [pairing.error(gradient, allowed) for pairing in along]
            off = [(e, most, p) for (e, most), p in zip(errors, along, strict=True) if not e <= most]
            worst = max(e / most if most > 0 else math.inf if e else 0.0 for e, most in errors)
            seen = probability(
                along, standard.truth(point).arrays[values + place], standard.natural(values + place, point), allowed
            )
            self.ledger.exact_tests.append(ExactTest("adjoint", item.leaf, self.way, len(along), len(off), worst, seen))
            if off and item.leaf not in failed:
                wanted = off[0][2].wanted
                message = f"is not adjoint to forward mode in {item.leaf}: <J v, w> is {wanted:.9g}, <v, J^T w> {off[0][0]:.3g} off"
                self.ledger.error(self.way, "float64", message, item.leaf)

    def _require_linear(self, own: Measured, point: Point, values: int, failed: bool) -> None:
        """A gradient is linear in the cotangent: powers of two, -1 and sums carry over, up to the order of sums."""
        plain, said = own(point).arrays[values:], failed
        off = [0] * len(plain)
        with_ = lambda w: dataclasses.replace(point, w=w)
        other = with_([self.standard.rng.standard_normal(w.shape) * rms(w) for w in point.w])
        of_other = own(other).arrays[values:]
        trials = [(f"{told} times the cotangent", with_([w * k for w in point.w]), k, 0.0) for told, k in _FACTORS]
        both = with_([w + o for w, o in zip(point.w, other.w, strict=True)])
        trials.append(("the sum of two cotangents", both, 1.0, 1.0))
        for told, tried, k, more in trials:
            for place, (x, o, y) in enumerate(zip(plain, of_other, own(tried).arrays[values:], strict=True)):
                with np.errstate(all="ignore"):
                    wanted = k * x + more * o
                    size = abs(k) * largest(x) + more * largest(o)
                    wrong = (np.abs(y - wanted) > _LINEAR * size) & np.isfinite(x) & np.isfinite(wanted)
                    if wrong.any():  # a gradient that cancels to nothing is rounding, which does not add up
                        parts = ((1.0, tried), (abs(k), point), (more, other))
                        scale = sum(share * own.scale(at)[values + place] for share, at in parts if share)
                        wrong &= np.abs(y - wanted) > FORMULA * _U64 * scale
                off[place] += bool(wrong.any())
                if wrong.any() and not said:
                    said, leaf = True, self.standard.items[values + place].leaf
                    index = tuple(int(i) for i in np.argwhere(wrong)[0])
                    message = (
                        f"is not linear in the cotangent: for {told} the gradient of "
                        f"{path_of(leaf, index)} is {y[index]:.6g}, wanted {wanted[index]:.6g}"
                    )
                    self.ledger.error(self.way, "float64", message, leaf)
        for item, count in zip(self.standard.items[values:], off, strict=True):
            # a factor, or a term left out, is as linear as what is right
            self.ledger.exact_tests.append(
                ExactTest("linearity", item.leaf, self.way, len(trials), count, math.inf if count else 0.0, 0.0)
            )

    def _require_independence(self, own: Measured, point: Point, values: int) -> None:
        """Where only a part of the outputs has a cotangent, what has no influence on it has the gradient 0."""
        standard, truth = self.standard, self.standard.truth
        parts = parts_of(point, standard.rng)
        for place in range(values, len(standard.items)):
            leaf, whole = standard.items[place].leaf, truth(point).arrays[place]
            failed, zeros = 0, [whole == 0]
            for output, index, part in parts:
                none = truth(part).arrays[place] == 0
                zeros.append(none)
                wrong = none & self._depends(own, part, place)
                failed += bool(wrong.any())
                if wrong.any() and failed == 1:
                    at = tuple(int(i) for i in np.argwhere(wrong)[0])
                    entry, name = (
                        path_of(leaf, at),
                        path_of(standard.items[output].leaf, () if index is None else (index,)),
                    )
                    said = f"depends on the cotangent of {name}, on which {entry} has no influence"
                    self.ledger.depends(self.way, leaf, said)
            without = int(zeros[0].sum())
            note = (
                f"{without} of {whole.size} entries of {leaf} have no influence on any output here" if without else ""
            )
            seen = float(np.mean(np.any(zeros, axis=0))) if whole.size else 0.0
            self.ledger.exact_tests.append(
                ExactTest("independence", leaf, self.way, len(parts), failed, math.inf if failed else 0.0, seen, note)
            )

    def _depends(self, own: Measured, point: Point, place: int) -> np.ndarray:
        """The entries that are not 0 where the reference's are, for no reason of rounding or of a kink."""
        got = own(point).arrays[place]
        if not (got != 0).any():
            return np.zeros(got.shape, bool)
        allowance = self._formula_allowance(place, [point], self.standard.truth, own)
        settled, _ = self._settled(got, allowance, _At(place, [point]))
        return wrong_entries(got, settled)

    def _compare_formula(
        self,
        mode: str,
        points: list[Point],
        got: Outcome,
        own: Measured,
        places: Sequence[int] | None = None,
        narrow_too: bool = True,
    ) -> None:
        truth = self.standard.truth
        for at, place in self._alike(mode, got, truth(points[0]), places):
            narrow = max(truth.precisions(points[0])[place], own.precisions(points[0])[place]) > _U64
            if narrow_too or not narrow:
                allowance = self._formula_allowance(place, points, truth, own)
                self._settle_at(place, points, Where(self.way, mode, "float64"), got.arrays[at], allowance)
        self._compare_others(mode, got, truth(points[0]))

    def _formula_allowance(
        self, place: int, points: list[Point], truth: Measured, own: Measured
    ) -> Callable[[bool], Truth]:
        u = max(measured.precisions(points[0])[place] for measured in (truth, own))

        def allowance(thorough: bool) -> Truth:
            scale = _sum(truth.scale(point, thorough=thorough)[place] for point in points)
            own_scale = _sum(_own_scale(own, point, place, thorough) for point in points)
            return of_formula(_sum(truth(point).arrays[place] for point in points), scale, own_scale, u)

        return allowance

    def compare_rounding(
        self, mode: str, points: list[Point], got: Outcome, places: Sequence[int] | None = None
    ) -> None:
        """Compares arrays that were computed in the precision of the points' arguments."""
        standard = self.standard
        # not the candidate's own: a cast to fewer digits on the way does not excuse what the plain version does without it
        known = standard.precisions(standard.reference, points[0])
        alike = self._alike(mode, got, standard.truth(points[0]), places)
        us = [max(unit_roundoff(got.dtypes[at]), known[place]) for at, place in alike]
        for (at, place), u in zip(alike, us, strict=True):
            allowance = self._rounding_allowance(place, points, (u, max(us)), got.dtypes[at])
            where = Where(self.way, mode, str(got.dtypes[at]))
            self._settle_at(place, points, where, got.arrays[at], allowance, near=True)
        self._compare_others(mode, got, standard.plain(points[0]))

    def _rounding_allowance(
        self, place: int, points: list[Point], roundoff: tuple[float, float], dtype: Any
    ) -> Callable[[bool], Truth]:
        """roundoff: that of the array, and of the coarsest of all."""
        (u, coarsest), truth, wide = roundoff, self.standard.near_truth, self.wide
        if truth is not self.standard.truth:
            wide = None  # what it draws in float64 is nothing to go by
        own = wide if wide is not None and wide.precisions(points[0])[place] <= _U64 else None

        def scale_of(measured: Measured, thorough: bool) -> np.ndarray:
            return _sum(measured.scale(point, coarsest, thorough=thorough)[place] for point in points)

        def allowance(thorough: bool) -> Truth:
            scale = scale_of(truth, thorough)
            own_scale = scale_of(own, thorough) if own is not None else None
            wanted = _sum(truth(point).arrays[place] for point in points)
            plain = _sum(self.standard.plain(point).arrays[place] for point in points)
            return of_rounding(wanted, scale, own_scale, u, plain, dtype, self.standard.items[place].is_derivative)

        return allowance

    def _settle_at(
        self,
        place: int,
        points: list[Point],
        where: Where,
        got: np.ndarray,
        allowance: Callable[[bool], Truth],
        *,
        near: bool = False,
    ) -> None:
        natural = max(self.standard.natural(place, point) for point in points)
        self._settle(self.standard.items[place], where, got, allowance, _At(place, points, near), natural)

    def _settle(
        self,
        item: Item,
        where: Where,
        got: np.ndarray,
        allowance: Callable[[bool], Truth],
        at: "_At | None",
        natural: float,
    ) -> None:
        """Enters the comparison. A candidate is accused only of what neither many draws of the rounding nor a kink explain."""
        truth, jump = self._settled(got, allowance, at)
        self.ledger.add(item, where, got, truth, natural, jump)
        if where.dtype != "float64" and not wrong_entries(got, truth).any() and common_error(got, truth) is not None:
            self._accuse_together(item, where, got, allowance(True))

    def _accuse_together(self, item: Item, where: Where, got: np.ndarray, truth: Truth) -> None:
        """Of an error that all entries have in common, and rounding hides in each of them."""
        if (found := common_error(got, truth)) is not None:
            place, numbers = where.way, (found.got, found.wanted, found.over, found.entries, got.size)
            self.ledger.accuse(
                item, Failure(item.kind, item.leaf, place, where.mode, where.dtype, found.said, found.index, *numbers)
            )

    def _settled(
        self, got: np.ndarray, allowance: Callable[[bool], Truth], at: "_At | None"
    ) -> tuple[Truth, Jump | None]:
        """The truth after everything that explains `got` was tried, and the jump if there was need to look for one."""
        truth, jump = allowance(False), None
        if wrong_entries(got, truth).any():
            truth = allowance(True)
        if at is not None and self.standard.truth.precision.wide and wrong_entries(got, truth).any():
            standard, values = self.standard, len(self.standard.items) - len(at.points[0].active)
            jump = summed([standard.kinks(point, near=at.near)[at.place] for point in at.points])
            known = jump.of(got, truth.wanted, truth.allowed)
            truth = without_kinks(got, truth, known.low, known.high)
            wrong = wrong_entries(got, truth)
            if at.place >= values and (wrong & jump.there).any():
                conventions = [standard.conventions(point, near=at.near) for point in at.points]
                truth = explained(got, truth, jump, wrong, conventions, at.place - values)
        return truth, jump

    def _alike(self, mode: str, got: Outcome, wanted: Outcome, places: Sequence[int] | None) -> list[tuple[int, int]]:
        """(which array, which result) where the shape is as it should be; the others are failures."""
        places = range(len(wanted.arrays)) if places is None else places
        if len(got.arrays) != len(places):
            message = f"returned {len(got.arrays)} floating arrays, wanted {len(places)}"
            self.ledger.error(self.way, mode, message)
            return []
        alike = []
        for at, (x, place) in enumerate(zip(got.arrays, places, strict=True)):
            shape = wanted.arrays[place].shape
            if x.shape == shape:
                alike.append((at, place))
            else:
                item = self.standard.items[place]
                message = f"returned the {item} with shape {list(x.shape)}, wanted {list(shape)}"
                self.ledger.error(self.way, mode, message, item.leaf)
        return alike

    def _compare_others(self, mode: str, got: Outcome, wanted: Outcome) -> None:
        for output, x, y in zip(self.standard.others, got.others, wanted.others, strict=False):
            if not np.array_equal(x, y):
                self.ledger.error(self.way, mode, f"returned another {output} than the reference", output)


def _own_scale(own: Measured, point: Point, place: int, thorough: bool) -> np.ndarray:
    """The candidate's rounding scale, which does not excuse what is not finite before anything is shaken."""
    finite = np.isfinite(own(point).arrays[place])
    return np.where(finite, own.scale(point, thorough=thorough)[place], 0.0)


def _sum(arrays: Iterable[np.ndarray]) -> np.ndarray:
    first, *rest = arrays
    with np.errstate(all="ignore"):
        return sum(rest, first)

"""One reference and its candidates: the points at which they meet, the modes in which they are compared.

At every point the truth is the reference in float64, on the same inputs and the same cotangents. A candidate is compared
with it in float64 (is the formula right?), in the precision of the arguments (does it round no worse than the plain
version?) and in each mode. What raises in one mode is a failure of that mode.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check import numerical
from fdl.check.compare import Item, Truth, natural_size, of_formula, of_rounding
from fdl.check.evaluate import WIDE, Evaluation, Measured, Outcome, Point, Precision, brief, native_precision, stacked
from fdl.check.ledger import Ledger, Where
from fdl.check.report import RIGHT, UNDECIDED, WRONG, Comparison, Failure, LeafSummary, Report, modes_and_ways
from fdl.check.rounding import unit_roundoff, working_precision
from fdl.check.subject import (
    Batched,
    BatchedGradient,
    Checkpointed,
    Differentiated,
    Layout,
    Scanned,
    Second,
    Subject,
    parted,
)
from fdl.errors import is_array

MODES = {
    "quick": ("eager",),
    "default": ("eager", "jit", "vmap"),
    "all": ("eager", "jit", "vmap", "grad inside vmap", "scan", "checkpoint", "second derivative"),
}
_BATCHES: dict[str, Callable[[Subject], Subject]] = {
    "vmap": Batched,
    "grad inside vmap": BatchedGradient,
    "scan": Scanned,
}
_SEEDS = {"quick": 1, "default": 3, "all": 3}
_EXAMPLES = 3
_U64 = unit_roundoff(np.float64)


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The floating outputs in order; the first `pulled` of them get a cotangent. `others` have no derivative."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    pulled: int
    others: tuple[str, ...]

    @staticmethod
    def of(subject: Differentiated, active: list, fixed: Any, roots: tuple[str, str]) -> "Outputs":
        """roots: what the output and the aux output are called in reports."""
        try:
            trees = jax.eval_shape(subject.out, active, fixed)
        except Exception:  # a function that looks at numbers can be run, not traced
            trees = subject.out(active, fixed)
        leaves = [
            (root + jax.tree_util.keystr(path), x if is_array(x) else jnp.asarray(x))
            for root, tree in zip(roots, trees, strict=True)
            for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]
        ]
        floats = [(name, x) for name, x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
        return Outputs(
            names=tuple(name for name, _ in floats),
            shapes=tuple(x.shape for _, x in floats),
            dtypes=tuple(x.dtype for _, x in floats),
            pulled=len(parted(trees[0])[0]),
            others=tuple(name for name, x in leaves if not jnp.issubdtype(x.dtype, jnp.inexact)),
        )

    def is_like(self, other: "Outputs") -> bool:
        mine, theirs = (self.shapes, self.pulled, len(self.others)), (other.shapes, other.pulled, len(other.others))
        return mine == theirs

    def __str__(self) -> str:
        floats = [
            f"{name} {dtype}{list(shape)}"
            for name, dtype, shape in zip(self.names, self.dtypes, self.shapes, strict=True)
        ]
        return ", ".join([*floats, *self.others]) or "nothing"


class Trial:
    """Compares every candidate with the reference, on construction; the outcome is in `ledger` and `notes`.

    candidates: {way: subject}; a layer has several ways through its backward, else there is one and its name is empty.
    numerically: there is no reference: central differences decide, and the candidate is its own reference in the modes.
    """

    def __init__(
        self,
        reference: Differentiated,
        candidates: Mapping[str, Subject],
        layout: Layout,
        active: list,
        fixed: Any,
        *,
        modes: str,
        seed: Any,
        roots: tuple[str, str] = ("output", "aux"),
        numerically: bool = False,
        ledger: Ledger | None = None,
    ):
        self.layout, self.fixed, self.modes = layout, fixed, modes
        self.active = [np.asarray(x) for x in active]
        self.native = native_precision(self.active)
        self.ledger = Ledger() if ledger is None else ledger
        self.notes: list[str] = []
        self._rng = np.random.default_rng(seed)
        self._precisions: dict[int, list[float]] = {}
        self._plain_at: dict[int, Outcome] = {}
        self._examples_made: list[Point] = []

        self.outputs, narrowest, candidates = self._outputs(reference, candidates, roots)
        self._cotangents = list(zip(self.outputs.shapes[: self.outputs.pulled], narrowest, strict=True))
        values = [Item("value", name) for name in self.outputs.names]
        self.items = values + [Item("gradient", path) for path in layout.active]
        self.points = [self._point(seed) for seed in range(_SEEDS[modes])]
        self.reference = reference
        self.truth = self._truth(reference)
        self._plain = Evaluation(reference, self.native, quick=True)
        if numerically:
            self._examine_numerically(reference)
        for way, candidate in candidates.items():
            self._examine(way, candidate)

    # ---- outputs and points ----

    def _outputs(
        self, reference: Differentiated, candidates: Mapping[str, Subject], roots: tuple[str, str]
    ) -> tuple[Outputs, list, dict[str, Subject]]:
        """(the reference's outputs, the narrowest dtype of each, the candidates whose outputs are of that kind)."""
        with self.native.scope(), _blaming_the_reference():
            outputs = Outputs.of(reference, self.active, self.fixed, roots)
        narrowest, kept = list(outputs.dtypes[: outputs.pulled]), {}
        for way, candidate in candidates.items():
            if isinstance(candidate, Differentiated) and candidate is not reference:
                try:
                    with self.native.scope():
                        own = Outputs.of(candidate, self.active, self.fixed, roots)
                except Exception as error:
                    self.ledger.error(way, "eager", f"raised {brief(error)}")
                    continue
                if not own.is_like(outputs):
                    self.ledger.error(way, "eager", f"returned {own}, wanted {outputs}")
                    continue
                pairs = zip(narrowest, own.dtypes, strict=False)
                narrowest = [max(pair, key=lambda dtype: unit_roundoff(dtype)) for pair in pairs]
            kept[way] = candidate
        return outputs, narrowest, kept

    def _point(self, seed: int, active: list | None = None) -> Point:
        """Random cotangents, never ones: normal, and Rademacher for every second seed."""
        draw = self._rademacher if seed % 2 else self._rng.standard_normal
        w = [np.asarray(draw(shape)).astype(dtype).astype(np.float64) for shape, dtype in self._cotangents]
        return Point(self.active if active is None else active, self.fixed, w)

    def _rademacher(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._rng.integers(0, 2, shape) * 2.0 - 1.0

    def _examples(self) -> list[Point]:
        """Different arguments: smaller by a factor of each example and a little of each entry. Signs and zeros stay."""
        if not self._examples_made:
            self._examples_made = [self._point(0)]
            for _ in range(1, _EXAMPLES):
                factor = self._rng.uniform(0.6, 0.9)
                shares = [factor * (1 - 0.05 * self._rng.random(x.shape)) for x in self.active]
                shrunk = [(x * share).astype(x.dtype) for x, share in zip(self.active, shares, strict=True)]
                self._examples_made.append(self._point(0, shrunk))
        return self._examples_made

    # ---- the truth ----

    def _truth(self, reference: Subject) -> Measured:
        """The reference in float64, or where it does not run there, in its own precision."""
        truth = Measured(reference, WIDE, self._rng)
        try:
            truth(self.points[0])
        except Exception as error:
            truth = Measured(reference, self.native, self._rng)
            with _blaming_the_reference():
                truth(self.points[0])
            self.notes.append(
                f"the reference does not run in float64 ({brief(error)}): the truth is that of its own precision"
            )
        if truth.note:
            self.notes.append(f"rounding inside the reference was not seen, only that of its arguments ({truth.note})")
        return truth

    def _plain_outcome(self, point: Point) -> Outcome:
        """The reference in the precision of the arguments."""
        if id(point) not in self._plain_at:
            try:
                self._plain_at[id(point)] = self._plain(point)
            except Exception:  # it cannot be compiled, or runs in float64 only
                self._plain_at[id(point)] = self.truth(point)
        return self._plain_at[id(point)]

    # ---- modes ----

    def _examine(self, way: str, candidate: Subject) -> None:
        judge = _Judge(self, way, candidate)
        modes = MODES[self.modes]
        if not isinstance(candidate, Differentiated):
            # no custom_vjp that behaves otherwise when it is not traced, and op by op is slow
            modes = tuple(mode for mode in modes if mode != "eager") or ("jit",)
        for mode in modes:
            try:
                self._examine_mode(judge, mode)
            except Exception as error:
                self.ledger.error(way, mode, f"raised {brief(error)}")

    def _examine_mode(self, judge: "_Judge", mode: str) -> None:
        candidate, first = judge.candidate, self.points[0]
        if mode in ("eager", "jit"):
            run = Evaluation(candidate, self.native, compiled=mode == "jit")
            for point in self.points:
                judge.compare(mode, self.native, point, run(point))
        elif mode in _BATCHES:
            points = self._examples()
            outcome = Evaluation(_BATCHES[mode](candidate), judge.sharpest, quick=True)(stacked(points))
            for index, point in enumerate(points):
                judge.compare(mode, judge.sharpest, point, outcome.example(index))
        elif mode == "checkpoint" and isinstance(candidate, Differentiated):
            run = Evaluation(Checkpointed(candidate), judge.sharpest, quick=True)
            judge.compare(mode, judge.sharpest, first, run(first))
        elif mode == "second derivative":
            self._examine_second(judge, mode)

    def _examine_second(self, judge: "_Judge", mode: str) -> None:
        v = [self._rng.standard_normal(x.shape).astype(x.dtype).astype(np.float64) for x in self.active]
        point = dataclasses.replace(self.points[0], w=(self.points[0].w, v))
        truth = Measured(Second(self.reference), judge.sharpest, self._rng)
        own = Measured(Second(judge.candidate), judge.sharpest, self._rng)
        got, wanted = own(point), truth(point)
        for place, path in enumerate(self.layout.active):
            u = max(truth.precisions(point)[place], own.precisions(point)[place])
            allowance = of_formula(wanted.arrays[place], truth.scale(point)[place], own.scale(point)[place], u)
            where = Where(judge.way, mode, "float64" if judge.sharpest.wide else str(got.dtypes[place]))
            self.ledger.add(Item("second derivative", path), where, got.arrays[place], allowance, natural=0.0)

    def _examine_numerically(self, candidate: Differentiated) -> None:
        if self.truth.precision is WIDE:
            found = numerical.evidence(candidate, self.truth, self.points[0], len(self.outputs.names), self._rng)
        else:
            reason = "there is no reference, and central differences need float64, in which it does not run"
            found = [numerical.no_evidence(x.shape, reason) for x in self.active]
        for path, evidence in zip(self.layout.active, found, strict=True):
            self.ledger.add_numerical(Item("gradient", path), evidence)

    # ---- what the comparisons need ----

    def native_precisions(self, subject: Subject, point: Point) -> list[float]:
        """The coarsest precision in which each array is computed when the arguments are as given."""
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

    def natural(self, place: int, point: Point, wanted: np.ndarray) -> float:
        """The size of an array by its units; the flow is <w, y>, what all that flows back adds up to."""
        if not self.items[place].is_derivative:
            return float(np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted)))
        with np.errstate(all="ignore"):
            pairs = zip(point.w, self.truth(point).arrays, strict=False)
            flows = [float(np.max(np.abs(w * y), initial=0.0)) * w.size**0.5 for w, y in pairs]
        argument = point.active[place - len(self.outputs.names)]
        return natural_size(wanted, argument, point.active, max(flows, default=0.0))


class _Judge:
    """One candidate against the truth of a trial."""

    def __init__(self, trial: Trial, way: str, candidate: Subject):
        self.trial, self.way, self.candidate = trial, way, candidate
        self.wide = self._in_float64()
        exact = self.wide is not None and max(self.wide.precisions(trial.points[0]), default=0.0) <= _U64
        # in float64 nothing hides in rounding
        self.sharpest = WIDE if exact else trial.native

    def _in_float64(self) -> Measured | None:
        """Is the formula right? None if the candidate or the reference does not run in float64."""
        trial, name = self.trial, self.way or "the candidate"
        if trial.truth.precision is not WIDE:
            return None
        own = Measured(self.candidate, WIDE, trial._rng)
        try:
            own(trial.points[0])
        except Exception as error:
            if not trial.native.x64:  # else the modes say so
                trial.notes.append(
                    f"{name} does not run in float64 ({brief(error)}): judged in the precision of its arguments alone"
                )
            return None
        if len(own(trial.points[0]).arrays) != len(trial.items):
            return None
        for point in trial.points:
            self._compare_formula("float64", point, own(point), own, narrow_too=trial.native.x64)
        narrow = [str(item) for item, u in zip(trial.items, own.precisions(trial.points[0]), strict=True) if u > _U64]
        if narrow and not trial.native.x64:
            shown = ", ".join(narrow[:3]) + (", ..." if len(narrow) > 3 else "")
            trial.notes.append(
                f"{name} computes in a fixed lower precision inside ({shown}): judged in that of its arguments alone"
            )
        return own

    def compare(self, mode: str, precision: Precision, point: Point, got: Outcome) -> None:
        if precision.x64 and self.wide is not None:
            self._compare_formula(mode, point, got, self.wide)
        else:
            self._compare_rounding(mode, point, got)

    def _compare_formula(self, mode: str, point: Point, got: Outcome, own: Measured, narrow_too: bool = True) -> None:
        truth = self.trial.truth
        wanted, scales, own_scales = truth(point), truth.scale(point), own.scale(point)
        for place in self._alike(mode, got, wanted):
            u = max(truth.precisions(point)[place], own.precisions(point)[place])
            if u <= _U64 or narrow_too:
                allowance = of_formula(wanted.arrays[place], scales[place], own_scales[place], u)
                self._add(mode, "float64", place, point, got, allowance)
        self._compare_others(mode, got, wanted)

    def _compare_rounding(self, mode: str, point: Point, got: Outcome) -> None:
        trial, wide = self.trial, self.wide
        wanted, plain, scales = trial.truth(point), trial._plain_outcome(point), trial.truth.scale(point)
        precisions = [trial.native_precisions(subject, point) for subject in (trial.reference, self.candidate)]
        for place in self._alike(mode, got, wanted):
            dtype = got.dtypes[place]
            u = max(unit_roundoff(dtype), *(known[place] for known in precisions))
            own_scale = wide.scale(point)[place] if wide is not None and wide.precisions(point)[place] <= _U64 else None
            allowance = of_rounding(wanted.arrays[place], scales[place], own_scale, u, plain.arrays[place], dtype)
            self._add(mode, str(dtype), place, point, got, allowance)
        self._compare_others(mode, got, plain)

    def _add(self, mode: str, dtype: str, place: int, point: Point, got: Outcome, allowance: Truth) -> None:
        natural = self.trial.natural(place, point, allowance.wanted)
        self.trial.ledger.add(
            self.trial.items[place], Where(self.way, mode, dtype), got.arrays[place], allowance, natural
        )

    def _alike(self, mode: str, got: Outcome, wanted: Outcome) -> list[int]:
        """The arrays whose shape is as it should be; the others are failures."""
        ledger = self.trial.ledger
        if len(got.arrays) != len(wanted.arrays):
            ledger.error(self.way, mode, f"returned {len(got.arrays)} floating arrays, wanted {len(wanted.arrays)}")
            return []
        alike = []
        for place, (x, y) in enumerate(zip(got.arrays, wanted.arrays, strict=True)):
            if x.shape == y.shape:
                alike.append(place)
            else:
                item = self.trial.items[place]
                ledger.error(
                    self.way, mode, f"returned the {item} with shape {list(x.shape)}, wanted {list(y.shape)}", item.leaf
                )
        return alike

    def _compare_others(self, mode: str, got: Outcome, wanted: Outcome) -> None:
        for output, x, y in zip(self.trial.outputs.others, got.others, wanted.others, strict=False):
            if not np.array_equal(x, y):
                self.trial.ledger.error(self.way, mode, f"returned another {output} than the reference", output)


class _blaming_the_reference:
    """What is raised inside gets a note: the reference has to run."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            error.add_note("fdl.check: raised by the reference, which has to run on these arguments")


# ---- the verdict ----


def report_of(candidate: str, reference: str, trials: Sequence[Trial]) -> Report:
    """What trials with one ledger came to."""
    ledger = trials[0].ledger
    leaves, comparisons, failures = ledger.leaves, ledger.comparisons, ledger.failures
    verdict, sentence = _verdict(candidate, reference, leaves, comparisons, failures)
    passed_on = tuple(dict.fromkeys(leaf for trial in trials for leaf in trial.layout.not_differentiated))
    notes = tuple(dict.fromkeys(note for trial in trials for note in trial.notes))
    return Report(candidate, reference, verdict, sentence, leaves, comparisons, failures, passed_on, notes)


def _verdict(
    candidate: str,
    reference: str,
    leaves: tuple[LeafSummary, ...],
    rows: tuple[Comparison, ...],
    failures: tuple[Failure, ...],
) -> tuple[str, str]:
    if failures:
        return WRONG, _accusation(candidate, leaves, rows, failures)
    gradients = [leaf for leaf in leaves if leaf.quantity == "gradient"]
    compared = sum(row.comparisons for row in rows)
    if not gradients or not compared:
        return UNDECIDED, f"nothing of {candidate} could be compared with {reference}"
    not_judged = [leaf for leaf in gradients if leaf.verdict != RIGHT]
    if not_judged:
        first = not_judged[0]
        return UNDECIDED, f"the gradient of {first.leaf} could not be judged: {first.note or 'it is lost in rounding'}"
    return RIGHT, f"{candidate} agrees with {reference} in {compared:,} comparisons ({modes_and_ways(rows)})"


def _accusation(
    candidate: str, leaves: tuple[LeafSummary, ...], rows: tuple[Comparison, ...], failures: tuple[Failure, ...]
) -> str:
    first = next((f for f in failures if f.quantity == "gradient"), failures[0])
    if first.quantity == "error":
        return f"{candidate} {first.message} in {first.place}"
    alike = [f for f in failures if f.quantity == first.quantity]
    accused = list(dict.fromkeys(f.leaf for f in alike))
    total = sum(leaf.quantity == first.quantity for leaf in leaves)
    of_all = f" ({len(accused)} of {total} leaves)" if total > 1 and first.quantity == "gradient" else ""
    only = f" in {first.place} alone" if len(rows) > len(alike) == 1 and first.mode not in ("float64", "eager") else ""
    names = " and ".join(accused[:2]) + (" and others" if len(accused) > 2 else "")
    return f"{candidate} gets the {first.quantity} of {names} wrong{of_all}{only}" + (
        f": {first.message}" if first.message else ""
    )

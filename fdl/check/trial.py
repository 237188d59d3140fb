"""One reference and its candidates: the points at which they meet, the modes in which they are compared.

At every point the truth is the reference in float64, on the same inputs and the same cotangents. A candidate is compared
with it in float64 (is the formula right?), in the precision of the arguments (does it round no worse than the plain
version?) and in each mode. What raises in one mode is a failure of that mode.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check import numerical
from fdl.check.compare import Item
from fdl.check.draws import Traces, differs_when_repeated
from fdl.check.evaluate import WIDE, Evaluation, Measured, Point, brief, native_precision
from fdl.check.judge import Judge, Standard
from fdl.check.kinks import kinks_of
from fdl.check.ledger import Ledger
from fdl.check.modes import MODES, Modes
from fdl.check.origin import origin_of
from fdl.check.report import (
    NUMERICAL,
    RIGHT,
    UNDECIDED,
    WRONG,
    Comparison,
    Failure,
    LeafSummary,
    Report,
    modes_and_ways,
)
from fdl.check.rounding import unit_roundoff
from fdl.check.subject import Differentiated, Layout, Subject, parted
from fdl.check.terms import Terms
from fdl.errors import is_array

_SEEDS = {"quick": 1, "default": 3, "all": 3}
_EXAMPLES = 3
_OP_BY_OP = 32  # equations: of a larger program, "quick" compiles the whole rather than operation by operation
_EXPLAINED = ("float64", "eager", "jit")  # other modes run something else than the reference does


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
    numerically: there is no reference from outside. Complex steps or central differences decide; in the modes the candidate is
    held against itself, or against its computation without hand-written derivatives (see `fdl.check.primal`).
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
        self.layout, self.fixed, self.modes, self._numerically = layout, fixed, modes, numerically
        self.active = [np.asarray(x) for x in active]
        self.native = native_precision(self.active)
        self.ledger = Ledger() if ledger is None else ledger
        self.notes: list[str] = []
        self.evidence = numerical.DIFFERENCES  # what decides where there is no reference
        self._rng = np.random.default_rng(seed)
        self._examples_made: list[Point] = []
        self._terms: Terms | None = None
        self.constants: tuple[str, ...] = ()  # the entries of arguments that were not moved
        self.undecidable = ""  # why nothing was compared
        self.refuted = False  # complex steps or central differences say that the reference is wrong

        try:
            self._prepare(reference, candidates, roots)
        except Exception as error:
            if not numerically:
                error.add_note("fdl.check: raised by the reference, which has to run on these arguments")
                raise
            self.ledger.error("", "eager", f"raised {brief(error)}")
            return
        if self._is_random(reference, candidates):
            return
        for way, candidate in self._comparable.items():
            judge = self._examine(way, candidate)
            if not judge.is_own_reference and not self.refuted:
                self._diagnose(judge, reference)
        self.notes += self.standard.notes
        self._note_origin(reference)

    def _note_origin(self, reference: Differentiated) -> None:
        arrays = self.standard.truth(self.points[0]).arrays
        if not all(np.isfinite(x).all() for x in arrays) and (origin := self._origin(reference)):
            self.notes.append(f"the reference is not finite everywhere: first in {origin}")

    def _is_random(self, reference: Subject, candidates: Mapping[str, Subject]) -> bool:
        """Whether one of them returns other values when it is called again; then there is nothing to compare."""
        subjects = {"the candidate" if not way else way: subject for way, subject in candidates.items()}
        if reference not in candidates.values() and not self._numerically:
            subjects["the reference"] = reference
        for name, subject in subjects.items():
            if (what := differs_when_repeated(subject, self.native, self._traces)) == "values":
                self.undecidable = (
                    f"{name} returns different values for the same arguments; pass it a key, and the same one"
                )
                return True
            if what:
                self.notes.append(f"{name} returns different gradients for the same arguments")
        return False

    # ---- the reference, outputs and points ----

    def _prepare(self, reference: Differentiated, candidates: Mapping[str, Subject], roots: tuple[str, str]) -> None:
        self.outputs, narrowest, self._comparable = self._outputs(reference, candidates, roots)
        self._cotangents = list(zip(self.outputs.shapes[: self.outputs.pulled], narrowest, strict=True))
        self.points = [self._point(seed) for seed in range(_SEEDS[self.modes])]
        self.constants = tuple(
            f"{path} in {int(still.sum())} of {still.size} entries, which are not finite"
            for path, still in zip(self.layout.active, [~np.isfinite(x) for x in self.active], strict=True)
            if still.any()
        )
        items = [Item("value", name) for name in self.outputs.names]
        items += [Item("gradient", path) for path in self.layout.active]
        self._traces = Traces(self.points[0])
        own = reference in self._comparable.values()
        kind = {"widen": own, "is_primal": self._numerically and not own}
        self.standard = Standard(reference, self._traces, items, self.outputs.others, self.native, self._rng, **kind)

    def _outputs(
        self, reference: Differentiated, candidates: Mapping[str, Subject], roots: tuple[str, str]
    ) -> tuple[Outputs, list, dict[str, Subject]]:
        """(the reference's outputs, the narrowest dtype of each, the candidates whose outputs are of that kind)."""
        with self.native.scope():
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
                self._note_dtypes(way, own, outputs)
                narrowest = [max(pair, key=lambda dtype: unit_roundoff(dtype)) for pair in pairs]
            kept[way] = candidate
        return outputs, narrowest, kept

    def _note_dtypes(self, way: str, own: Outputs, wanted: Outputs) -> None:
        """Which outputs are not of the reference's dtype, which is no fault of a gradient."""
        triples = zip(own.names, own.dtypes, wanted.dtypes, strict=True)
        other = [
            f"{name} is {mine}, that of the reference {theirs}" for name, mine, theirs in triples if mine != theirs
        ]
        if other:
            self.notes.append(f"{way or 'the candidate'} returns another dtype: {', '.join(other[:3])}")

    def _point(self, seed: int, active: list | None = None) -> Point:
        """Random cotangents, never ones: normal, and Rademacher for every second seed."""
        draw = self._rademacher if seed % 2 else self._rng.standard_normal
        w = [np.asarray(draw(shape)).astype(dtype).astype(np.float64) for shape, dtype in self._cotangents]
        return Point(self.active if active is None else active, self.fixed, w)

    def _rademacher(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._rng.integers(0, 2, shape) * 2.0 - 1.0

    def _examples(self) -> list[Point]:
        """Different arguments: each leaf smaller by a factor of each example. Signs, zeros, ties and symmetries stay."""
        if not self._examples_made:
            self._examples_made = [self._point(0)]
            self._examples_made += [self._point(0, self._smaller(0.6, 0.9, 0.0)) for _ in range(1, _EXAMPLES)]
        return self._examples_made

    def _smaller(self, low: float, high: float, spread: float) -> list[np.ndarray]:
        """The arguments times one factor and, entry by entry, smaller by up to `spread` more."""
        factor = self._rng.uniform(low, high)
        shares = [factor * (1 - spread * self._rng.random(x.shape)) for x in self.active]
        return [(x * share).astype(x.dtype) for x, share in zip(self.active, shares, strict=True)]

    # ---- modes ----

    def _examine(self, way: str, candidate: Subject) -> Judge:
        judge = Judge(self.standard, way, candidate, self.points, self.ledger)
        self.notes += judge.notes
        if self._numerically and self._is_refuted(judge, self._examine_numerically(judge)):
            self.refuted = True
            return judge
        modes = MODES[self.modes]
        if self.modes == "quick" and self._traces.equations(candidate, self.native) > _OP_BY_OP:
            modes = ("jit",)
        if not isinstance(candidate, Differentiated):
            # no custom_vjp that behaves otherwise when it is not traced, and op by op is slow
            modes = tuple(mode for mode in modes if mode != "eager") or ("jit",)
        in_modes = Modes(judge, self.layout, self.native, self.points, self._examples, self.outputs.pulled, self._rng)
        in_modes.optimized = self.modes != "quick"
        in_modes.run(modes)
        self.notes += in_modes.notes
        self._compare_together(judge)
        self._note_kinks(judge)
        if self.ledger.not_finite(way) and (origin := self._origin(candidate)):
            self.ledger.explain_not_finite(way, f"first in {origin}")
        return judge

    def _origin(self, subject: Subject) -> str:
        """Where a function or its gradient stops being finite, in float64 or in the arguments' precision; else nothing."""
        if not isinstance(subject, Differentiated):
            return ""
        for precision in dict.fromkeys((self.standard.truth.precision, self.native)):
            with precision.scope():
                try:
                    found = origin_of(subject, *precision.operands(self.points[0]))
                except Exception:  # it cannot be traced, or taken apart
                    continue
            if found is not None:
                return str(found)
        return ""

    def _compare_together(self, judge: Judge) -> None:
        """At kinks, whether entries that are slopes each on its own are one together."""
        if not self.ledger.may_have_jumped(judge.way) or self.ledger.failures:
            return
        try:
            judge.compare_together(self.points[0], own=judge.is_own_reference)
        except Exception:  # a candidate that does not run; the modes say so
            return

    def _note_kinks(self, judge: Judge) -> None:
        """Which entries are at a kink, where it was seen that some are, or where everything is asked for."""
        if judge.standard.truth.precision is not WIDE or not (self.modes == "all" or self.ledger.saw_kinks(judge.way)):
            return
        run = judge.wide or Evaluation(judge.candidate, self.native, quick=True)
        try:
            standard = self.standard
            found = kinks_of(judge.way, standard.truth, run, standard.kinks, self.points[0], standard.items)
        except Exception:  # a candidate that does not run; the modes say so
            return
        self.ledger.kinks += found

    def _diagnose(self, judge: Judge, reference: Differentiated) -> None:
        """Says which term of a wrong gradient is wrong, where that can be found out."""
        items = self.ledger.accused(judge.way, _EXPLAINED)
        if not items:
            return
        try:
            run = judge.wide or Evaluation(judge.candidate, self.native)
            if self._terms is None:
                # entry by entry, or two terms that are homogeneous could not be told apart
                points = self.points[0], self._point(0, self._smaller(0.8, 0.95, 0.05))
                self._terms = Terms(reference, self.standard.truth, points)
            outcomes = [run(draw.point).arrays for draw in self._terms.draws]
            values = len(self.outputs.names)
            for item in items:
                place = self.layout.active.index(item.leaf)
                said = self._terms.diagnosis(place, [arrays[values + place] for arrays in outcomes])
                self.ledger.diagnose(item, judge.way, _EXPLAINED, said)
        except Exception:  # a reference that cannot be taken apart is judged all the same
            return

    def _examine_numerically(self, judge: Judge) -> list[numerical.Evidence]:
        """What complex steps or central differences say of the candidate, leaf by leaf."""
        alone, truth = judge.is_own_reference, self.standard.truth
        widened = self.standard.is_widened  # then it is the truth that steps can say something about
        found = self._evidence(*((truth.subject, truth) if widened else (judge.candidate, judge.wide)))
        if found is None and alone:
            reason = "there is no reference, and central differences need float64, in which it does not run"
            if not self.outputs.pulled:
                reason = "no floating output hangs on it"
            found = [numerical.no_evidence(x.shape, reason) for x in self.active]
        found = found or []
        if found and all(e.method == numerical.STEP for e in found):
            self.evidence = "complex steps"
        for path, evidence in zip(self.layout.active, found, strict=False):
            self.ledger.add_numerical(Item("gradient", path), evidence, alone=alone, of_truth=widened)
        return found

    def _evidence(self, subject: Subject, measured: Measured | None) -> list[numerical.Evidence] | None:
        if measured is None or not isinstance(subject, Differentiated) or not self.outputs.pulled:
            return None
        alone, values = not self.standard.is_primal, len(self.outputs.names)
        return numerical.evidence(subject, measured, self.points[0], values, self._rng, thorough=alone)

    def _is_refuted(self, judge: Judge, found: list[numerical.Evidence]) -> bool:
        """Whether the candidate differs from its computation, and it is that one that is wrong."""
        accused = {item.leaf for item in self.ledger.accused(judge.way, _EXPLAINED)}
        cleared = {path for path, of in zip(self.layout.active, found, strict=False) if not of.wrong}
        if judge.is_own_reference or not accused & cleared or self.standard.truth.precision is not WIDE:
            return False
        plain = self._evidence(self.standard.reference, self.standard.truth) or []
        return any(evidence.wrong for evidence in plain)


# ---- the verdict ----


def report_of(candidate: str, reference: str, trials: Sequence[Trial]) -> Report:
    """What trials with one ledger came to."""
    ledger = trials[0].ledger
    leaves, comparisons, failures = ledger.leaves, ledger.comparisons, ledger.failures
    verdict, sentence = _verdict(candidate, reference, leaves, comparisons, failures)
    not_judged = tuple(ledger.not_judged())
    if verdict == RIGHT and (reasons := ledger.open):
        verdict, sentence = UNDECIDED, reasons[0]
    if verdict == RIGHT and (few := [leaf for leaf in leaves if leaf.in_few_bits and leaf.quantity != "value"]):
        sentence += f"; in 16 bits, in which {few[0].leaf} is computed, a fault of {few[0].sees:.0%} or more is seen"
    if verdict == RIGHT and not_judged:
        sentence += f"; not judged: {', '.join(not_judged[:3])}{', ...' if len(not_judged) > 3 else ''}"
    if verdict != WRONG and (reasons := [trial.undecidable for trial in trials if trial.undecidable]):
        verdict, sentence = UNDECIDED, reasons[0]
    if verdict == RIGHT and not any(trial.outputs.pulled for trial in trials):
        verdict, sentence = UNDECIDED, f"{candidate} has no floating output, so that no cotangent reached its backward"
    passed_on = tuple(
        dict.fromkeys(leaf for trial in trials for leaf in (*trial.layout.not_differentiated, *trial.constants))
    )
    notes = tuple(dict.fromkeys(note for trial in trials for note in trial.notes))
    kinks = tuple(ledger.kinks)
    found = passed_on, notes, kinks, tuple(ledger.exact_tests), not_judged
    return Report(candidate, reference, verdict, sentence, leaves, comparisons, failures, *found)


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
    derivatives = gradients + [leaf for leaf in leaves if leaf.quantity == "second derivative"]
    compared = sum(row.comparisons for row in rows)
    if not gradients or not compared:
        return UNDECIDED, f"nothing of {candidate} could be compared with {reference}"
    not_judged = [leaf for leaf in derivatives if leaf.verdict != RIGHT]
    if not_judged:
        first = not_judged[0]
        return (
            UNDECIDED,
            f"the {first.quantity} of {first.leaf} could not be judged: {first.note or 'it is lost in rounding'}",
        )
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
    everywhere = ("float64", next((row.mode for row in rows if row.mode in ("eager", "jit")), ""))
    alone = len(rows) > len(alike) == 1 and first.mode not in (*everywhere, *NUMERICAL, first.quantity)
    only = f" in {first.place} alone" if alone else ""
    names = " and ".join(accused[:2]) + (" and others" if len(accused) > 2 else "")
    return f"{candidate} gets the {first.quantity} of {names} wrong{of_all}{only}" + (
        f": {first.message or first.diagnosis}" if first.message or first.diagnosis else ""
    )

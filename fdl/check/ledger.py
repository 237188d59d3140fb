"""The account of a check: every comparison made, added up by array and mode, and what each array comes to."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from fdl.check.compare import Item, Truth, decides, decides_in_16_bits, lost_entries, pattern, wrong_entries
from fdl.check.kinks import Jump
from fdl.check.numerical import Evidence
from fdl.check.report import NUMERICAL, RIGHT, UNDECIDED, WRONG, Comparison, ExactTest, Failure, Kink, LeafSummary
from fdl.check.rounding import unit_roundoff

_KINK = " of this kink"
_DTYPES = ("float16", "bfloat16", "float32", "float64")  # modes of their own, which nobody asked for one by one
_APART = 1e-2
_SEVERAL, _FORMULAS = 3, ("factor", "zero", "transposed")
_BESIDE = 1e-3  # of how far an entry is outside of it: an interval that is narrower is no kink


@dataclasses.dataclass(frozen=True)
class Where:
    """Which way through the backward (a layer has several, else empty), which mode, in which precision."""

    way: str
    mode: str
    dtype: str


@dataclasses.dataclass(eq=False)
class _Row:
    comparison: Comparison
    failure: Failure | None = None
    apart: float = 0.0  # the largest difference, as a share of the largest entry
    reached: int = (
        0  # comparisons where the plain version overflows, and the candidate is as near to the truth as rounding allows
    )


@dataclasses.dataclass(frozen=True)
class _Digits:
    """How many decimal digits are kept, and how many the dtype has."""

    kept: float
    available: float
    dtype: str


class Ledger:
    def __init__(self):
        self.rows: dict[tuple[Item, Where], _Row] = {}
        self.errors: list[Failure] = []
        self._decided: dict[Item, dict[str, np.ndarray]] = {}  # by way
        self._sees: dict[Item, np.ndarray] = {}  # the relative error that would have been seen, by entry
        self._digits: dict[Item, _Digits] = {}  # of the plain version
        self._own: dict[Item, _Digits] = {}  # of the candidate, the fewest
        self._lost: dict[Item, tuple[str, np.ndarray, np.ndarray]] = {}  # (dtype, lost entries, those that are not 0)
        self._few_bits: dict[Item, dict[str, np.ndarray]] = {}  # what is decided if 16 bits are all there are, by way
        self._finest: dict[Item, float] = {}  # the least roundoff of any comparison
        self._numerical: dict[Item, Evidence] = {}  # which decides
        self._beside: dict[Item, Evidence] = {}  # beside a reference
        self._of_truth: set[Item] = set()
        self.kinks: list[Kink] = []
        self.exact_tests: list[ExactTest] = []
        self._passed_over: list[str] = []
        self._open: list[str] = []

    @property
    def failures(self) -> tuple[Failure, ...]:
        found = [row.failure for row in self.rows.values() if row.failure is not None]
        # what was seen entry by entry says more than a direction does
        return (*self.errors, *sorted(found, key=lambda failure: failure.mode in NUMERICAL))

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(row.comparison for row in self.rows.values())

    @property
    def leaves(self) -> tuple[LeafSummary, ...]:
        return tuple(self._summary(item) for item in self._decided)

    def error(self, way: str, mode: str, message: str, leaf: str = "") -> None:
        """Something that could not run, or that is of another kind than it should be."""
        failure = Failure("error", leaf, way, mode, "", message)
        if failure not in self.errors:
            self.errors.append(failure)

    def pass_over(self, mode: str) -> None:
        """A mode that was asked for and in which there is nothing to judge."""
        if mode not in self._passed_over:
            self._passed_over.append(mode)

    def leave_open(self, reason: str) -> None:
        """What was asked for, is there, and could not be judged: the verdict is "right" no more."""
        self._open.append(reason)

    @property
    def open(self) -> list[str]:
        """Why the verdict is not "right" though all that was compared is: left open, or a mode that compared nothing."""
        compared: dict[tuple[str, str], int] = {}
        for (item, where), row in self.rows.items():
            if item.is_derivative and row.comparison.entries and where.mode not in (*_DTYPES, *NUMERICAL):
                key = where.way, where.mode
                compared[key] = compared.get(key, 0) + row.comparison.comparisons + row.reached
        nothing = [mode for (_, mode), comparisons in compared.items() if not comparisons]
        return [
            *self._open,
            *(f"no entry of a gradient could be compared in {mode}" for mode in dict.fromkeys(nothing)),
        ]

    def add(
        self, item: Item, where: Where, got: np.ndarray, truth: Truth, natural: float, jump: Jump | None = None
    ) -> None:
        """One comparison of one array. `natural`: the size it has by its units (see `natural_size`)."""
        wrong, ratio = wrong_entries(got, truth), _ratio(got, truth)
        row = self.rows.get((item, where))
        if row is None:
            empty = Comparison(item.kind, item.leaf, where.way, where.mode, where.dtype, got.size, 0, 0, 0, 0, 0, 0.0)
            row = self.rows[item, where] = _Row(empty)
        sums = row.comparison
        row.comparison = dataclasses.replace(
            sums,
            comparisons=sums.comparisons + int(truth.comparable.sum()),
            not_finite=sums.not_finite + int((~np.isfinite(truth.wanted)).sum()),
            out_of_range=sums.out_of_range + int((np.isfinite(truth.wanted) & ~truth.comparable).sum()) - truth.kinks,
            kinks=sums.kinks + truth.kinks,
            wrong=sums.wrong + int(wrong.sum()),
            worst=max(sums.worst, float(np.max(ratio, initial=0.0, where=truth.comparable))),
        )
        row.apart = max(row.apart, _apart(got, truth))
        row.reached += _reached(got, truth)
        if wrong.any() and (row.failure is None or wrong.sum() > row.failure.wrong):
            row.failure = self._failure(item, where, got, truth, wrong, ratio, jump)
        self._learn(item, where, got, truth, natural)

    def accuse(self, item: Item, failure: Failure) -> None:
        """A failure that no comparison entry by entry has found."""
        where = Where(failure.way, failure.mode, failure.dtype)
        row = self.rows.get((item, where))
        if row is None:
            empty = Comparison(
                item.kind, item.leaf, where.way, where.mode, where.dtype, failure.entries, 0, 0, 0, 0, 0, 0.0
            )
            row = self.rows[item, where] = _Row(empty)
        counted = dataclasses.replace(
            row.comparison,
            kinks=row.comparison.kinks - min(row.comparison.kinks, failure.wrong),
            comparisons=row.comparison.comparisons + min(row.comparison.kinks, failure.wrong),
            wrong=row.comparison.wrong + failure.wrong,
            worst=max(row.comparison.worst, failure.error_over_allowed),
        )
        row.comparison, row.failure = counted, row.failure or failure

    def depends(self, way: str, leaf: str, said: str) -> None:
        """A gradient that depends on what it must not: added to its failures, or a failure of its own."""
        rows = [row for (item, where), row in self.rows.items() if (item.leaf, where.way) == (leaf, way)]
        known = [row for row in rows if row.failure is not None and row.failure.quantity == "gradient"]
        for row in known:
            failure = row.failure
            assert failure is not None
            row.failure = dataclasses.replace(failure, message="; ".join(x for x in (failure.message, said) if x))
        if not known:
            self.error(way, "float64", f"{said}: in the gradient of {leaf}", leaf)

    def saw_kinks(self, way: str) -> bool:
        """Whether a candidate took another slope than the reference somewhere, or one that is none."""
        rows = [row for (_, where), row in self.rows.items() if where.way == way]
        return any(row.comparison.kinks or (row.failure and _KINK in row.failure.message) for row in rows)

    def may_have_jumped(self, way: str) -> bool:
        """Whether a difference was let pass that is larger than rounding usually is: at a kink, or where a decision hangs on
        a rounded number."""
        rows = [row for (_, where), row in self.rows.items() if where.way == way]
        return any(row.comparison.kinks or row.apart > _APART for row in rows)

    def accused(self, way: str, modes: tuple[str, ...]) -> list[Item]:
        """The gradients that are wrong in one of the modes."""
        rows = ((item, where) for (item, where), row in self.rows.items() if row.failure is not None)
        found = [item for item, where in rows if where.way == way and where.mode in modes and item.kind == "gradient"]
        return list(dict.fromkeys(found))

    def diagnose(self, item: Item, way: str, modes: tuple[str, ...], diagnosis: str) -> None:
        for (known, where), row in self.rows.items():
            if row.failure is not None and (known, where.way) == (item, way) and where.mode in modes:
                row.failure = dataclasses.replace(row.failure, diagnosis=diagnosis)

    def not_finite(self, way: str) -> bool:
        """Whether a candidate failed because something is not finite."""
        rows = [row for (_, where), row in self.rows.items() if where.way == way and row.failure is not None]
        return any(row.failure is not None and not math.isfinite(row.failure.got) for row in rows)

    def explain_not_finite(self, way: str, said: str) -> None:
        """Adds to the message of every failure that is not finite."""
        for (_, where), row in self.rows.items():
            failure = row.failure
            if failure is not None and where.way == way and not math.isfinite(failure.got):
                message = f"{failure.message or 'not finite'}: {said}"
                row.failure = dataclasses.replace(failure, message=message)

    def add_numerical(self, item: Item, evidence: Evidence, *, alone: bool, of_truth: bool = False) -> None:
        """Complex steps or central differences of one leaf. alone: they decide, for there is no reference; else they accuse.

        of_truth: they are about what the candidate is held against.
        """
        if of_truth:
            self._of_truth.add(item)
        where = Where("", evidence.method, "float64")
        (self._numerical if alone else self._beside)[item] = evidence
        compared = evidence.directions - evidence.kinks
        counts = (evidence.decided.size, compared, 0, 0, evidence.kinks, evidence.wrong, evidence.worst)
        row = self.rows[item, where] = _Row(
            Comparison(item.kind, item.leaf, where.way, where.mode, where.dtype, *counts)
        )
        if evidence.wrong:
            numbers = (evidence.got, evidence.wanted, evidence.worst, evidence.wrong, evidence.directions)
            row.failure = Failure(item.kind, item.leaf, where.way, where.mode, where.dtype, evidence.said, (), *numbers)
        self._decided.setdefault(item, {})

    # ---- what is learned from a comparison ----

    def _learn(self, item: Item, where: Where, got: np.ndarray, truth: Truth, natural: float) -> None:
        decided, now = self._decided.setdefault(item, {}), decides(truth, natural)
        decided[where.way] = decided[where.way] | now if where.way in decided else now
        few = self._few_bits.setdefault(item, {})
        few[where.way] = few.get(where.way, False) | decides_in_16_bits(truth, natural)
        self._finest[item] = min(self._finest.get(item, np.inf), truth.coarse)
        if (
            truth.lost is not None and where.mode != where.dtype
        ):  # other dtypes than the arguments' were not asked for one by one
            dtype, lost, some = self._lost.get(item, (where.dtype, False, False))
            nonzero = np.isfinite(truth.wanted) & (
                np.abs(truth.wanted) > (truth.floor if truth.usual is None else truth.usual)
            )
            self._lost[item] = dtype, lost | lost_entries(got, truth), some | nonzero
        with np.errstate(all="ignore"):
            relative = np.where(truth.comparable, truth.allowed / np.abs(truth.wanted), np.inf)
        self._sees[item] = np.fmin(self._sees.get(item, np.inf), relative)
        known = self._digits.get(item)
        # the arguments' own precision says more than float64
        if known is None or (known.dtype == "float64" and where.dtype != "float64"):
            self._digits[item] = _digits(truth, truth.expected, where.dtype)
        with np.errstate(all="ignore"):
            error = np.abs(got - truth.wanted)
        own = _digits(truth, np.where(np.isfinite(error), error, 0.0), where.dtype)
        if item not in self._own or own.kept < self._own[item].kept:
            self._own[item] = own

    def _failure(
        self,
        item: Item,
        where: Where,
        got: np.ndarray,
        truth: Truth,
        wrong: np.ndarray,
        ratio: np.ndarray,
        jump: Jump | None,
    ) -> Failure:
        worst = np.unravel_index(int(np.argmax(np.where(wrong, ratio, -1.0))), wrong.shape)
        seen = pattern(got, truth, wrong)
        alone = self._rounding_alone(item, where, got, truth, wrong)
        # several entries that are wrong in one way are no rounding
        message = (
            f"{seen}, right in float64; {alone}"
            if alone and wrong.sum() >= _SEVERAL and seen.startswith(_FORMULAS)
            else alone or seen
        )
        return Failure(
            quantity=item.kind,
            leaf=item.leaf,
            way=where.way,
            mode=where.mode,
            dtype=where.dtype,
            message="; ".join(part for part in (message, _outside(jump, got, wrong)) if part),
            index=tuple(int(i) for i in worst),
            got=float(got[worst]),
            wanted=float(truth.wanted[worst]),
            error_over_allowed=float(ratio[worst]),
            wrong=int(wrong.sum()),
            entries=got.size,
            pattern=seen,
        )

    def _rounding_alone(self, item: Item, where: Where, got: np.ndarray, truth: Truth, wrong: np.ndarray) -> str:
        """What to say of an array that is right in float64 and finite, but wrong in the arguments' precision."""
        formula = self.rows.get((item, Where(where.way, "float64", "float64")))
        if (
            where.dtype == "float64"
            or formula is None
            or formula.failure is not None
            or not np.isfinite(got[wrong]).all()
        ):
            return ""
        with np.errstate(all="ignore"):
            times = float(np.median(np.abs(got - truth.wanted)[wrong] / truth.expected[wrong]))
        return f"{where.dtype} rounding error {times:.2g} times that of the plain version"

    # ---- what an array comes to ----

    def _summary(self, item: Item) -> LeafSummary:
        evidence = self._numerical.get(item)
        decided, sees = self._known(item)
        finite = sees[np.isfinite(sees)]
        undecided = bool(evidence and evidence.undecided) or self._all_lost(item)
        in_few_bits = not decided.any() and self._decided_in_few_bits(item)
        verdict = RIGHT if (decided.any() or in_few_bits) and not undecided else UNDECIDED
        if any(row.failure is not None for (known, _), row in self.rows.items() if known == item):
            verdict = WRONG
        return LeafSummary(
            quantity=item.kind,
            leaf=item.leaf,
            shape=np.shape(decided),
            verdict=verdict,
            decided=int(decided.sum()),
            entries=int(decided.size),
            sees=float(np.median(finite)) if finite.size else float("inf"),
            note=self._note(item, verdict),
            in_few_bits=in_few_bits and verdict == RIGHT,
        )

    def _decided_in_few_bits(self, item: Item) -> bool:
        """Whether what is computed in 16 bits throughout is right as far as these show."""
        if not self._finest.get(item, 0.0) >= unit_roundoff(jnp.float16):
            return False
        evidence, ways = self._numerical.get(item), list(self._few_bits[item].values())
        known = np.logical_and.reduce(ways if evidence is None else [*ways, evidence.decided])
        return bool(known.any())

    def _known(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """Entry by entry: whether a fault of 1 % would have been seen, and the smallest fault that would."""
        evidence, beside = self._numerical.get(item), self._beside.get(item)
        if evidence is not None and item not in self._of_truth:
            return evidence.decided, evidence.sees
        decided = np.logical_and.reduce(list(self._decided[item].values()))
        sees = self._sees.get(item, np.full(decided.shape, np.inf))
        if evidence is not None:
            return decided & evidence.decided, np.fmax(sees, evidence.sees)
        if beside is not None and not beside.undecided:
            return decided | beside.decided, np.fmin(sees, beside.sees)
        return decided, sees

    def _all_lost(self, item: Item) -> bool:
        """Whether nothing that is not 0 is left of a derivative in the precision of the arguments."""
        _, lost, some = self._lost.get(item, ("", np.zeros(0, bool), np.zeros(0, bool)))
        return item.is_derivative and bool(lost.any()) and bool(lost[some].all())

    def not_judged(self) -> list[str]:
        """What was asked for and could not be judged, beside the leaves that could not be judged at all."""
        said = list(self._passed_over)
        for item, (dtype, lost, _) in self._lost.items():
            if item.is_derivative and lost.any():
                said.append(
                    f"{int(lost.sum())} of {lost.size} entries of the {item} in {dtype}, where it over- or underflows"
                )
        for (item, where), row in self.rows.items():
            if item in self._beside and where.mode in NUMERICAL:
                continue
            if item.is_derivative and row.comparison.entries and not row.comparison.comparisons + row.reached:
                said.append(f"the {item} in {where.mode}")
        return said

    def _note(self, item: Item, verdict: str) -> str:
        evidence = self._numerical.get(item)
        if evidence and evidence.undecided:
            return evidence.undecided
        rows = [row.comparison for (known, _), row in self.rows.items() if known == item]
        not_finite, out_of_range = sum(row.not_finite for row in rows), sum(row.out_of_range for row in rows)
        kinks = sum(row.kinks for row in rows)
        if not any(row.comparisons for row in rows):
            at_kinks = "every entry is at a kink" if kinks else "the plain version is finite in no entry"
            return "the truth is finite in no entry" if not_finite else at_kinks
        notes = []
        if self._all_lost(item):
            dtype = self._lost[item][0]
            return f"lost in {dtype}: a number on the way over- or underflows, in the plain version too"
        if item not in self._digits:  # it was differentiated numerically, and raised in every mode
            return ""
        digits = self._digits[item]
        if digits.kept < digits.available / 2 and verdict != WRONG:
            zero = verdict == RIGHT and not (self._sees[item] < 1).any()
            kept = f"ill-conditioned here: about {max(digits.kept, 0.0) + 0.0:.0f} digits survive in {digits.dtype}"
            notes.append("zero up to rounding" if zero else kept)
        elif (own := self._own[item]).kept < min(own.available / 2, digits.kept - 1) and verdict == RIGHT:
            # a right formula that cancels
            survive = f"about {max(own.kept, 0.0) + 0.0:.0f} digits survive in {own.dtype}"
            notes.append(f"ill-conditioned here: {survive}, in the plain version {digits.kept:.0f}")
        if not_finite:
            notes.append(f"{not_finite} comparisons left out: the truth is not finite there")
        if out_of_range:
            notes.append(f"{out_of_range} left out: the plain version overflows there")
        if kinks and evidence:
            notes.append(f"{kinks} directions left out at kinks: the slope is between those on either side")
        elif kinks:
            notes.append(f"{kinks} left out at kinks, where the reference takes another of the slopes")
        return "; ".join(notes)


def _outside(jump: Jump | None, got: np.ndarray, wrong: np.ndarray) -> str:
    """Where wrong entries are at a kink: how far their slopes go."""
    if jump is None:
        return ""
    with np.errstate(all="ignore"):
        aside = np.maximum(jump.low - got, got - jump.high)
        at_kink = (
            wrong & np.isfinite(got) & (jump.high - jump.low > _BESIDE * aside)
        )  # else it is the rounding of the truth
    if not at_kink.any():
        return ""
    index = tuple(int(i) for i in np.argwhere(at_kink)[0])
    where = f" at [{', '.join(map(str, index))}]" if index else ""
    return f"{got[index]:.6g}{where} is outside the interval [{jump.low[index]:.6g}, {jump.high[index]:.6g}]{_KINK}"


def _apart(got: np.ndarray, truth: Truth) -> float:
    compared = truth.comparable & np.isfinite(got)
    size = np.max(np.abs(truth.wanted), initial=0.0, where=compared)
    with np.errstate(invalid="ignore"):  # inf - inf, where nothing is compared
        apart = np.abs(got - truth.wanted)
    return float(np.max(apart, initial=0.0, where=compared) / size) if size > 0 else 0.0


def _reached(got: np.ndarray, truth: Truth) -> int:
    if truth.usual is None:
        return 0
    with np.errstate(all="ignore"):
        near = np.isfinite(truth.usual) & (np.abs(got - truth.wanted) <= truth.usual)
    return int((near & ~truth.comparable).sum())


def _ratio(got: np.ndarray, truth: Truth) -> np.ndarray:
    """Error over allowed error; 0 for what is excused, infinite for what is not finite."""
    with np.errstate(all="ignore"):
        error = np.abs(got - truth.wanted)
        ratio = np.where(error == 0, 0.0, error / truth.allowed)
    return np.where(truth.excused & ~np.isfinite(got), 0.0, np.where(np.isnan(ratio), np.inf, ratio))


def _digits(truth: Truth, errors: np.ndarray, dtype: str) -> _Digits:
    available = float(-np.log10(2 * unit_roundoff(jnp.dtype(dtype))))
    wanted, expected = np.abs(truth.wanted[truth.comparable]), errors[truth.comparable]
    top = max(float(np.max(wanted, initial=0.0)), float(np.max(expected, initial=0.0)))
    if top == 0 or not expected.any():
        return _Digits(float("inf"), available, dtype)
    size, error = np.linalg.norm(wanted / top), np.linalg.norm(expected / top)
    return _Digits(float(-np.log10(error / size)) if size > 0 else 0.0, available, dtype)

"""What a check found, for people (`str(report)`) and for programs (`report.to_json()`)."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

RIGHT, WRONG, UNDECIDED = "right", "wrong", "undecided"
_NAME = 32  # columns of a terminal
_COLOURS = {RIGHT: "green", WRONG: "red", UNDECIDED: "yellow"}
_ALIGNED = ("left", "left", "right", "right", "right", "left")  # the columns of the table
NUMERICAL = ("central differences", "complex step", "forward mode")
_EXACT = {
    "adjoint": "<J v, w> = <v, J^T w> for {} directions v per leaf (normal, Rademacher), J v in forward mode:",
    "linearity": "linearity in the cotangent, for {} others (scaled, negated, a sum):",
    "independence": "independence of what has no influence, for {} parts of the outputs:",
}


@dataclasses.dataclass(frozen=True)
class Failure:
    """One array that is not what it should be in one mode, or a mode that could not run (then `message` says why).

    >>> wrong = fdl.Op(lambda x: x**2, lambda x: (x * x, x), lambda x, dy: (-2 * x * dy,), name="square")
    >>> failure = fdl.check.gradients(wrong, jnp.float32([3]), modes="quick").failures[0]
    >>> failure.quantity, failure.path
    ('gradient', 'x[0]')
    """

    quantity: str  # "value", "gradient", "second derivative"; "error" if something was raised
    leaf: str  # "params['w']"
    way: str  # of a layer: "apply", "backward", "backprop"; else empty
    mode: str  # "float64", "eager", "jit", "vmap", ...
    dtype: str
    message: str
    index: tuple[int, ...] = ()  # the worst entry
    got: float = math.nan
    wanted: float = math.nan
    error_over_allowed: float = math.nan
    wrong: int = 0
    entries: int = 0
    pattern: str = ""
    diagnosis: str = ""  # the wrong term: "100 % of the error in dx is a missing path through `mu`, coefficient -1.00"

    @property
    def path(self) -> str:
        """The worst entry as a user would write it: "params['w'][2, 3]"."""
        return path_of(self.leaf, self.index)

    def __str__(self) -> str:
        if self.quantity == "error":
            return f"{self.place}: {self.message}"
        return (
            f"{self.quantity} of {self.path} in {self.place}: got {self.got:.9g}, wanted {self.wanted:.9g}, "
            f"{_times(self.error_over_allowed)} the allowed error; {self.wrong} of {self.entries} {self._counted} wrong"
            + (f" ({self.message})" if self.message else "")
        )

    @property
    def _counted(self) -> str:
        return "directional derivatives" if self.mode in NUMERICAL else "entries"

    @property
    def place(self) -> str:
        """Where it failed: "apply vmap (float32)"."""
        return _place(self.way, self.mode, self.dtype)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One array in one mode, summed over the seeds and examples it was compared at."""

    quantity: str
    leaf: str
    way: str
    mode: str
    dtype: str
    entries: int  # in the array
    comparisons: int  # of entries
    not_finite: int  # left out: the truth is not finite there
    out_of_range: int  # left out: the plain version, or the truth, does not fit into the dtype there
    kinks: int  # left out: candidate and reference take different slopes at a kink
    wrong: int
    worst: float  # the largest error, as a share of what is allowed


@dataclasses.dataclass(frozen=True)
class LeafSummary:
    """What is known about one array after all modes."""

    quantity: str
    leaf: str
    shape: tuple[int, ...]
    verdict: str
    decided: int  # entries in which an error of 1 % would have been seen
    entries: int
    sees: float  # the relative error that would have been seen in a typical entry
    note: str
    in_few_bits: bool = (
        False  # right as far as 16 bits show, in which it is computed: no fault of 1 % would have been seen
    )


@dataclasses.dataclass(frozen=True)
class Kink:
    """An entry at which the slope jumps, and what was returned there."""

    leaf: str
    way: str
    index: tuple[int, ...]
    what: str  # "slope" of the sum of the outputs; "gradient" for the random cotangents, where the slope hides the kink
    at: float  # the argument
    low: float
    high: float
    got: float
    inside: bool

    def __str__(self) -> str:
        place = path_of(self.leaf, self.index)
        by = f" by {self.way}" if self.way else ""
        return (
            f"at {place} = {self.at:.6g} the {self.what} jumps from {self.low:.6g} to {self.high:.6g}; "
            f"{self.got:.6g} returned{by}, {'inside' if self.inside else 'outside'}"
        )


@dataclasses.dataclass(frozen=True)
class ExactTest:
    """One exact test of the gradient of one leaf, in float64 (see `fdl.check.adjoint`)."""

    test: str  # "adjoint", "linearity", "independence"
    leaf: str
    way: str
    seeds: int  # directions, other cotangents, or parts of the outputs
    failed: int  # of them
    worst: float  # the largest error, as a share of what is allowed
    detection_probability: (
        float  # that any fault in one entry would have been seen; 0 where faults of one kind alone are
    )
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """The verdict on a candidate and the evidence for it. Printed, it reads as a page.

    >>> report = fdl.check.gradients(fdl.ops.tanh, jnp.float32([0.5, -2]), modes="quick")
    >>> report.ok, report.comparisons > 0, report.failures
    (True, True, ())
    """

    candidate: str
    reference: str
    verdict: str
    sentence: str
    leaves: tuple[LeafSummary, ...]
    comparisons_by_mode: tuple[Comparison, ...]
    failures: tuple[Failure, ...]
    not_differentiated: tuple[str, ...]
    notes: tuple[str, ...]
    kinks: tuple[Kink, ...] = ()
    exact_tests: tuple[ExactTest, ...] = ()
    not_judged: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Right; neither wrong nor undecided. What was asked for beside that and has nothing to be judged by (another dtype in
        which the reference does not run, second derivatives that there are none of) is named in `not_judged` and `sentence`."""
        return self.verdict == RIGHT

    @property
    def comparisons(self) -> int:
        """How many entries were compared, over all arrays, modes and seeds."""
        return sum(row.comparisons for row in self.comparisons_by_mode)

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.mode for row in self.comparisons_by_mode))

    @property
    def cotangents(self) -> int:
        """At how many random cotangents a mode was compared: normal, and Rademacher (signs) every second one."""
        tried = (
            (row.comparisons + row.not_finite + row.out_of_range + row.kinks) // row.entries
            for row in self.comparisons_by_mode
            if row.entries and row.mode not in NUMERICAL
        )
        return max(tried, default=0)

    @property
    def detection_probability(self) -> float:
        """The probability that a fault in one entry of a gradient, any of them alike, would have been seen.

        The fault: the entry is off by 1 % of itself, whatever the cotangent, at these arguments. An entry so small that this is
        less than 1e-6 of its array's natural size (see `natural_size`), 0 included, counts if an error of that would be seen.
        """
        decided, entries = self._decided()
        return decided / entries if entries else 0.0

    def _decided(self) -> tuple[int, int]:
        rows = [leaf for leaf in self.leaves if leaf.quantity != "value"]
        return sum(leaf.decided for leaf in rows), sum(leaf.entries for leaf in rows)

    def to_json(self, *, indent: int | None = None) -> str:
        """Strict JSON: what is not finite is written as a string, "nan" or "inf"."""
        fields = {
            "candidate": self.candidate,
            "reference": self.reference,
            "verdict": self.verdict,
            "ok": self.ok,
            "sentence": self.sentence,
            "comparisons": self.comparisons,
            "detection_probability": self.detection_probability,
            "cotangents": self.cotangents,
            "modes": self.modes,
            "leaves": [dataclasses.asdict(leaf) for leaf in self.leaves],
            "comparisons_by_mode": [dataclasses.asdict(row) for row in self.comparisons_by_mode],
            "failures": [dataclasses.asdict(failure) | {"path": failure.path} for failure in self.failures],
            "not_differentiated": self.not_differentiated,
            "not_judged": self.not_judged,
            "notes": self.notes,
            "exact_tests": [dataclasses.asdict(test) for test in self.exact_tests],
            "kinks": [dataclasses.asdict(kink) | {"text": str(kink)} for kink in self.kinks],
        }
        return json.dumps(_strict(fields), indent=indent, allow_nan=False)

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.sentence}", ""]
        lines += [f"  {failure}" for failure in self._telling_failures()]
        if self.failures:
            lines.append("")
        if self.leaves:
            lines += _plain_table(self._rows())
        lines += [f"  {line}" if line else "" for line in self._closing()]
        return "\n".join(lines).rstrip()

    def __rich__(self) -> Any:
        """The same page for `rich.print`: in colour, and the table as wide as the terminal."""
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        colour = _COLOURS[self.verdict]
        parts: list[Any] = [Text.assemble((self.verdict, f"bold {colour}"), f": {self.sentence}")]
        parts += [Padding(Text(failure), (1, 0, 0, 2)) for failure in self._telling_failures()]
        if self.leaves:
            parts += [_rich_table(self._rows())]
            parts += [
                Padding(Text(f"{row.cells[0]}: {row.note}", "dim"), (0, 0, 0, 2)) for row in self._rows() if row.note
            ]
        parts += [Padding(Text(line), (0, 0, 0, 2)) for line in self._closing() if line]
        return Group(*parts)

    def _rows(self) -> list["_Row"]:
        """The table, a row for each array under a row of titles."""
        titles = ("", "shape", "compared", "worst error / allowed", "sees faults of", "modes")
        rows = [_Row("", titles, "")]
        for leaf in self.leaves:
            own = [row for row in self.comparisons_by_mode if (row.quantity, row.leaf) == (leaf.quantity, leaf.leaf)]
            worst = max((row.worst for row in own if not math.isnan(row.worst)), default=math.nan)
            cells = (
                f"{leaf.quantity} of {leaf.leaf}",
                str(list(leaf.shape)),
                f"{sum(row.comparisons for row in own):,}",
                "-" if math.isnan(worst) else f"{worst:.2g}",
                "-" if not math.isfinite(leaf.sees) else f"{leaf.sees:.0e}",
                modes_and_ways(own),
            )
            rows.append(_Row(leaf.verdict, cells, leaf.note))
        return rows

    def _closing(self) -> list[str]:
        """What is said below the table."""
        lines = []
        if self.verdict != WRONG and self.comparisons:
            decided, entries = self._decided()
            draws = "the random cotangent (normal)"
            if self.cotangents > 1:
                draws = f"one of the {self.cotangents} random cotangents (normal, Rademacher) or more"
            lines += [
                "",
                f"A fault of 1 % in one entry would have been seen with probability {_share(self.detection_probability)}.",
                f"That is the share of gradient entries, {decided:,} of {entries:,}, in which an error of 1 % of the entry (or of "
                f"1e-6 of the natural size of its array, if that is more) is above the allowed one for {draws}, at these arguments.",
            ]
        if self.not_differentiated:
            lines.append(f"Not differentiated: {', '.join(self.not_differentiated)}.")
        if self.not_judged:
            lines.append(f"Not judged: {', '.join(self.not_judged)}.")
        return lines + self._exact_lines() + self._kink_lines() + [f"Note: {note}." for note in self.notes]

    def _exact_lines(self) -> list[str]:
        """One line for each kind of exact test, over all leaves."""
        lines = []
        for name in dict.fromkeys(test.test for test in self.exact_tests):
            tests = [test for test in self.exact_tests if test.test == name]
            failed = list(dict.fromkeys(test.leaf for test in tests if test.failed))
            seeds, least = max(test.seeds for test in tests), min(test.detection_probability for test in tests)
            outcome = f"failed for {', '.join(failed[:3])}{', ...' if len(failed) > 3 else ''}" if failed else "held"
            probability = ""
            if name == "adjoint":  # the others see faults of one kind alone
                probability = (
                    f"; it sees a fault in one entry with probability {_share(least)}{'' if least == 1 else ' or more'}"
                )
            notes = list(dict.fromkeys(test.note for test in tests if test.note))
            said = "".join(f"; {note}" for note in notes[:3])
            lines.append(f"Exact in float64: {_EXACT[name].format(seeds)} {outcome}{probability}{said}.")
        return lines

    def _kink_lines(self, limit: int = 3) -> list[str]:
        """The first kinks; those at which the returned value lies outside of the interval come first."""
        ordered = sorted(self.kinks, key=lambda kink: kink.inside)
        more = [f"Kinks: {len(ordered) - limit} more."] if len(ordered) > limit else []
        return [f"Kink: {kink}." for kink in ordered[:limit]] + more

    def _telling_failures(self, limit: int = 8) -> list[str]:
        """For every array its first failure, with the other modes in which it fails too."""
        groups: dict[tuple[str, str], list[Failure]] = {}
        for failure in self.failures:
            subject = failure.message if failure.quantity == "error" else failure.leaf
            groups.setdefault((failure.quantity, subject), []).append(failure)
        texts = []
        for group in groups.values():
            also = ", ".join(failure.place for failure in group[1:])
            said = next((f"\n      {failure.diagnosis}" for failure in group if failure.diagnosis), "")
            texts.append(f"{group[0]}" + (f"; also in {also}" if also else "") + said)
        more = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
        return texts[:limit] + more


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of the table; `cells` go with `_ALIGNED`. verdict: empty in the row of titles."""

    verdict: str
    cells: tuple[str, ...]
    note: str


def _plain_table(rows: list[_Row]) -> list[str]:
    table = [(f"{row.verdict}  {row.cells[0]}", *row.cells[1:]) if row.verdict else row.cells for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row, cells in zip(rows, table, strict=True):
        aligned = [
            cell.ljust(width) if side == "left" else cell.rjust(width)
            for cell, width, side in zip(cells, widths, _ALIGNED, strict=True)
        ]
        lines.append(("  " + "  ".join(aligned)).rstrip())
        if row.note:
            lines.append(f"      {row.note}")
    return lines


def _rich_table(rows: list[_Row]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("")
    for place, (title, side) in enumerate(zip(rows[0].cells, _ALIGNED, strict=True)):
        # the modes are folded rather than the names of arrays
        in_one_line = place == 0 and max(len(row.cells[0]) for row in rows) <= _NAME
        table.add_column(title, justify=side, overflow="fold", no_wrap=in_one_line)
    for row in rows[1:]:
        table.add_row(Text(row.verdict, style=_COLOURS[row.verdict]), *map(Text, row.cells))
    return table


def modes_and_ways(rows: Sequence[Comparison]) -> str:
    """The modes, and for a layer the ways through its backward: "eager, jit, vmap by apply, backward"."""
    modes, ways = dict.fromkeys(row.mode for row in rows), dict.fromkeys(row.way for row in rows if row.way)
    return ", ".join(modes) + (f" by {', '.join(ways)}" if ways else "")


def path_of(leaf: str, index: Sequence[int]) -> str:
    """An entry as a user would write it: "params['w'][2, 3]"."""
    return leaf + (f"[{', '.join(map(str, index))}]" if len(index) else "")


def _place(way: str, mode: str, dtype: str) -> str:
    place = f"{way} {mode}".strip()
    return place if dtype in ("", mode) else f"{place} ({dtype})"


def _times(ratio: float) -> str:
    return "infinitely many times" if math.isinf(ratio) else f"{ratio:.3g} times"


def _share(p: float) -> str:
    return "1" if p == 1 else f"{min(p, 0.9999):.4g}"


def _strict(x: Any) -> Any:
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    if isinstance(x, dict):
        return {key: _strict(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_strict(value) for value in x]
    return x

"""What a check found, for people (`str(report)`) and for programs (`report.to_json()`)."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

RIGHT, WRONG, UNDECIDED = "right", "wrong", "undecided"


@dataclasses.dataclass(frozen=True)
class Failure:
    """One array that is not what it should be in one mode, or a mode that could not run (then `message` says why)."""

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
        return self.leaf + (f"[{', '.join(map(str, self.index))}]" if self.index else "")

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
        return "directional derivatives" if self.mode == "central differences" else "entries"

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


@dataclasses.dataclass(frozen=True)
class Report:
    """The verdict on a candidate and the evidence for it. Printed, it reads as a page."""

    candidate: str
    reference: str
    verdict: str
    sentence: str
    leaves: tuple[LeafSummary, ...]
    comparisons_by_mode: tuple[Comparison, ...]
    failures: tuple[Failure, ...]
    not_differentiated: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Right; neither wrong nor undecided."""
        return self.verdict == RIGHT

    @property
    def comparisons(self) -> int:
        """How many entries were compared, over all arrays, modes and seeds."""
        return sum(row.comparisons for row in self.comparisons_by_mode)

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.mode for row in self.comparisons_by_mode))

    @property
    def detection_probability(self) -> float:
        """The probability that a 1 % fault in one entry of the gradient, any of them, would have been seen."""
        rows = [leaf for leaf in self.leaves if leaf.quantity != "value"]
        entries = sum(leaf.entries for leaf in rows)
        return sum(leaf.decided for leaf in rows) / entries if entries else 0.0

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
            "modes": self.modes,
            "leaves": [dataclasses.asdict(leaf) for leaf in self.leaves],
            "comparisons_by_mode": [dataclasses.asdict(row) for row in self.comparisons_by_mode],
            "failures": [dataclasses.asdict(failure) | {"path": failure.path} for failure in self.failures],
            "not_differentiated": self.not_differentiated,
            "notes": self.notes,
        }
        return json.dumps(_strict(fields), indent=indent, allow_nan=False)

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.sentence}", ""]
        for failure in self._telling_failures():
            lines.append(f"  {failure}")
        if self.failures:
            lines.append("")
        if self.leaves:
            lines += _table(self.leaves, self.comparisons_by_mode)
        if self.verdict != WRONG and self.comparisons:
            lines += [
                "",
                f"  A fault of 1 % in one entry would have been seen with probability {_share(self.detection_probability)}.",
            ]
        if self.not_differentiated:
            lines.append(f"  Not differentiated: {', '.join(self.not_differentiated)}.")
        lines += [f"  Note: {note}." for note in self.notes]
        return "\n".join(lines).rstrip()

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


def _table(leaves: tuple[LeafSummary, ...], comparisons: tuple[Comparison, ...]) -> list[str]:
    rows = [["", "shape", "compared", "worst error / allowed", "sees faults of", "modes"]]
    for leaf in leaves:
        own = [row for row in comparisons if (row.quantity, row.leaf) == (leaf.quantity, leaf.leaf)]
        worst = max((row.worst for row in own if not math.isnan(row.worst)), default=math.nan)
        rows.append(
            [
                f"{leaf.verdict}  {leaf.quantity} of {leaf.leaf}",
                str(list(leaf.shape)),
                f"{sum(row.comparisons for row in own):,}",
                "-" if math.isnan(worst) else f"{worst:.2g}",
                "-" if not math.isfinite(leaf.sees) else f"{leaf.sees:.0e}",
                modes_and_ways(own),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row, note in zip(rows, ["", *(leaf.note for leaf in leaves)], strict=True):
        cells = [
            cell.ljust(w) if i in (0, 1, 5) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
        if note:
            lines.append(f"      {note}")
    return lines


def modes_and_ways(rows: Sequence[Comparison]) -> str:
    """The modes, and for a layer the ways through its backward: "eager, jit, vmap by apply, backward"."""
    modes, ways = dict.fromkeys(row.mode for row in rows), dict.fromkeys(row.way for row in rows if row.way)
    return ", ".join(modes) + (f" by {', '.join(ways)}" if ways else "")


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

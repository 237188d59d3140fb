"""A line of the table: what one variant of one work took, or what was counted."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# What sets the exit code: a result that is not the reference's, or fdl in the wrong; and what could not be run.
FAILING = ("unequal", "failed")

_not_stored: Any = {"stored": False}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to run: `full` adds the larger cases of a benchmark, `repeats` is the number of rounds."""

    full: bool = False
    repeats: int = 21


@dataclasses.dataclass
class Row:
    """`status` is "timed", "measured", "equal", "not installed", what else a benchmark that does not time says of a peer,
    "unequal" or "failed"; the last two set the exit code.

    A timed row has `seconds` per unit and what belongs to it. Any other has `measured`, a few words such as "236 of 236
    caught", and `wanted`, the target in words; `figures` are its numbers by name, for who makes a table of them. `ratio` is
    against fdl, `target` the least ratio, `reached` whether target or `wanted` is. A peer's shortfall is a finding: no
    `reached`."""

    work: str
    unit: str
    variant: str
    peer: str
    status: str
    note: str = ""
    measured: str = ""
    wanted: str = ""
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    difference: float | None = None
    samples: list[float] = dataclasses.field(
        default_factory=list, metadata=_not_stored
    )  # seconds per unit, every round
    cpu: list[float] = dataclasses.field(default_factory=list, metadata=_not_stored)  # CPU time over elapsed time
    crowd: list[float] = dataclasses.field(default_factory=list, metadata=_not_stored)  # the CPU's share of others
    rounds: int | None = None
    seconds: float | None = None
    quartiles: list[float] | None = None  # of the seconds
    spread: float | None = None
    cpu_per_wall: float | None = None
    others: float | None = None
    ratio: float | None = None
    ratio_quartiles: list[float] | None = None
    target: float | None = None
    reached: bool | None = None

    @property
    def missed(self) -> bool:
        return self.reached is False


def judged(
    work: str, measured: str, right: bool, wanted: str = "", *, unit: str = "", note: str = "", variant: str = "fdl"
) -> Row:
    """A row of fdl's that is right, or sets the exit code."""
    status = "equal" if right else "unequal"
    return Row(work, unit, variant, "fdl", status, note, measured, wanted, reached=right)


def memory_rows(
    work: str, used: Mapping[str, float], targets: Mapping[str, float] | None = None, note: str = ""
) -> list[Row]:
    """The temporary memory, in bytes, of each form, against that of the first, fdl's; `targets` are the least ratios."""
    rows, base = [], next(iter(used.values()))
    for form, size in used.items():
        row = Row(f"{work}, memory", "call", form, form, "measured", note, f"{size / 2**20:.1f} MiB temporary")
        row.figures, row.ratio = {"bytes": size}, size / base if base else None
        row.target = (targets or {}).get(form)
        if row.target is not None and row.ratio is not None:
            row.reached = row.ratio >= row.target
        rows.append(row)
    return rows


def time_text(seconds: float) -> str:
    """Three digits and a unit: 12.3 us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"

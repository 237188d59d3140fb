"""Rows as text: one table for all benchmarks."""

from collections.abc import Sequence

from benchmarks._rows import Row, time_text

# Up to this share of the machine taken by others, medians and ratios repeat within the spreads shown.
QUIET = 0.05

HEAD = ("work", "variant", "measured", "x fdl", "target", "reached", "spread", "cpu/wall", "note")
WIDEST = 44  # a cell that is wider moves its own line only


def cells(row: Row) -> tuple[str, ...]:
    """The line of a row, in the order of the head."""
    note = (row.note.strip().splitlines() or [""])[-1]
    spread = "" if row.spread is None else f"{100 * row.spread:.0f} %"
    busy = "" if row.cpu_per_wall is None else f"{row.cpu_per_wall:.2f}"
    return (row.work, row.variant, measure(row), ratio_text(row), target_text(row), reached(row), spread, busy, note)


def measure(row: Row) -> str:
    """What was measured: a time per unit, other words, or why there is nothing."""
    if row.seconds is not None:
        return f"{time_text(row.seconds)}{f'/{row.unit}' if row.unit else ''}"
    return row.measured or row.status


def ratio_text(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio:.2f}"


def target_text(row: Row) -> str:
    return row.wanted if row.target is None else f">= {row.target:g}"


def reached(row: Row) -> str:
    return "" if row.reached is None else "yes" if row.reached else "NO"


def table(rows: Sequence[Row]) -> str:
    """All rows. A work is named once, in its first line."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max((len(line[i]) for line in lines if len(line[i]) <= WIDEST), default=0) for i in range(len(HEAD))]
    text, previous = [], ""
    for line in lines:
        shown = ("" if line[0] == previous else line[0], *line[1:])
        previous = line[0]
        text.append("  ".join(cell.ljust(width) for cell, width in zip(shown, widths, strict=True)).rstrip())
    return "\n".join(text)


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """What to know before one believes the table: the works that were measured while others used the machine."""
    busy = {row.work: row.others for row in rows if row.others is not None and row.others > QUIET}
    return [
        f"{work}: other processes took {100 * share:.0f} % of the CPU meanwhile; measure again on a quiet machine"
        for work, share in busy.items()
    ]

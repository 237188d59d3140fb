"""The rows of benchmarks that count: what is measured is a field, and what fails says so."""

import pytest

from benchmarks import long_run, mutation, readers, stream
from benchmarks._harness import Settings, memory_rows
from benchmarks.mutation import Counted


@pytest.mark.parametrize("survivors", [[], ["dx = 2 dy"]])
def test_mutants_are_summed_and_survivors_shown(monkeypatch, survivors):
    counted = [Counted("a", 3, 1, [], 0.1), Counted("b", 4, 0, survivors, 0.2)]
    monkeypatch.setattr(mutation, "count", lambda full: iter(counted))
    together, *others = mutation.run(Settings())
    assert together.measured == f"7 of {7 + len(survivors)} killed" and together.figures["equivalent"] == 1
    assert together.status == ("unequal" if survivors else "equal") and len(others) == len(survivors)
    assert all(row.work == "mutants of b" and row.missed and row.note == "dx = 2 dy" for row in others)


def test_files_are_counted():
    answers = [readers.Answer("refused", 0.1, 5), readers.Answer("read", 0.3, 2)]
    row = readers._row("mutated", "csv", answers)
    assert (row.status, row.measured) == ("equal", "1 of 2 refused, 1 read") and row.figures["seconds"] == 0.3
    row = readers._row("malformed", "csv", answers, "refused")
    assert (row.status, row.measured, row.note) == ("unequal", "1 of 2 refused", "read")


@pytest.mark.parametrize(("loop", "reached"), [(1.5, True), (1.6, False)])
def test_overlap_below_half_is_a_missed_target(loop, reached):
    row = stream._row("from memory", stream.Times(1.0, 1.0, loop))
    assert (row.status, row.reached) == ("measured", reached) and row.figures["overlap"] == pytest.approx(2 - loop)


@pytest.mark.parametrize(
    ("last", "reached"), [((9, 1.1, 7 << 20), True), ((9, 1.3, 0), False), ((9, 1.0, 9 << 20), False)]
)
def test_growth_is_a_missed_target(monkeypatch, last, reached):
    found = {1_000: (1, 1.0, 0), 10_000: (2, 1.0, 0), 100_000: last}
    monkeypatch.setattr(long_run, "result_of", lambda *_: found)
    *lengths, growth = long_run.run(Settings())
    assert [row.figures["epochs"] for row in lengths] == [1, 2, 9] and growth.reached is reached


def test_memory_is_against_the_first():
    rows = memory_rows("work", {"fdl": 2.0**20, "peer": 3 * 2.0**20}, {"peer": 4.0})
    assert [(row.work, row.measured, row.ratio, row.reached) for row in rows] == [
        ("work, memory", "1.0 MiB temporary", 1.0, None),
        ("work, memory", "3.0 MiB temporary", 3.0, False),
    ]

"""The trap table: fdl is right in every row, and the judge lets nothing pass."""

import math

import numpy as np
import pytest

from benchmarks import traps
from benchmarks.traps import LOUD, TRAPS, Answer, Trap, cell, judge, rows_of, wanted

LOSS, WRONG, OTHER = "cross-entropy, integer label", "WRONG", "another choice"
INF, NAN = math.inf, math.nan


@pytest.fixture(scope="module")
def calls():
    return traps.fdl()


@pytest.fixture
def right():
    """What the rows say."""
    loud = Answer(NAN, (NAN,))
    return [loud if t.value == LOUD else Answer(t.value, tuple(np.ravel(t.gradient).tolist())) for t in TRAPS]


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: f"{trap.loss}: {trap.name}")
def test_fdl_is_right(calls, trap):
    answer = traps.ask(calls, trap)
    assert judge(trap, answer) == ("ok", "ok"), answer


def test_every_row_is_another_input_with_a_reason_and_is_asked_of_fdl():
    assert len({(trap.loss, trap.name) for trap in TRAPS}) == len(TRAPS)
    assert all(trap.why for trap in TRAPS)
    assert {trap.loss for trap in TRAPS} == set(traps.fdl())
    assert all((trap.gradient is None) == (trap.value == LOUD) for trap in TRAPS)


def trap(value, gradient, choice=()):
    return Trap("x", [0.0, 1.0], 0, value, gradient, "", choice, loss=LOSS)


@pytest.mark.parametrize(
    ("wanted", "answer", "marks"),
    [
        (trap(2.0, [1.0, 0.0]), Answer(2.00001, (1.0, 1e-9)), ("ok", "ok")),
        (trap(2.0, [1.0, 0.0]), Answer(2.001, (1.0, 1e-5)), (WRONG, WRONG)),
        (trap(5e-9, [1e-12, 1.0]), Answer(0.0, (0.0, 1.0)), (WRONG, WRONG)),
        (trap(INF, [-INF, 1.0]), Answer(INF, (-INF, 1.0)), ("ok", "ok")),
        (trap(INF, [-INF, 1.0]), Answer(1e5, (INF, 1.0)), (WRONG, WRONG)),
        (trap(0.0, [0.0, 0.0]), Answer(NAN, (NAN, 0.0)), (WRONG, WRONG)),
        (trap(0.0, [0.0, 0.0]), Answer(0.0, (0.0,)), ("ok", WRONG)),
        (trap(0.0, [0.0, 0.0]), Answer(NAN, (), "ValueError: no"), (WRONG, WRONG)),
        (trap(0.0, [0.0, 0.0], ("gradient",)), Answer(0.5, (1.0, 0.0)), (WRONG, OTHER)),
        (trap(0.0, [0.0, 0.0], ("value", "gradient")), Answer(0.5, (NAN, 0.0)), (OTHER, WRONG)),
        (trap(LOUD, None), Answer(NAN, (NAN, NAN)), ("ok", "ok")),
        (trap(LOUD, None), Answer(INF, (0.0, 0.0)), (WRONG, WRONG)),
        (trap(LOUD, None), Answer(NAN, (), "IndexError: 3"), ("ok", "ok")),
        (trap(0.0, [0.0, 0.0]), Answer(None), ("-", "-")),
    ],
)
def test_judge(wanted, answer, marks):
    assert judge(wanted, answer) == marks


def test_cells_show_what_is_wrong():
    assert cell(trap(0.5, [1.0, 0.0]), Answer(0.5, (1.0, 0.0))) == "ok"
    assert cell(trap(0.5, [1.0, 0.0]), Answer(NAN, (1.0, 0.0))) == "**NaN**; [1, 0]"
    assert cell(trap(1e-4, [0.0, 0.0]), Answer(1.0001e-4, (0.0, 0.0))) == "**0.00010001**; all 0"
    assert cell(trap(0.5, [0.0, 0.0], ("gradient",)), Answer(0.5, (1.0, 0.0))) == "0.5; [1, 0] (choice)"
    assert cell(trap(LOUD, None), Answer(NAN, (), "IndexError: 3")) == "ok (IndexError)"


def test_a_wrong_answer_of_fdl_fails_and_one_of_a_peer_does_not(right):
    bad = [Answer(-1.0, answer.gradient) for answer in right]
    rows = rows_of({"fdl": bad, "peer": bad, "absent": "no such library", "broken": "failed: at once"})
    of = lambda peer: {row.status for row in rows if row.peer == peer}
    assert of("fdl") == {"unequal"} and of("peer") >= {"wrong"} and not of("peer") & {"unequal", "failed"}
    assert of("absent") == {"not installed"} and of("broken") == {"failed"}
    assert {row.status for row in rows_of({"fdl": right})} == {"ok"}


def test_a_row_says_what_was_answered_and_fdls_what_is_right_and_why(right):
    rows = rows_of({"fdl": right, "peer": [Answer(None)] * len(TRAPS)})
    assert len(rows) == 2 * len(TRAPS)
    for t, mine, theirs in zip(TRAPS, rows[::2], rows[1::2], strict=True):
        assert (mine.work, mine.measured, mine.note, mine.reached) == (f"{t.loss}: {t.name}", "ok", t.why, True)
        assert mine.wanted == wanted(t) and (theirs.status, theirs.measured, theirs.reached) == ("-", "-", None)
        assert ": " not in t.loss  # what stands before it is the loss

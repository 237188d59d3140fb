"""What is planted in a case of the zoo has words, and a diagnosis is held against them."""

import pytest

from benchmarks import checkers
from benchmarks.checkers import Answer
from benchmarks.zoo import WRONG
from benchmarks.zoo.case import NAMES

SAMPLE = (
    "tanh: sign",
    "softmax: sum over the batch",
    "embedding: largest of the duplicates",
    "rnn: cut every second step",
)


def test_every_wrong_case_has_words_and_they_are_not_nothing():
    for case in WRONG:
        assert all(case.names or NAMES[case.term]), case.name
        assert not case.is_named_by("") and not case.is_named_by("dx is wrong"), case.name


def test_words_of_one_fault_do_not_name_another():
    case = next(case for case in WRONG if case.name == "batch norm: mean taken as constant")
    assert case.is_named_by("100 % of the error in dx is a missing path through `mean`, coefficient -1.00")
    assert not case.is_named_by("100 % of the error in dx is a missing path through `var`, coefficient -1.00")
    assert not case.is_named_by(
        "100 % of the error in dx is the path through `mean` with the wrong sign, coefficient -2.00"
    )


@pytest.mark.parametrize("name", SAMPLE)
def test_what_was_planted_is_named_and_scored(name):
    case = next(case for case in WRONG if case.name == name)
    answer = checkers.one(checkers.fdl("quick"), case, 0)
    assert answer.verdict == "wrong" and answer.named
    assert checkers.score([answer], {name: True}).named == 1


def test_only_a_caught_case_counts_as_named():
    answers = [Answer("a", 0, "right", 0.1, "", True), Answer("a", 1, "wrong", 0.1, "", False)]
    assert checkers.score(answers, {"a": True}).named == 0


def test_a_tool_without_diagnoses_names_nothing():
    case = next(case for case in WRONG if case.name == "tanh: sign")
    assert not checkers.one(checkers.check_grads(), case, 0).named

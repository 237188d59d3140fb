"""The table of features: fdl's column is true, the others' where they are installed; and what is not true is noticed."""

import importlib.metadata
import types

import pytest

from benchmarks import features
from benchmarks.features import FEATURES, PEERS, Peer, by_hand, has, no, partly, problem

FDL = PEERS[0]


@pytest.fixture(scope="module")
def names():
    return features.public_names(FDL)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.what)
def test_fdl_has_what_the_table_says(feature, names):
    assert problem(FDL, feature.entries[0], names) == ""


@pytest.mark.parametrize("peer", PEERS[1:], ids=lambda peer: peer.title)
def test_a_peer_has_what_the_table_says(peer):
    for package in peer.packages:
        pytest.importorskip(package)
    row = features._row(peer)
    assert row.status == "equal", row.note


def test_what_is_not_true_is_noticed(names):
    wrong = (
        has("layers.there_is_no_such_thing"),
        partly("there.is.no.such.thing", "really"),
        by_hand("dense(there_is_no_such_argument)"),
        has("dense", check=lambda: "it returns something else"),
        no("^linear_cross_entropy$"),
    )
    assert all(problem(FDL, entry, names) for entry in wrong)
    right = (has("layers.dense(features)"), no("^there_is_no_such_thing$"), has("check.gradients(modes)"))
    assert not any(problem(FDL, entry, names) for entry in right)


def test_members_of_classes_and_modules_below_are_searched(names):
    assert {"gradients", "linear_cross_entropy", "recorded", "diagnosis"} <= names
    assert not any(name.startswith("_") for name in names)


def test_a_check_that_raises_is_a_failure():
    def broken():
        raise ZeroDivisionError("really")

    assert "ZeroDivisionError: really" in features._said(FDL, has("dense", check=broken), set())


def test_a_row_says_what_is_missing_and_which_version_differs(monkeypatch):
    assert features._row(Peer("Absent", "absent.", ("absent",), ("absent",))).status == "not installed"
    monkeypatch.setattr(features, "VERIFIED", {"jax": "0.0.1"})
    here = importlib.metadata.version("jax")
    assert features._other_versions(Peer("JAX", "", ("jax",), ("jax",))) == [f"jax is {here}, the table says 0.0.1"]
    monkeypatch.setattr(features, "result_of", lambda *_: {"a row": "there is no such name"})
    monkeypatch.setattr(features, "missing", lambda _: [])
    row = features._row(Peer("JAX", "", ("jax",), ("jax",)))
    assert row.status == "unequal" and "there is no such name" in row.note


def test_the_table_has_a_cell_for_every_library_and_says_what_fdl_lacks():
    lines = [line for line in features.render().split("\n") if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(PEERS) + 2}
    assert len(lines) == 2 + len(FEATURES) + len({feature.group for feature in FEATURES})
    lacking = [f for f in FEATURES if f.entries[0].kind == "no" and any(e.kind == "has" for e in f.entries[1:])]
    assert len(lacking) >= 6 and all(version in features.render() for version in features.VERIFIED.values())


def test_every_check_is_used():
    from benchmarks import _feature_checks as checks

    used = {entry.check for feature in FEATURES for entry in feature.entries}
    public = {v for n, v in vars(checks).items() if isinstance(v, types.FunctionType) and not n.startswith("_")}
    assert {check for check in public if check.__module__ == checks.__name__} == used - {None}

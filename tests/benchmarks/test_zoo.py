"""The zoo is what it says: its right backward passes are right, its wrong ones wrong, and the prover tells them apart."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from benchmarks import checkers
from benchmarks.checkers import Answer
from benchmarks.zoo import CASES, RIGHT, WRONG

SAMPLE = (
    "tanh: cotangent squared",
    "variance: m - 1 for m",
    "two layers: db1 times 0.9",
    "rnn: forward in time",
    "embedding: set for add",
    "attention: causal",
    "relu: slope 1 at 0",
    "energy of 1e-5: sign",
    "max pool: with ties, the first",
)

# compiled once and run once
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def groups():
    """Cases with the same equation at the same arguments: one compilation."""
    found = {}
    for case in CASES:
        if not case.precision:
            found.setdefault((case.op, case.reference, case.make, case.kinks), []).append(case)
    return list(found.values())


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def pulled(function, args, ws):
    """The gradients of `function` for random cotangents, floating leaves only."""
    out, pull = jax.vjp(function, *args)
    leaves, structure = jax.tree.flatten(out)
    grads = pull(jax.tree.unflatten(structure, [w[: x.size].reshape(x.shape) for w, x in zip(ws, leaves, strict=True)]))
    return [g for g in jax.tree.leaves(grads) if g.dtype != jax.dtypes.float0]


def distances(cases, seed=0):
    """The largest error of each case, as a share of the largest entry of its leaf; in float64."""
    rng = np.random.default_rng(seed)
    args = wide(cases[0].arguments(seed))
    if cases[0].kinks:  # off the kinks the conventions agree
        args = jax.tree.map(lambda x: x + 1e-3 * rng.standard_normal(x.shape), args)
    with jax.enable_x64(True):
        shapes = jax.tree.leaves(jax.eval_shape(cases[0].reference, *args))
        ws = [rng.standard_normal(max(1, math.prod(shape.shape))) for shape in shapes]
        functions = [cases[0].reference, *(case.candidate for case in cases)]
        run = jax.jit(lambda args, ws: [pulled(function, args, ws) for function in functions])
        truth, *got = jax.tree.map(np.asarray, run.lower(args, ws).compile(QUICK)(args, ws))
    return [max(distance(g, t) for g, t in zip(grads, truth, strict=True)) for grads in got]


def distance(got, wanted):
    assert got.shape == wanted.shape and np.isfinite(wanted).all()
    if not np.isfinite(got).all():
        return math.inf
    largest = np.abs(wanted).max(initial=0.0)
    return np.abs(got - wanted).max(initial=0.0) / (largest if largest > 0 else 1.0)


def test_its_size():
    assert len(WRONG) >= 100 and len(RIGHT) >= 60 and len({case.op for case in CASES}) >= 25
    assert len({case.name for case in CASES}) == len(CASES)
    assert {"sign", "factor 2", "1/(m-1) for 1/m", "transposed", "broadcast not summed"} <= {
        case.term for case in WRONG
    }


@pytest.mark.parametrize("cases", groups(), ids=lambda cases: cases[0].name)
def test_right_is_right_and_wrong_is_wrong(cases):
    for case, error in zip(cases, distances(cases), strict=True):
        if case.wrong:
            assert error > 1e-8, f"{case.name} is right"
        else:
            assert error < 1e-10, f"{case.name} is wrong by {error:.1e}"


@pytest.mark.parametrize("case", [case for case in CASES if case.precision], ids=lambda case: case.name)
def test_wrong_in_float32_alone(case):
    assert distances([case])[0] < 1e-10
    args = case.arguments()
    ws = [np.ones(10_000, np.float32)]
    got, wanted = pulled(case.candidate, args, ws), pulled(case.reference, args, ws)
    assert max(distance(np.asarray(g), np.asarray(w)) for g, w in zip(got, wanted, strict=True)) > 0.1


@pytest.mark.parametrize("name", SAMPLE)
def test_the_prover_tells_them_apart(name):
    case = next(case for case in CASES if case.name == name)
    report = fdl.check.gradients(case.candidate, *case.arguments(), reference=case.reference, modes="quick")
    assert report.verdict == ("wrong" if case.wrong else "right"), str(report)


def test_a_case_is_frozen_and_repeatable():
    case = CASES[0]
    assert dataclasses.is_dataclass(case) and not case.wrong and WRONG[0].wrong
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), case.arguments(3), case.arguments(3)))


def test_the_judge_lets_nothing_pass():
    wrong = {"bad": True, "good": False}
    answers = [
        Answer("bad", 0, "right", 0.1),
        Answer("good", 0, "wrong", 0.3, "why"),
        Answer("bad", 1, "undecided", 0.2),
    ]
    s = checkers.score(answers, wrong)
    assert (s.wrong, s.caught, s.missed, s.right, s.alarms, s.undecided, s.seconds) == (2, 0, 1, 1, 1, 1, 0.2)
    rows = checkers.rows_of({"fdl quick": answers, "chex": answers, "gradcheck": "no torch: install it"}, wrong)
    assert [row.status for row in rows] == ["measured", "unequal", "unequal", "measured", "not installed"]
    assert rows[0].missed and rows[0].measured == "0 of 2, 1 alarms" and rows[0].figures["undecided"] == 1
    assert rows[3].reached is None  # a peer's miss is a finding
    assert rows[1].note.startswith("missed, key 0") and rows[2].note == "false alarm, key 0: why"


def test_the_part_has_wrong_and_right_of_every_file():
    found = {case.name: case for case in CASES}
    names = checkers.chosen(full=False)
    assert {found[name].family for name in names if found[name].wrong} == {case.family for case in CASES}
    assert sum(not found[name].wrong for name in names) >= 10
    assert checkers.chosen(full=True) == [case.name for case in (*WRONG, *RIGHT)]


def test_a_raising_tool_could_not_run_and_an_asserting_one_convicts():
    case = next(case for case in CASES if case.name == "tanh: sign")

    def ask(case, args, seed):
        raise TypeError("no integers\nplease")

    assert checkers.one(ask, case, 0)[2::2] == ("could not run", "TypeError: no integers")
    assert checkers.check_grads()(case, case.arguments(), 0)[0] == "wrong"

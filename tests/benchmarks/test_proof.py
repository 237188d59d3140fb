"""The proof: its derivatives, its yardstick, and that it catches what it is for. All its numbers: `python -m benchmarks proof`."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from benchmarks import proof
from benchmarks.proof import CASES, ELSEWHERE, PARTS, Case, Jet, applied, computed, drawn, errors, limits_of, truth
from fdl import Op, losses

BY_NAME = {case.name: case for case in CASES}


# Digits that these lose far from where they are used; a sample may or may not meet it
def off(case, function, dtype="float64", examples=64, seed=7):
    """The largest errors of a function that claims to be the loss of that case, and whether they keep the bounds."""
    args, fit = drawn(case, examples, seed)
    part = [x[fit[dtype]] for x in args]
    limits = limits_of(case, dtype)
    worst = errors(
        case, part, computed(function, part, dtype, seed, dtype == "float64"), truth(case, args)[fit[dtype]], limits
    )
    return worst, [error <= limit.bound for error, limit in zip(worst, limits, strict=True)]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_sample(name):
    case = BY_NAME[name]
    worst, kept = off(case, applied(case, losses.get(case.loss).bind(**case.options)))
    assert all(kept), dict(zip(PARTS, worst, strict=True))


def test_every_loss_is_proven_or_named():
    reductions = {"mean", "sum", "weighted_mean"}
    there = {name for name in losses.__all__ if isinstance(getattr(losses, name), Op)} - reductions
    assert there == {case.loss for case in CASES} | set(ELSEWHERE)
    assert len(BY_NAME) == len(CASES)


FORMULAS = {
    "arithmetic": lambda p, t: (3 - p) * (p + t) / (2 + p * t) - 1 / (p - 4) + p**2,
    "transcendental": lambda p, t: proof.exp(p * t) + proof.log(1 + p) * proof.root(2 + p) + (1 + p) ** 3,
    "pieces": lambda p, t: abs(p * t - 2) + proof.positive(p * p * t) + proof.largest([p, p * p, t]),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_jets_are_derivatives(name):
    formula, step = FORMULAS[name], Decimal("1e-20")
    with localcontext() as context:
        context.prec = 80
        p, t = Decimal("0.7"), Decimal("0.3")
        at = lambda dp, dt: formula(Jet(p + dp * step), Jet(t + dt * step)).v
        got = formula(Jet(p, Decimal(1)), Jet(t, t=Decimal(1)))
        by_pred = (at(1, 0) - at(-1, 0)) / (2 * step)
        twice = (at(1, 0) - 2 * at(0, 0) + at(-1, 0)) / (step * step)
        by_target = (at(0, 1) - at(0, -1)) / (2 * step)
        for have, want in ((got.p, by_pred), (got.pp, twice), (got.t, by_target)):
            assert abs(have - want) <= abs(want) * Decimal("1e-30")


@pytest.mark.parametrize("part", PARTS[:3])
@pytest.mark.parametrize("name", ["log_cosh", "squared_hinge", "kl_divergence", "cosine_similarity"])
def test_one_in_a_billion_is_caught(name, part):
    case, op = BY_NAME[name], losses.get(name)
    wrong = 1 + 1e-9

    def forward(pred, target, **options):
        out, residuals = op.forward(pred, target, **options)
        return out * wrong if part == "value" else out, residuals

    def backward(residuals, dloss, **options):
        dpred, dtarget = op.backward(residuals, dloss, **options)
        return dpred * wrong if part == "slope" else dpred, dtarget * wrong if part == PARTS[2] else dtarget

    worst, kept = off(case, Op(op.equation, forward, backward, name="planted"))
    assert [p for p, ok in zip(PARTS, kept, strict=True) if not ok][:1] == [part], worst


def test_the_yardstick():
    case = BY_NAME["poisson"]
    zero = [[2.718281828459045], [2.718281828459045]]  # p = t log p: the value is what rounding e has left
    assert proof.sensitivity(case, zero, 0) == pytest.approx(2.718281828, rel=1e-6)  # by t; the slope by p is 0 here
    assert proof.sensitivity(case, [[2.0], [8.0]], 1) == pytest.approx(4 + 4)  # of 1 - t/p, by p and by t


def test_the_subgradient_has_to_be_the_chosen_one():
    case = BY_NAME["mean_absolute_error"]
    args = [np.ones((20, 1)), np.ones((20, 1))]
    true, limits = truth(case, args), limits_of(case, "float64")
    assert errors(case, args, true, true, limits) == [0.0] * 4
    assert errors(case, args, true + np.asarray([0, 1, 0, 0]), true, limits)[1] > 1e200


def test_infinite_and_missing_results_break_every_bound():
    case = Case("poisson", lambda p, t: p - t * proof.log(p), proof.positives)
    args, _ = drawn(case, 20, 0)
    true, limits = truth(case, args), limits_of(case, "float64")
    for bad in (np.nan, np.inf):
        assert errors(case, args, np.full_like(true, bad), true, limits) == [np.inf] * 4
    assert errors(case, args, true, true, limits) == [0.0] * 4


def test_the_report(monkeypatch, capsys):
    def found(error):
        one = {"bfloat16": [1.0, 1.0, 1.0], "float64": [0.5, 0.5, 0.5, error], "equation": [1e14] * 4}
        return {case.name: one for case in CASES}

    monkeypatch.setattr(proof, "result_of", lambda *_: found(512.0))
    assert proof.main([]) == 0
    assert "0.5; 0.5; 0.5; 5.1e+02" in capsys.readouterr().out
    assert {row.status for row in proof.run(proof.Settings())} == {"equal"}
    monkeypatch.setattr(proof, "result_of", lambda *_: found(513.0))
    assert proof.main([]) == 1
    assert "poisson, float64, curvature: 513 eps, bound 512" in capsys.readouterr().err
    assert {row.status for row in proof.run(proof.Settings())} == {"unequal"}

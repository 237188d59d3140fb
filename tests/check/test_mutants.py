"""Mutants: faults are planted everywhere, a good test kills them all, a bad one leaves survivors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import mutation
from fdl import check
from fdl.errors import InputTypeError
from fdl.op import Op
from tests.check.zoo import normal
from tests.concepts import CONCEPTS

SAMPLE = ("losses/huber:huber", "layers/dense:dense", "layers/glu:glu", "losses/mean:losses.mean")


def product_backward(kept, dy):
    x, y = kept
    return dy * y - 0 * x, jnp.where(x > 1e9, 2 * dy * x, dy * x)


product = Op(lambda x, y: x * y, lambda x, y: (x * y, (x, y)), product_backward, name="product")


def agrees(*draws):
    """The algebra test of the common tests, eagerly: cotangents against autodiff of the equation in float64.

    The equation of a mutant is the op's, and its derivative at a draw is computed once for all of them."""
    draws = [
        jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, args)
        for args in draws
    ]
    known = {}

    def standard(op, number):
        if (op._equation, op.options, number) not in known:
            args = draws[number]
            out, residuals = op.forward(*args)
            random = np.random.default_rng(1)
            dout = jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape), x.dtype), out)
            want = [x for x in jax.tree.leaves(jax.vjp(op.equation, *args)[1](dout)) if x.dtype != jax.dtypes.float0]
            known[op._equation, op.options, number] = residuals, dout, [np.asarray(x) for x in want]
        return known[op._equation, op.options, number]

    def agrees_at(op, number):
        residuals, dout, want = standard(op, number)
        pairs = zip(jax.tree.leaves(op.backward(residuals, dout)), want, strict=True)
        return all(np.allclose(a, b, rtol=0, atol=1e-10 * np.abs(b).max(initial=0)) for a, b in pairs)

    return lambda op: all(agrees_at(op, number) for number in range(len(draws)))


def test_every_kind_of_fault_is_planted_and_guards_are_equivalent():
    args = normal(0, 3, 3), normal(1, 3, 3)
    report = check.mutants(product, *args, test=agrees(args))
    assert report.score == 1 and not report.survivors
    assert {mutant.change for mutant in report.mutants} == {
        "dropped", "negated", "scaled by 0.9", "transposed", "made of swapped operands"
    }  # fmt: skip
    assert any("mul" in mutant.equation for mutant in report.equivalent), "2 dy x is not reached, 0 x changes nothing"
    assert "mutants killed" in str(report)


def test_a_bad_test_leaves_survivors():
    report = check.mutants(product, normal(0, 3), normal(1, 3), test=lambda op: True)
    assert report.score == 0 and report.survivors and "SURVIVED" in str(report)

    def raises(op):
        raise AssertionError

    with pytest.raises(AssertionError):
        check.mutants(product, normal(0, 3), normal(1, 3), test=raises)
    with pytest.raises(InputTypeError, match="the test refuses product as it is"):
        check.mutants(product, normal(0, 3), normal(1, 3), test=lambda op: False)
    with pytest.raises(InputTypeError, match="op is function"):
        no_op: Any = lambda x: x
        check.mutants(no_op, normal(0, 3))


def test_the_prover_kills():
    report = check.mutants(product, normal(0, 2), normal(1, 2))
    assert report.score == 1 and report.killed


@pytest.mark.parametrize("name", SAMPLE)
def test_the_common_tests_kill_every_mutant_of_a_concept(name, getkey):
    concept = next(c for c in CONCEPTS if c.name == name)
    args = concept.arguments(getkey(), jnp.float32)
    report = check.mutants(concept.op, *args, options=concept.options[0], test=agrees(args))
    assert report.score == 1, str(report)


def test_the_benchmark_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    def count(full, known):
        everything = mutation.Counted("first", 7, 1, [], 0.1), mutation.Counted("second", 3, 0, ["SURVIVED: mul"], 0.1)
        return iter([counted for counted in everything if counted.name not in known])

    monkeypatch.setattr(mutation, "count", count)
    again = ["--kept", str(tmp_path / "kept.jsonl"), "--seconds", "0"]
    assert mutation.main(again) == 0 and "not all of them" in capsys.readouterr().out
    assert mutation.main(again) == 1
    assert mutation.main(again) == 1 and "10 of 11 mutants killed" in capsys.readouterr().out
    names = [name for name, _, _ in mutation.chosen(CONCEPTS, full=True)]
    assert len(set(names)) == len(names) == sum(len(concept.options) for concept in CONCEPTS)

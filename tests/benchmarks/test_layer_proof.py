"""Convolution, pooling and normalization at random configurations, to second order; and that the comparison sees what is wrong."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from benchmarks import _layer_proof as proof
from benchmarks import proof as rows
from benchmarks._layer_proof import BOUND, NAMES, PARTS, configuration, distances
from fdl import Op

# tests/layers/test_pool.py compares these, with loops over windows too
ELSEWHERE = ("max_pool", "avg_pool")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ELSEWHERE])
def test_12_configurations(name):
    for i in range(12):
        c = configuration(name, i)
        found = distances(c)
        assert max(found.values()) <= BOUND, (str(c), found)


def test_every_op_is_there():
    files = {path.stem for path in (Path(str(fdl.__file__)).parent / "layers").glob("[a-z]*")}
    assert {name for name in files if re.search("conv|pool|norm|whiten", name)} <= set(NAMES)


def test_the_configurations_are_of_every_kind():
    def several(name, of):
        assert len({of(configuration(name, i)) for i in range(12)}) > 1, name

    for name in NAMES:
        several(name, lambda c: tuple(leaf.shape for leaf in jax.tree.leaves(c.args)))
        assert str(configuration(name, 3)) == str(configuration(name, 3)) != str(configuration(name, 8))
    for name in ("batch_norm", "layer_norm", "group_norm", "instance_norm", "whiten"):
        several(name, lambda c: c.offset == 0)
        several(name, lambda c: c.numbers["eps"])
        assert max(abs(configuration(name, i).offset) for i in range(12)) > 1e3
    for name in ("batch_norm", "global_avg_pool", "global_max_pool"):
        several(name, lambda c: c.rest[0] is None)
    several("batch_norm", lambda c: c.op)
    several("group_norm", lambda c: c.op)


def test_offsets_are_added_exactly():
    for name in ("batch_norm", "layer_norm", "group_norm", "instance_norm", "whiten"):
        for i in range(40):
            c = configuration(name, i)
            x = c.args[-1]
            np.testing.assert_array_equal((x + c.offset) - c.offset, x)


def planted(right, part, wrong):
    """That op, with one of its three parts wrong by a factor."""

    def forward(params, x, **options):
        out, residuals = right.forward(params, x, **options)
        return out * wrong if part == "value" else out, residuals

    def backward(residuals, dy, **options):
        dparams, dx = right.backward(residuals, dy, **options)
        if part == "second":  # the first derivative as it is, its own without a path
            fixed = dx * jax.lax.stop_gradient(1 / dx)
            dx = jax.lax.stop_gradient(dx) * (fixed + (wrong - 1) * (fixed - 1))
        return dparams, dx * wrong if part == "first" else dx

    return Op(right.equation, forward, backward, name="planted")


@pytest.mark.parametrize("part", PARTS)
def test_a_thousand_eps_are_seen(part):
    wrong = 1 + 1000 * float(jnp.finfo(jnp.float64).eps)
    c = dataclasses.replace(configuration("layer_norm", 0), numbers={}, offset=0.0)
    (x,) = c.args[1:]
    op = planted(fdl.ops.layer_norm.bind(eps=1e-5), part, wrong)
    found = distances(dataclasses.replace(c, op=op, args=({}, x[..., 0] if x.ndim > 3 else x)))
    assert [p for p in PARTS if found[p] > BOUND][:1] == [part], found


def test_batches_of_two():
    """dx is eps / (var + eps) of what comes in, and right to eps of that."""
    rng = np.random.default_rng(0)
    x, dy, scale, eps = rng.standard_normal((2, 5)), rng.standard_normal((2, 5)), rng.standard_normal(5), 1e-5
    rstd = 1 / np.sqrt((x[0] - x[1]) ** 2 / 4 + eps)
    half = (dy[0] - dy[1]) / 2
    want = scale * eps * rstd**3 * np.stack([half, -half])
    run = lambda x: fdl.ops.batch_norm({"scale": jnp.asarray(scale)}, x, eps=eps)[0]
    (dx,) = jax.vjp(run, jnp.asarray(x))[1](jnp.asarray(dy))
    assert np.abs(dx - want).max() <= BOUND * np.finfo(float).eps * np.abs(dy * scale * rstd).max()
    np.testing.assert_allclose(dx, want, rtol=1e-6)


def test_digits_lost_to_an_offset_are_seen():
    c: Any = dataclasses.replace(configuration("layer_norm", 0), offset=2.0**20)
    assert distances(c)["value"] <= BOUND
    assert distances(dataclasses.replace(c, op=c.op.bind(fast=True)))["value"] > BOUND
    assert distances(dataclasses.replace(c, op=Plain(c.op)))["value"] > BOUND, "the equation itself"


@dataclasses.dataclass(frozen=True)
class Plain:
    op: Op

    def __call__(self, *args, **numbers):
        return self.op.equation(*args, **numbers)

    equation = __call__


def test_what_is_not_finite_or_should_be_0_is_infinitely_far():
    assert proof._apart(np.zeros(2), np.zeros(2)) == 0
    for got, want in (([1e-300, 0], [0, 0]), ([np.nan, 1], [1, 1]), ([np.inf, 1], [1, 1]), ([1, 1], [np.nan, 1])):
        assert proof._apart(np.asarray(got), np.asarray(want)) == np.inf
    assert proof._apart(np.asarray([1.0, 4.0 + 2.0**-50]), np.asarray([1.0, 4.0])) == 1.0


def test_the_report(monkeypatch, capsys):
    def found(error):
        return lambda *_: {"value": (0.5, "here"), "first": (error, "there")}

    monkeypatch.setattr(rows, "result_of", found(512.0))
    assert rows.main(["--layers"]) == 0
    assert "batch_norm, 200 configurations" in capsys.readouterr().out
    for error in (513.0, np.inf):
        monkeypatch.setattr(rows, "result_of", found(error))
        assert rows.main(["--layers"]) == 1
        assert "above 512: first of there" in capsys.readouterr().out


def test_the_largest_error_is_reported_with_its_configuration(monkeypatch):
    errors = iter([3.0, np.inf, 7.0])
    monkeypatch.setattr(proof, "distances", lambda c: {"value": next(errors)})
    assert rows.layers("layer_norm", 3).result["value"] == (np.inf, str(configuration("layer_norm", 1)))

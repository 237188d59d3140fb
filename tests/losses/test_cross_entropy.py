"""Cross-entropy of distributions: the base is a unit, likelihood, limits, errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_rows

CE = fdl.losses.cross_entropy


def distributions(key, shape=(4, 5), dtype=jnp.float64):
    k = jax.random.split(key)
    return tuple(jax.nn.softmax(2 * jax.random.normal(key, shape, dtype)) for key in k)


def test_base_is_the_unit(getkey):
    pred, target = distributions(getkey())
    nats = CE(pred, target)
    np.testing.assert_allclose(nats, -(target * np.log(pred)).sum(-1), rtol=1e-14)
    np.testing.assert_allclose(CE(pred, target, base=2), -(target * np.log2(pred)).sum(-1), rtol=1e-14)
    np.testing.assert_allclose(CE(pred, target, base=10), -(target * np.log10(pred)).sum(-1), rtol=1e-14)
    fair_coin = jnp.asarray([0.5, 0.5], jnp.float32)
    assert CE(fair_coin, fair_coin, base=2) == 1, "one bit"


def test_a_traced_base_is_an_operand(getkey):
    pred, target = distributions(getkey())
    bases = jnp.asarray([2.0, 10.0], jnp.float32)
    swept = jax.vmap(lambda base: jax.grad(lambda p: CE(p, target, base=base).sum())(pred))(bases)
    for base, got in zip((2, 10), swept, strict=True):
        np.testing.assert_allclose(got, -target / pred / math.log(base), rtol=1e-7)


def test_the_smallest_cross_entropy_is_the_largest_likelihood():
    """Counts n of N events: log P = sum n log q = -N H(n/N, q), and no q beats n/N. Minimise +H."""
    counts = np.asarray([3.0, 1.0, 6.0])
    target = jnp.asarray(counts / counts.sum())
    models = np.random.default_rng(0).dirichlet(np.ones(3), 500)
    h = CE(jnp.asarray(models), jnp.broadcast_to(target, (500, 3)))
    log_likelihood = (counts * np.log(models)).sum(-1)
    np.testing.assert_allclose(log_likelihood, -counts.sum() * h, rtol=1e-13)
    assert np.argmin(h) == np.argmax(log_likelihood)
    assert (h > CE(target, target)).all(), "Gibbs"


ROWS = {
    "nothing happens, nothing can": (0.0, 0.0, 0.0, 0.0, INF),
    "the impossible happened": (0.0, 1.0, INF, -INF, INF),
    "the impossible, written -0": (-0.0, 1.0, INF, -INF, INF),
    "hardly possible": (1e-12, 1.0, 27.6310211, -1e12, 27.6310211),
    "no weight": (0.25, 0.0, 0.0, 0.0, np.log(4)),
    "sure": (1.0, 1.0, 0.0, -1.0, 0.0),
    "not normalised": (4.0, 0.5, -0.5 * np.log(4), -0.125, -np.log(4)),
    "negative": (-0.1, 0.0, NAN, NAN, NAN),
    "infinite": (INF, 0.0, NAN, NAN, NAN),
    "NaN": (NAN, 0.0, NAN, NAN, NAN),
    "NaN target": (0.5, NAN, NAN, NAN, None),
}


def test_limits():
    assert_rows(CE, ROWS)


def test_second_derivatives_at_an_empty_cell_are_finite():
    target = jnp.asarray([0.0, 0.25, 0.75], jnp.float32)
    hessian = jax.jit(jax.hessian(lambda p: CE(p, target)))(jnp.asarray([0.0, 0.5, 0.5], jnp.float32))
    np.testing.assert_allclose(hessian, np.diag([0.0, 1.0, 3.0]), rtol=1e-6)


def test_an_example_without_weight_contributes_nothing():
    pred, target = (
        jnp.asarray([[0.0, 1.0], [0.5, 0.5]], jnp.float32),
        jnp.asarray([[1.0, 0.0], [1.0, 0.0]], jnp.float32),
    )
    weights = jnp.asarray([0.0, 1.0], jnp.float32)
    gradient = jax.grad(lambda p: fdl.losses.mean(CE(p, target), weights))(pred)
    np.testing.assert_array_equal(gradient, [[0.0, 0.0], [-2.0, 0.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CE(jnp.ones(2), jnp.ones(2), base=1), "base is 1, wanted 1 < base < inf; math.e is nats"),
        (lambda: CE(jnp.ones(2), jnp.ones(2), base="e"), "base is str 'e', wanted a number"),
        (lambda: CE(jnp.ones((2, 3)), jnp.ones(3)), "nothing is broadcast"),
        (lambda: CE(jnp.ones(2), jnp.ones(2, jnp.int32)), "target is int32"),
        (lambda: CE(jnp.ones((2, 0)), jnp.ones((2, 0))), "an example without outputs"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

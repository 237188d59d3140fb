"""Quantile loss: values, limits, the option q."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import mean_pinball_loss

import fdl
from tests.losses.limits import INF, NAN, assert_limits

quantile = fdl.losses.quantile


def test_values_of_scikit_learn(getkey):
    pred, target = jax.random.normal(getkey(), (2, 50), jnp.float64)
    for q in (0.0, 0.1, 0.5, 0.9, 1.0):
        np.testing.assert_allclose(quantile(pred, target, q=q), mean_pinball_loss(target, pred, alpha=q), rtol=1e-13)


def test_limits():
    assert_limits(
        quantile.bind(q=0.9),
        ((3.0, 3.0), 0.0, (0.0, 0.0)),
        ((5.0, 3.0), 0.2, (0.1, -0.1)),
        ((1.0, 3.0), 1.8, (-0.9, 0.9)),
        ((1e30, 0.0), 1e29, (0.1, -0.1)),
        ((INF, 0.0), INF, (0.1, -0.1)),
        ((0.0, INF), INF, (-0.9, 0.9)),
        ((INF, INF), NAN, (NAN, NAN)),
        ((NAN, 0.0), NAN, (NAN, NAN)),
    )


@pytest.mark.parametrize("q", [0, 1])
def test_the_free_side_of_an_extreme_costs_nothing(q):
    paid, free = (INF, -INF) if q == 0 else (-INF, INF)
    slope = np.sign(paid)
    assert_limits(quantile.bind(q=q), ((paid, 0.0), INF, (slope, -slope)), ((free, 0.0), 0.0, (0.0, 0.0)))


def test_a_quantile_next_to_1_keeps_its_digits():
    assert_limits(quantile.bind(q=0.999999999), ((2e9, 0.0), 2.0, (1e-9, -1e-9)))


def test_the_minimiser_is_the_quantile(getkey):
    target = jax.random.normal(getkey(), (1001, 1), jnp.float64)
    slope = jax.grad(lambda c: quantile(jnp.full_like(target, c), target, q=0.3).sum())
    low, high = np.quantile(target, [0.299, 0.301])
    assert slope(low) < 0 < slope(high)


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan"), "0.5"])
def test_errors(q):
    with pytest.raises((ValueError, TypeError), match="q is .*wanted.*share of the targets that lie below"):
        quantile(jnp.zeros(3), jnp.zeros(3), q=q)

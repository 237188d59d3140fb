"""The learning-rate finder: on a quadratic the edge of divergence is known, and its suggestion lies below it and learns."""

import jax
import numpy as np
import optax
import pytest

import fdl
from fdl.train.find_learning_rate import suggested

MSE = fdl.losses.mean_squared_error
rng = np.random.default_rng(0)
X = rng.normal(size=(64, 4)).astype(np.float32)
Y = (X @ rng.normal(size=(4, 2))).astype(np.float32)
MODEL = fdl.serial(fdl.dense(2, bias=False))


def find(make=optax.sgd, data=(X, Y), **kwargs):
    settings = {"key": jax.random.key(0), "batch_size": 64} | kwargs
    return fdl.train.find_learning_rate(MODEL, MSE, make, data, **settings)


def test_the_suggestion_learns_and_lies_below_the_edge():
    found = find(low=1e-4, high=100.0)
    curvature = np.linalg.eigvalsh(2 * X.T @ X / len(X) / 2)[-1]  # of the mean over two outputs
    edge = 2 / curvature
    assert edge / 200 < found.suggestion < edge
    assert found.rates[-1] < 100 and len(found.rates) == len(found.losses) == len(found.smoothed) < 200  # it stopped
    assert edge < found.rates[-1] < 30 * edge
    trained = fdl.train.fit(
        MODEL, MSE, optax.sgd(found.suggestion), (X, Y), key=jax.random.key(0), epochs=100, progress=False
    )
    assert trained.history["loss"][-1] < 0.02 * trained.history["loss"][0]
    assert "suggestion" in repr(found)


def test_the_steepest_fall_of_a_made_up_curve():
    rates = np.logspace(-4, 0, 200)
    losses = 1 / (1 + (rates / 1e-2) ** 2) + np.where(rates > 0.3, (rates - 0.3) * 50, 0)
    found = suggested(rates, losses)
    assert 0.7e-2 < found.suggestion < 3e-2  # d/dlog r of 1 / (1 + r^2 / s^2) is steepest at s; smoothing lags


def test_where_nothing_is_learnt():
    with pytest.raises(ValueError, match="does not fall at any rate"):
        find(low=1e-12, high=1e-11, data=(X, 0 * Y + 5))
    with pytest.raises(ValueError, match="diverges from the start"):
        find(low=1e6, high=1e12)
    with pytest.raises(ValueError, match="low is 1.0 and high is 0.1"):
        find(low=1.0, high=0.1)
    with pytest.raises(ValueError, match="wanted at least 20"):
        find(steps=3)

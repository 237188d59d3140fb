"""Pseudo-Huber loss: values and limits. The errors of delta are tested with Huber's."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import pseudo_huber as scipy_pseudo_huber

import fdl
from tests.losses.limits import INF, NAN, assert_limits, second_derivatives

pseudo_huber = fdl.losses.pseudo_huber


def test_values_of_scipy(getkey):
    pred = 3 * jax.random.normal(getkey(), (50, 1), jnp.float64)
    for delta in (0.1, 1.0, 7.0):
        want = scipy_pseudo_huber(delta, np.asarray(pred)[:, 0])
        np.testing.assert_allclose(pseudo_huber(pred, jnp.zeros_like(pred), delta=delta), want, rtol=1e-13)


def test_limits():
    assert_limits(
        pseudo_huber.bind(delta=0.7),
        ((0.0, 0.0), 0.0, (0.0, 0.0)),
        ((1e-4, 0.0), 5e-9, (1e-4, -1e-4)),
        ((-1e-4, 0.0), 5e-9, (-1e-4, 1e-4)),
        ((-2.0, 0.0), 0.49 * (np.sqrt(1 + 4 / 0.49) - 1), (-2 / np.sqrt(1 + 4 / 0.49), 2 / np.sqrt(1 + 4 / 0.49))),
        ((1e18, 0.0), 0.7e18, (0.7, -0.7)),
        ((1e30, 0.0), 0.7e30, (0.7, -0.7)),
        ((INF, 0.0), INF, (0.7, -0.7)),
        ((-INF, 0.0), INF, (-0.7, 0.7)),
        ((INF, INF), NAN, (NAN, NAN)),
        ((NAN, 0.0), NAN, (NAN, NAN)),
    )


def test_large_and_small_delta():
    assert_limits(pseudo_huber.bind(delta=1e30), ((1e18, 0.0), 5e35, (1e18, None)))
    assert_limits(pseudo_huber.bind(delta=1e-30), ((1e30, 0.0), 1.0, (1e-30, None)))


def test_second_derivative():
    x = np.asarray([0.0, 0.3, -2.0, 1e4, 1e30])
    got = second_derivatives(pseudo_huber, x, 0 * x)
    np.testing.assert_allclose(got, (1 + x * x) ** -1.5, rtol=1e-12, atol=1e-16)

"""Euclidean distance: values, scaling, the zero vector."""

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from tests.losses.limits import INF, NAN, assert_limits

distance = fdl.losses.euclidean_distance
HALF = np.sqrt(0.5)


def test_it_is_the_root_of_d_times_the_mean_squared_error(getkey):
    pred, target = jax.random.normal(getkey(), (2, 5, 3), jnp.float64)
    want = jnp.sqrt(3 * fdl.losses.mean_squared_error(pred, target))
    np.testing.assert_allclose(distance(pred, target), want, rtol=1e-14)


ROWS = {
    "3, 4, 5": ([3.0, 4.0], 5.0, [0.6, 0.8]),
    "zero": ([0.0, 0.0], 0.0, [0.0, 0.0]),
    "huge": ([1e25, 1e25], np.sqrt(2) * 1e25, [HALF, HALF]),
    "tiny": ([1e-25, -1e-25], np.sqrt(2) * 1e-25, [HALF, -HALF]),
    "of both sizes": ([1e25, 1e-25], 1e25, [1.0, 0.0]),
    "too long": ([3e38, 3e38], INF, [HALF, HALF]),
    "infinite": ([-INF, 5.0], INF, [-1.0, 0.0]),
    "twice infinite": ([INF, -INF], INF, [HALF, -HALF]),
    "NaN": ([NAN, 1.0], NAN, [NAN, NAN]),
    "NaN and infinite": ([NAN, INF], NAN, [NAN, NAN]),
}


def test_limits():
    rows = (((pred, [0.0, 0.0]), value, (u, -np.asarray(u))) for pred, value, u in ROWS.values())
    assert_limits(distance, *rows)


def test_second_derivative_is_finite_at_zero_and_right_beside_it():
    zero = jnp.zeros(2, jnp.float64)
    hessian = jax.hessian(distance)
    np.testing.assert_array_equal(hessian(zero, zero), np.zeros((2, 2)))
    np.testing.assert_allclose(hessian(jnp.asarray([3e30, 4e30]), zero), np.array([[16, -12], [-12, 9]]) / 125e30)


def test_float16_does_not_overflow():
    value, gradient = jax.value_and_grad(distance)(jnp.full((2,), 6e4, jnp.float16), jnp.zeros(2, jnp.float16))
    np.testing.assert_allclose(value, np.sqrt(2) * 6e4, rtol=1e-3)
    np.testing.assert_allclose(gradient, [HALF, HALF], rtol=1e-3)

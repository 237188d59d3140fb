"""Poisson loss: values and limits."""

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from tests.losses.limits import INF, NAN, assert_limits, second_derivatives

poisson = fdl.losses.poisson
LOG = np.log(1e30)


def test_value_as_in_keras():
    target, pred = jnp.asarray([[1.0, 9, 2], [5, 2, 6]]), jnp.asarray([[4.0, 8, 12], [8, 1, 3]])
    want = np.mean(np.asarray(pred) - np.asarray(target) * np.log(np.asarray(pred)), axis=1)
    np.testing.assert_allclose(poisson(pred, target), want)


def test_limits():
    assert_limits(
        poisson,
        ((0.0, 0.0), 0.0, (1.0, INF)),
        ((-0.0, 0.0), 0.0, (1.0, INF)),
        ((0.0, 1.0), INF, (-INF, INF)),
        ((-0.0, 1.0), INF, (-INF, INF)),
        ((1e-30, 1.0), LOG, (-1e30, LOG)),
        ((2.0, 0.0), 2.0, (1.0, -np.log(2))),
        ((1e30, 3.0), 1e30, (1.0, -LOG)),
        ((-1.0, 0.0), NAN, (NAN, NAN)),
        ((-1.0, 2.0), NAN, (NAN, NAN)),
        ((1.0, -1.0), NAN, (NAN, NAN)),
        ((INF, 1.0), INF, (1.0, -INF)),
        ((INF, 0.0), INF, (1.0, -INF)),
        ((NAN, 0.0), NAN, (NAN, NAN)),
        ((1.0, NAN), NAN, (NAN, NAN)),
    )


def test_the_slope_keeps_its_digits_near_the_minimum():
    pred = np.nextafter(np.float32(3), np.float32(INF))
    assert_limits(poisson, ((pred, 3.0), 3 - 3 * np.log(3), ((float(pred) - 3) / float(pred), None)))


def test_second_derivatives_where_nothing_was_counted():
    np.testing.assert_allclose(second_derivatives(poisson, [2.0, 2.0], [0.0, 3.0]), [0, 3 / 4])
    at = jnp.asarray([2.0], jnp.float64), jnp.asarray([0.0], jnp.float64)
    mixed = jax.jacrev(jax.grad(poisson), argnums=1)(*at)
    np.testing.assert_allclose(mixed, [[-0.5]])

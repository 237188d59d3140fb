"""Log-cosh loss: values and limits."""

import jax.numpy as jnp
import numpy as np

import fdl
from tests.losses.limits import INF, NAN, assert_limits, second_derivatives

log_cosh = fdl.losses.log_cosh


def test_value_as_in_keras():
    target, pred = jnp.asarray([[0.0, 1.0], [0.0, 0.0]]), jnp.asarray([[1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(log_cosh(pred, target).mean(), 0.108, atol=5e-4)


def test_limits():
    assert_limits(
        log_cosh,
        ((0.0, 0.0), 0.0, (0.0, 0.0)),
        ((1e-4, 0.0), 5e-9, (1e-4, -1e-4)),
        ((-1e-3, 0.0), 5e-7, (-1e-3, 1e-3)),
        ((1.0, 0.0), np.log(np.cosh(1.0)), (np.tanh(1.0), -np.tanh(1.0))),
        ((np.nextafter(np.float32(1), np.float32(0)), 0.0), np.log(np.cosh(1.0)), (np.tanh(1.0), -np.tanh(1.0))),
        ((1e4, 0.0), 1e4 - np.log(2), (1.0, -1.0)),
        ((-1e30, 0.0), 1e30, (-1.0, 1.0)),
        ((INF, 0.0), INF, (1.0, -1.0)),
        ((-INF, 0.0), INF, (-1.0, 1.0)),
        ((INF, INF), NAN, (NAN, NAN)),
        ((NAN, 0.0), NAN, (NAN, NAN)),
    )


def test_second_derivative():
    x = np.asarray([0.0, 0.3, -0.999, 1.0, 5.0, -40.0])
    np.testing.assert_allclose(second_derivatives(log_cosh, x, 0 * x), np.cosh(x) ** -2, rtol=1e-14)
    assert second_derivatives(log_cosh, [1e30], [0.0]) == 0

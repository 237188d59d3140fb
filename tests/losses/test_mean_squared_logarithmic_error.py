"""Mean squared logarithmic error: values and limits."""

import jax.numpy as jnp
import numpy as np

import fdl
from tests.losses.limits import INF, NAN, assert_limits, second_derivatives

MSLE = fdl.losses.mean_squared_logarithmic_error
LOG2 = np.log(2)


def test_value_as_in_keras_where_it_does_not_clip():
    target, pred = jnp.asarray([[1.0, 9, 2], [5, 2, 6]]), jnp.asarray([[4.0, 8, 12], [8, 1, 3]])
    np.testing.assert_allclose(MSLE(pred, target), [1.0002, 0.2140], atol=1e-4)


def test_limits():
    assert_limits(
        MSLE,
        ((0.0, 1.0), LOG2**2, (-2 * LOG2, LOG2)),
        ((-0.5, 0.0), LOG2**2, (-4 * LOG2, 2 * LOG2)),
        ((-1.0, 0.0), INF, (-INF, INF)),
        ((-1.5, 0.0), NAN, (NAN, NAN)),
        ((0.0, -1.5), NAN, (NAN, NAN)),
        ((-1.5, -1.5), NAN, (NAN, NAN)),
        ((3.0, 3.0), 0.0, (0.0, 0.0)),
        ((1e-20, 0.0), 0.0, (2e-20, -2e-20)),
        ((1e30, 0.0), np.log(1e30) ** 2, (2 * np.log(1e30) / 1e30, -2 * np.log(1e30))),
        ((0.0, 3e38), np.log(3e38) ** 2, (-2 * np.log(3e38), 2 * np.log(3e38) / 3e38)),
        ((INF, 1.0), INF, (0.0, -INF)),
        ((1.0, INF), INF, (-INF, 0.0)),
        ((INF, INF), NAN, (NAN, NAN)),
        ((NAN, 1.0), NAN, (NAN, NAN)),
    )


def test_close_numbers_keep_their_digits():
    pred = np.nextafter(np.float32(1000), np.float32(INF))
    ratio = np.log1p((float(pred) - 1000) / 1001)
    assert_limits(MSLE, ((pred, 1000.0), ratio**2, (2 * ratio / 1001, -2 * ratio / 1001)))


def test_second_derivative_at_the_minimum_and_beside_it():
    pred, target = np.asarray([1.0, 0.3, 2.0, 1e31]), np.asarray([1.0, 2.0, 0.3, 0.0])
    want = (2 - 2 * (np.log1p(pred) - np.log1p(target))) / (1 + pred) ** 2
    np.testing.assert_allclose(second_derivatives(MSLE, pred, target), want, rtol=1e-12)

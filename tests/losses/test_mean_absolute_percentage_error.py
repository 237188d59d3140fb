"""Mean absolute percentage error: values and limits."""

import jax.numpy as jnp
import numpy as np

import fdl
from tests.losses.limits import INF, NAN, assert_limits

MAPE = fdl.losses.mean_absolute_percentage_error


def test_value_as_in_keras():
    target, pred = jnp.asarray([[1.0, 9, 2], [-5, -2, 6]]), jnp.asarray([[4.0, 8, 12], [8, 1, 3]])
    np.testing.assert_allclose(MAPE(pred, target).mean(), 211.8518, rtol=1e-6)


def test_limits():
    assert_limits(
        MAPE,
        ((-2.0, -2.0), 0.0, (0.0, 0.0)),
        ((0.0, 0.0), 0.0, (0.0, 0.0)),
        ((0.5, 0.0), INF, (INF, 0.0)),
        ((-0.5, 0.0), INF, (-INF, 0.0)),
        ((-0.5, -0.0), INF, (-INF, 0.0)),
        ((0.0, 1e-9), 100.0, (-1e11, 0.0)),
        ((2e-9, 1e-9), 100.0, (1e11, -2e11)),
        ((1.0, -2.0), 150.0, (50.0, 25.0)),
        ((INF, -2.0), INF, (50.0, INF)),
        ((-INF, 2.0), INF, (-50.0, -INF)),
        ((3.0, INF), 100.0, (0.0, 0.0)),
        ((3.0, -INF), 100.0, (0.0, 0.0)),
        ((3e38, -3e38), 200.0, (100 / 3e38, 100 / 3e38)),
        ((1e30, 1e-20), INF, (1e22, -INF)),
        ((INF, INF), NAN, (NAN, NAN)),
        ((NAN, 0.0), NAN, (NAN, NAN)),
        ((1.0, NAN), NAN, (NAN, NAN)),
    )


def test_close_numbers_keep_their_digits():
    pred = np.nextafter(np.float32(1000), np.float32(INF))
    assert_limits(MAPE, ((pred, 1000.0), 100 * (float(pred) - 1000) / 1000, (0.1, None)))

"""Mean absolute error: values and limits."""

import jax.numpy as jnp
import numpy as np

import fdl
from tests.losses.limits import INF, NAN, assert_limits

MAE = fdl.losses.mean_absolute_error


def test_value_as_in_keras():
    target, pred = jnp.asarray([[1.0, 9, 2], [-5, -2, 6]]), jnp.asarray([[4.0, 8, 12], [8, 1, 3]])
    assert MAE(pred, target).mean() == 5.5
    np.testing.assert_allclose(MAE(pred, target), [14 / 3, 19 / 3])


def test_limits():
    assert_limits(
        MAE,
        ((2.0, 2.0), 0.0, (0.0, 0.0)),
        ((-0.0, 0.0), 0.0, (0.0, 0.0)),
        ((1e30, 0.0), 1e30, (1.0, -1.0)),
        ((-1e-30, 0.0), 1e-30, (-1.0, 1.0)),
        ((3e38, -3e38), INF, (1.0, -1.0)),
        ((INF, 1.0), INF, (1.0, -1.0)),
        ((0.0, INF), INF, (-1.0, 1.0)),
        ((INF, INF), NAN, (NAN, NAN)),
        ((NAN, 1.0), NAN, (NAN, NAN)),
    )

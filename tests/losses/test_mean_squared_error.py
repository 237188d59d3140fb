"""Mean squared error: values, limits, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

MSE = fdl.losses.mean_squared_error


def test_value_is_the_mean_over_the_last_axis():
    pred = jnp.asarray([[1.0, 3.0], [0.0, -2.0]], jnp.float32)
    np.testing.assert_allclose(MSE(pred, jnp.zeros((2, 2), jnp.float32)), [5.0, 2.0])


def test_float16_does_not_overflow():
    pred, target = jnp.asarray([300.0], jnp.float16), jnp.asarray([0.0], jnp.float16)
    value, (dpred, dtarget) = jax.value_and_grad(MSE, argnums=(0, 1))(pred, target)
    assert value.dtype == jnp.float32 and value == 90000
    assert dpred.dtype == dtarget.dtype == jnp.float16 and dpred == 600 and dtarget == -600


@pytest.mark.parametrize(
    ("pred", "target", "value", "gradient"),
    [(1e30, 0.0, np.inf, 2e30), (2.0, 2.0, 0.0, 0.0), (np.inf, 1.0, np.inf, np.inf), (np.nan, 1.0, np.nan, np.nan)],
)
def test_limits(pred, target, value, gradient):
    got = jax.value_and_grad(MSE)(jnp.asarray([pred], jnp.float32), jnp.asarray([target], jnp.float32))
    np.testing.assert_allclose(got[0], value)
    np.testing.assert_allclose(got[1], [gradient], rtol=1e-6)


@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        (jnp.zeros((4, 1)), jnp.zeros(4), r"\[4, 1\].*\[4\].*nothing is broadcast"),
        (jnp.zeros((4, 1), jnp.int32), jnp.zeros((4, 1)), "pred is int32"),
        (jnp.zeros((4, 1)), jnp.zeros((4, 1), jnp.int32), "target is int32"),
        (jnp.zeros(()), jnp.zeros(()), "at least 1 dimension"),
        ([1.0], jnp.zeros(1), "pred is list"),
    ],
)
def test_errors(pred, target, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MSE(pred, target)

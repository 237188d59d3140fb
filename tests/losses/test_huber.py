"""Huber loss: values, limits, the option delta."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_limits, second_derivatives

huber = fdl.losses.huber


def test_value_as_in_keras():
    target, pred = jnp.asarray([[0.0, 1.0], [0.0, 0.0]]), jnp.asarray([[0.6, 0.4], [0.4, 0.6]])
    np.testing.assert_allclose(huber(pred, target).mean(), 0.155)


def test_limits():
    assert_limits(
        huber.bind(delta=0.7),
        ((0.0, 0.0), 0.0, (0.0, 0.0)),
        ((0.7, 0.0), 0.245, (0.7, -0.7)),
        ((-0.7, 0.0), 0.245, (-0.7, 0.7)),
        ((-2.0, 0.0), 0.7 * 1.65, (-0.7, 0.7)),
        ((1e30, 0.0), 0.7e30, (0.7, -0.7)),
        ((INF, 0.0), INF, (0.7, -0.7)),
        ((-INF, 0.0), INF, (-0.7, 0.7)),
        ((INF, INF), NAN, (NAN, NAN)),
        ((NAN, 0.0), NAN, (NAN, NAN)),
    )


def test_large_and_small_delta():
    assert_limits(huber.bind(delta=1e30), ((1e18, 0.0), 5e35, (1e18, None)))
    assert_limits(huber.bind(delta=1e-30), ((1e30, 0.0), 1.0, (1e-30, None)))


def test_second_derivative_on_both_sides_and_at_the_seam():
    got = second_derivatives(huber, [0.0, 0.5, 1.0, -1.0, 1.5], [0.0] * 5)
    np.testing.assert_array_equal(got, [1, 1, 1, 1, 0])


def test_delta_may_be_swept():
    deltas, pred = jnp.asarray([0.5, 1.0, 2.0], jnp.float32), jnp.asarray([1.5], jnp.float32)
    zero = jnp.zeros_like(pred)
    run = jax.value_and_grad(lambda pred, delta: huber(pred, zero, delta=delta))
    values, gradients = jax.vmap(run, in_axes=(None, 0))(pred, deltas)
    np.testing.assert_allclose(values, [0.5 * 1.25, 1.0, 1.125])
    np.testing.assert_allclose(gradients, [[0.5], [1.0], [1.5]])


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (0, "delta is 0, wanted 0 < delta"),
        (-1.0, "wanted 0 < delta"),
        (float("nan"), "delta is nan"),
        ("1", "delta is str.*number"),
        (jnp.ones(2), "delta is float"),
    ],
)
@pytest.mark.parametrize("loss", [huber, fdl.losses.pseudo_huber])
def test_errors(loss, delta, message):
    with pytest.raises((ValueError, TypeError), match=message):
        loss(jnp.zeros(3), jnp.zeros(3), delta=delta)

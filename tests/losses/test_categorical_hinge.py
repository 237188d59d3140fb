"""Categorical hinge loss: values, ties, masked classes."""

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from tests.losses.limits import INF, NAN, assert_limits

categorical_hinge = fdl.losses.categorical_hinge


def test_value_as_in_keras():
    target, pred = jnp.asarray([[1.0, 9, 2], [-5, -2, 6]]), jnp.asarray([[4.0, 8, 12], [8, 1, 3]])
    reference = np.maximum(0, np.max((1 - target) * pred, axis=1) - np.sum(target * pred, axis=1) + 1)
    np.testing.assert_allclose(categorical_hinge(pred, target), reference)
    target, pred = jnp.asarray([[0.0, 1.0], [0.0, 0.0]]), jnp.asarray([[0.6, 0.4], [0.4, 0.6]])
    np.testing.assert_allclose(categorical_hinge(pred, target).mean(), 1.4)


ROWS = {
    "wrong": ([0.5, 2.0, -1.0], [1, 0, 0], 2.5, [-1, 1, 0], [-0.5, -4.0, 1.0]),
    "right by the margin": ([3.0, 2.0, -1.0], [1, 0, 0], 0.0, [0, 0, 0], [0, 0, 0]),
    "right": ([9.0, 2.0, -1.0], [1, 0, 0], 0.0, [0, 0, 0], [0, 0, 0]),
    "the wanted class holds the maximum, 0": ([-1.0, -2.0, -3.0], [1, 0, 0], 2.0, [-1, 0, 0], [2.0, 2.0, 3.0]),
    "two tie": ([0.5, 2.0, 2.0], [1, 0, 0], 2.5, [-1, 1, 0], [-0.5, -4.0, -2.0]),
    "a masked class": ([0.5, 2.0, -INF], [1, 0, 0], 2.5, [-1, 1, 0], [-0.5, -4.0, INF]),
    "certain": ([INF, 2.0, 1.0], [1, 0, 0], 0.0, [0, 0, 0], [0, 0, 0]),
    "certain and wrong": ([0.5, INF, 1.0], [1, 0, 0], INF, [-1, 1, 0], [-0.5, -INF, -1.0]),
    "impossible": ([-INF, 2.0, 1.0], [1, 0, 0], INF, [-1, 1, 0], [INF, -4.0, -1.0]),
    "huge": ([-3e38, 3e38, 1.0], [1, 0, 0], INF, [-1, 1, 0], [3e38, -INF, -1.0]),
    "infinite on both sides": ([INF, INF, 1.0], [1, 0, 0], NAN, [NAN] * 3, [NAN] * 3),
    "NaN": ([0.5, NAN, 1.0], [1, 0, 0], NAN, [NAN] * 3, [NAN] * 3),
    "NaN where it is not the maximum": ([0.5, 9.0, NAN], [1, 0, 0], NAN, [NAN] * 3, [NAN] * 3),
    "NaN target": ([0.5, 9.0, 1.0], [1, 0, NAN], NAN, [NAN] * 3, [NAN] * 3),
}


def test_limits():
    rows = (((pred, target), value, (dpred, dtarget)) for pred, target, value, dpred, dtarget in ROWS.values())
    assert_limits(categorical_hinge, *rows)


def test_value_by_the_target_at_0_is_live(getkey):
    """The derivative of the value's own code, which a second derivative takes, is that of the formula at one-hot targets."""
    pred, target = jax.random.normal(getkey(), (4,), jnp.float64), jnp.asarray([0.0, 1.0, 0.0, 0.0], jnp.float64)
    of = lambda loss: jax.jacrev(jax.grad(lambda t: loss(pred, t) ** 2))(target)
    np.testing.assert_allclose(of(categorical_hinge), of(categorical_hinge.equation), rtol=1e-12)

"""Cosine similarity: sign, axis, scaling, zero vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_limits

cosine_similarity = fdl.losses.cosine_similarity
HALF = np.sqrt(0.5)


def test_value_as_in_keras():
    target, pred = jnp.asarray([[0.0, 1], [1, 1], [1, 1]]), jnp.asarray([[1.0, 0], [1, 1], [-1, -1]])
    np.testing.assert_allclose(cosine_similarity(pred, target), [0, -1, 1], atol=1e-15)
    np.testing.assert_allclose(cosine_similarity(pred, target, axis=0), cosine_similarity(pred.T, target.T), rtol=1e-15)


ROWS = {
    "of a cosine of 0.6": ([1.0, 0.0], [3.0, 4.0], -0.6, [0.0, -0.8], [-0.128, 0.096]),
    "one direction": ([2.0, 0.0], [3.0, 0.0], -1.0, [0.0, 0.0], [0.0, 0.0]),
    "a zero vector": ([0.0, 0.0], [3.0, 4.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    "a zero target": ([3.0, 4.0], [0.0, 0.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    "two zeros": ([0.0, 0.0], [0.0, 0.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    "tiny": ([1e-25, 0.0], [3.0, 4.0], -0.6, [0.0, -0.8e25], [-0.128, 0.096]),
    "huge": ([1e25, 0.0], [3.0, 4.0], -0.6, [0.0, -0.8e-25], [-0.128, 0.096]),
    "both tiny": ([1e-25, 1e-25], [1e-25, 0.0], -HALF, None, None),
    "both huge": ([1e25, 1e25], [1e25, 0.0], -HALF, None, None),
    "infinite": ([-INF, 5.0], [3.0, 4.0], 0.6, [0.0, 0.0], [0.128, -0.096]),
    "NaN": ([NAN, 1.0], [3.0, 4.0], NAN, [NAN, NAN], [NAN, NAN]),
    "NaN target": ([1.0, 1.0], [3.0, NAN], NAN, [NAN, NAN], [NAN, NAN]),
}


def test_limits():
    rows = (((pred, target), value, (dpred, dtarget)) for pred, target, value, dpred, dtarget in ROWS.values())
    assert_limits(cosine_similarity, *rows)


def test_second_derivative_beside_a_zero_vector_is_finite():
    zero, target = jnp.zeros(2, jnp.float64), jnp.asarray([3.0, 4.0], jnp.float64)
    np.testing.assert_array_equal(jax.hessian(cosine_similarity)(zero, target), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("axis", "message"), [(2, "axis is 2"), (-3, "axis is -3"), (None, "axis is"), ((0, 1), "axis is")]
)
def test_errors(axis, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cosine_similarity(jnp.ones((3, 2)), jnp.ones((3, 2)), axis=axis)

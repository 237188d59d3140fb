"""Contrastive loss: similar and other pairs, the margin, coinciding embeddings, labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_limits

contrastive = fdl.losses.contrastive
HALF = np.sqrt(0.5)

# pred, similar, loss, gradient; the target is 0 and the margin 10
ROWS = {
    "similar": ([3.0, 4.0], 1, 12.5, [3.0, 4.0]),
    "similar and equal": ([0.0, 0.0], 1, 0.0, [0.0, 0.0]),
    "similar and far": ([1e25, 0.0], 1, INF, [1e25, 0.0]),
    "similar and infinitely far": ([INF, 0.0], 1, INF, [INF, 0.0]),
    "other": ([3.0, 4.0], 0, 12.5, [-3.0, -4.0]),
    "other and equal": ([0.0, 0.0], 0, 50.0, [0.0, 0.0]),
    "other and close": ([1e-25, 1e-25], 0, 50.0, [-10 * HALF, -10 * HALF]),
    "other, at the margin": ([6.0, 8.0], 0, 0.0, [0.0, 0.0]),
    "other and far": ([1e25, 0.0], 0, 0.0, [0.0, 0.0]),
    "other and infinitely far": ([INF, 0.0], 0, 0.0, [0.0, 0.0]),
    "no label": ([3.0, 4.0], 2, NAN, [NAN, NAN]),
    "no label, -1": ([3.0, 4.0], -1, NAN, [NAN, NAN]),
    "NaN": ([NAN, 4.0], 0, NAN, [NAN, NAN]),
}


def test_limits():
    rows = (
        ((pred, [0.0, 0.0], jnp.asarray(similar)), value, (gradient, -np.asarray(gradient), None))
        for pred, similar, value, gradient in ROWS.values()
    )
    assert_limits(contrastive.bind(margin=10), *rows)


def test_a_pair_at_the_margin_has_a_finite_second_derivative():
    zero, other = jnp.zeros(2, jnp.float64), jnp.asarray(0)
    hessian = jax.hessian(contrastive)
    for pred in ([0.0, 0.0], [1.0, 0.0], [2.0, 0.0]):
        np.testing.assert_array_equal(hessian(jnp.asarray(pred, jnp.float64), zero, other), np.zeros((2, 2)))


def test_booleans_label_too(getkey):
    pred, target = jax.random.normal(getkey(), (2, 3, 5), jnp.float32)
    labels = jnp.asarray([1, 0, 1])
    np.testing.assert_array_equal(contrastive(pred, target, labels == 1), contrastive(pred, target, labels))


@pytest.mark.parametrize(
    ("similar", "margin", "message"),
    [
        (jnp.ones(3), 1.0, r"similar is float.*similar == 1"),
        (jnp.ones((3, 1), jnp.int32), 1.0, r"similar has shape \[3, 1\].*one label per pair"),
        ([1, 0, 1], 1.0, "similar is list"),
        (jnp.ones(3, jnp.int32), -1.0, "margin is -1.0, wanted 0 <= margin"),
    ],
)
def test_errors(similar, margin, message):
    with pytest.raises((ValueError, TypeError), match=message):
        contrastive(jnp.ones((3, 2)), jnp.ones((3, 2)), similar, margin=margin)

"""Categorical cross-entropy with integer labels: values of Keras, what is ignored, labels out of range, narrow labels, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_rows

SCCE, CCE = fdl.losses.sparse_categorical_crossentropy, fdl.losses.categorical_crossentropy


def f32(*values):
    return jnp.asarray(values, jnp.float32)


def test_values_of_keras():
    pred = f32([0.05, 0.95, 0], [0.1, 0.8, 0.1])
    np.testing.assert_allclose(SCCE(pred, jnp.asarray([1, 2])), [0.05129331, 2.30258512], rtol=1e-6)
    assert SCCE(pred[0], jnp.asarray(1)).shape == ()


@pytest.mark.parametrize("from_logits", [False, True])
def test_it_is_the_loss_of_the_one_hot_target(from_logits, getkey):
    pred = jax.random.uniform(getkey(), (4, 3, 5), jnp.float64, 0.1, 1.0)
    labels = jax.random.randint(getkey(), (4, 5), 0, 3)
    one_hot = jax.nn.one_hot(labels, 3, dtype=pred.dtype, axis=1)
    options = {"from_logits": from_logits, "axis": 1}
    np.testing.assert_allclose(SCCE(pred, labels, **options), CCE(pred, one_hot, **options), rtol=1e-14)


PROBABILITIES = {
    "the impossible wanted": ([0.0, 0.25, 0.75], 0, INF, [-INF, 1.0, 1.0]),
    "the impossible elsewhere": ([0.0, 0.25, 0.75], 1, np.log(4), [1.0, -3.0, 1.0]),
    "nearly impossible": ([1e-12, 0.25, 0.75], 0, 27.6310211, [-1e12, 1.0, 1.0]),
    "negative": ([-0.1, 0.5, 0.6], 1, NAN, [NAN] * 3),
    "no distribution": ([0.0, 0.0, 0.0], 1, NAN, [NAN] * 3),
    "NaN": ([NAN, 0.5, 0.6], 1, NAN, [NAN] * 3),
    "label 3 of 3": ([0.2, 0.3, 0.5], 3, NAN, [NAN] * 3),
    "label -1": ([0.2, 0.3, 0.5], -1, NAN, [NAN] * 3),
    "ignored": ([0.2, 0.3, 0.5], 255, 0.0, [0.0] * 3),
    "ignored NaN": ([NAN, INF, -1.0], 255, 0.0, [0.0] * 3),
}
LOGITS = {
    "overflow": ([1e30, 0.0, -1e30], 1, 1e30, [1.0, -1.0, 0.0]),
    "equal and huge": ([1e8, 1e8, 1e8], 0, np.log(3), [-2 / 3, 1 / 3, 1 / 3]),
    "a masked class": ([0.0, -INF, 0.0], 0, np.log(2), [-0.5, 0.0, 0.5]),
    "the masked class wanted": ([0.0, -INF, 0.0], 1, INF, [0.5, -1.0, 0.5]),
    "+inf elsewhere": ([INF, 0.0, 1.0], 1, INF, [1.0, -1.0, 0.0]),
    "label 7 of 3": ([0.2, 0.3, 0.5], 7, NAN, [NAN] * 3),
    "label -1": ([0.2, 0.3, 0.5], -1, NAN, [NAN] * 3),
    "NaN": ([NAN, 0.3, 0.5], 1, NAN, [NAN] * 3),
    "ignored": ([0.2, 0.3, 0.5], 255, 0.0, [0.0] * 3),
    "ignored NaN": ([NAN, INF, -1.0], 255, 0.0, [0.0] * 3),
}


def test_limits():
    assert_rows(SCCE, PROBABILITIES, target_dtype=jnp.int32, ignore_class=255)
    assert_rows(SCCE, LOGITS, target_dtype=jnp.int32, ignore_class=255, from_logits=True)


def test_all_ignored_is_nothing():
    value, gradient = jax.value_and_grad(lambda z: SCCE(z, jnp.full(2, -1), ignore_class=-1, from_logits=True).sum())(
        f32([1, 2], [NAN, 3])
    )
    assert value == 0 and (gradient == 0).all()


def test_a_label_without_weight_may_be_anything():
    weights = f32(0, 1)
    loss = lambda z: fdl.losses.mean(SCCE(z, jnp.asarray([-1, 0]), from_logits=True), weights)
    value, gradient = jax.value_and_grad(loss)(f32([NAN, 1], [0, 0]))
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(gradient, [[0, 0], [-0.5, 0.5]])


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8, jnp.int64])
def test_narrow_labels_reach_their_class_and_no_other(dtype):
    """300 classes do not fit 8 bits: class 256 + k is not class k."""
    pred = jnp.zeros(300, jnp.float32).at[7].set(1.0)
    gradient = jax.grad(lambda z: SCCE(z, jnp.asarray(7, dtype), from_logits=True))(pred)
    assert (gradient < 0).sum() == 1 and gradient[7] < 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SCCE(jnp.ones((2, 3)), jnp.zeros((2, 3), jnp.int32)), "categorical_crossentropy takes distributions"),
        (lambda: SCCE(jnp.ones((2, 3)), jnp.zeros((2, 1), jnp.int32)), r"wanted target of shape \[2\]: one label per"),
        (lambda: SCCE(jnp.ones((2, 3, 4)), jnp.zeros((2, 3), jnp.int32), axis=1), r"axis is 1; wanted .* \[2, 4\]"),
        (lambda: SCCE(jnp.ones((2, 3)), jnp.zeros(2)), "target is float.*integer"),
        (lambda: SCCE(jnp.ones((2, 3)), jnp.zeros(2, jnp.int32), ignore_class=1.0), "ignore_class is float 1.0"),
        (lambda: SCCE(jnp.ones((2, 3)), jnp.zeros(2, jnp.uint8), ignore_class=-1), "no uint8 label can be; convert"),
        (lambda: SCCE(jnp.ones((2, 3)), jnp.zeros(2, jnp.int32), from_logits=0), "from_logits is int 0"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

"""Categorical cross-entropy of probabilities and of logits: values of Keras, limits, scale, axes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_rows

CCE = fdl.losses.categorical_crossentropy


def f32(*values):
    return jnp.asarray(values, jnp.float32)


def test_values_of_keras():
    np.testing.assert_allclose(
        CCE(f32([0.05, 0.95, 0], [0.1, 0.8, 0.1]), f32([0, 1, 0], [0, 0, 1])), [0.05129331, 2.30258512], rtol=1e-6
    )
    target, pred = jnp.eye(3, dtype=jnp.float32), f32([0.9, 0.05, 0.05], [0.5, 0.89, 0.6], [0.05, 0.01, 0.94])
    np.testing.assert_allclose(CCE(pred, target), [0.10536055, 0.80466843, 0.06187541], rtol=2e-6)
    np.testing.assert_allclose(CCE(pred, target, label_smoothing=0.1), [0.29805201, 0.83703196, 0.3111138], rtol=2e-6)
    logits = f32([8, 1, 1], [0, 9, 1], [2, 3, 5])
    np.testing.assert_allclose(
        CCE(logits, target, from_logits=True), [0.001822, 0.00045873, 0.16984604], rtol=1e-5, atol=1e-6
    )
    smooth = CCE(f32([100, -100, -100]), f32([1, 0, 0]), from_logits=True, label_smoothing=0.1)
    np.testing.assert_allclose(smooth, [40 / 3], rtol=1e-6)


def test_the_scale_of_probabilities_does_not_count(getkey):
    p = jax.random.uniform(getkey(), (4, 3), jnp.float64, 0.1, 1.0)
    target = jax.nn.softmax(jax.random.normal(getkey(), (4, 3), jnp.float64))
    np.testing.assert_allclose(CCE(p, target), CCE(1e3 * p, target), rtol=1e-13)
    gradient = jax.grad(lambda p: CCE(p, target).sum())(p)
    np.testing.assert_allclose((p * gradient).sum(-1), 0, atol=1e-14)


@pytest.mark.parametrize("from_logits", [False, True])
def test_any_axis_is_the_last_one_moved(from_logits, getkey):
    pred, target = jax.random.uniform(getkey(), (2, 4, 3, 5), jnp.float64, 0.1, 1.0)
    options = {"from_logits": from_logits, "label_smoothing": 0.3}
    want = CCE(jnp.moveaxis(pred, 0, -1), jnp.moveaxis(target, 0, -1), **options)
    np.testing.assert_allclose(CCE(pred, target, axis=0, **options), want, rtol=1e-14)
    np.testing.assert_allclose(CCE(pred, target, axis=-3, **options), want, rtol=1e-14)


PROBABILITIES = {
    "nothing wanted of the impossible": ([0.0, 0.25, 0.75], [0.0, 1.0, 0.0], np.log(4), [1.0, -3.0, 1.0]),
    "the impossible wanted": ([0.0, 0.25, 0.75], [1.0, 0.0, 0.0], INF, [-INF, 1.0, 1.0]),
    "the impossible, written -0": ([-0.0, 0.25, 0.75], [1.0, 0.0, 0.0], INF, [-INF, 1.0, 1.0]),
    "nearly impossible": ([1e-12, 0.25, 0.75], [1.0, 0.0, 0.0], 27.6310211, [-1e12, 1.0, 1.0]),
    "not normalised": ([2.0, 0.5, 1.5], [0.0, 1.0, 0.0], np.log(8), [0.25, -1.75, 0.25]),
    "a target of sum 2": ([0.5, 0.25, 0.25], [1.0, 1.0, 0.0], np.log(8), [0.0, -2.0, 2.0]),
    "no distribution": ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0], NAN, [NAN, NAN, NAN]),
    "negative": ([-0.1, 0.5, 0.6], [0.0, 1.0, 0.0], NAN, [NAN, NAN, NAN]),
    "infinite": ([INF, 0.5, 0.6], [0.0, 1.0, 0.0], NAN, [NAN, NAN, NAN]),
    "NaN": ([NAN, 0.5, 0.6], [0.0, 1.0, 0.0], NAN, [NAN, NAN, NAN]),
    "NaN target": ([0.4, 0.5, 0.1], [NAN, 1.0, 0.0], NAN, [NAN, NAN, NAN]),
}
LOGITS = {
    "overflow": ([1e30, 0.0, -1e30], [0.0, 1.0, 0.0], 1e30, [1.0, -1.0, 0.0]),
    "confidently wrong": ([-1000.0, 0.0, 0.0], [1.0, 0.0, 0.0], 1000 + np.log(2), [-1.0, 0.5, 0.5]),
    "a masked class": ([0.0, -INF, 0.0], [1.0, 0.0, 0.0], np.log(2), [-0.5, 0.0, 0.5]),
    "the masked class wanted": ([0.0, -INF, 0.0], [0.0, 1.0, 0.0], INF, [0.5, -1.0, 0.5]),
    "+inf elsewhere": ([INF, 0.0, 1.0], [0.0, 1.0, 0.0], INF, [1.0, -1.0, 0.0]),
    "+inf on the label": ([INF, 0.0, 1.0], [1.0, 0.0, 0.0], 0.0, [0.0, 0.0, 0.0]),
    "no class possible": ([-INF, -INF, -INF], [1.0, 0.0, 0.0], NAN, [NAN, NAN, NAN]),
    "NaN": ([NAN, 0.5, 0.6], [0.0, 1.0, 0.0], NAN, [NAN, NAN, NAN]),
}


def test_limits():
    assert_rows(CCE, PROBABILITIES)
    assert_rows(CCE, LOGITS, from_logits=True)


def test_smoothing_wants_the_masked_class_too():
    pred, target = f32(0.0, -INF, 0.0), f32(1, 0, 0)
    loss = lambda z: CCE(z, target, from_logits=True, label_smoothing=0.3)
    value, gradient = jax.jit(jax.value_and_grad(loss))(pred)
    assert value == INF
    np.testing.assert_allclose(gradient, [-0.3, -0.1, 0.4], rtol=1e-6)


def test_second_derivatives_at_a_class_left_out():
    """- log p[0] + log(p[0] + p[1]) at (1, 0): the second derivatives are those of the sum alone."""
    hessian = jax.jit(jax.hessian(lambda p: CCE(p, f32(1, 0))))(f32(1, 0))
    np.testing.assert_allclose(hessian, [[0, -1], [-1, -1]], atol=1e-6)
    hessian = jax.jit(jax.hessian(lambda z: CCE(z, f32(1, 0, 0), from_logits=True)))(f32(0, 0, -INF))
    np.testing.assert_allclose(hessian, [[0.25, -0.25, 0], [-0.25, 0.25, 0], [0, 0, 0]], atol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CCE(jnp.ones((2, 3)), jnp.zeros(2, jnp.int32)), "target is int32"),
        (lambda: CCE(jnp.ones((2, 3)), jnp.ones((2, 1))), "nothing is broadcast"),
        (lambda: CCE(jnp.ones((2, 3)), jnp.ones((2, 3)), axis=2), r"axis is 2.*-2 <= axis < 2"),
        (lambda: CCE(jnp.ones((2, 3)), jnp.ones((2, 3)), axis=True), "axis is bool True, wanted an integer"),
        (lambda: CCE(jnp.ones((2, 3)), jnp.ones((2, 3)), label_smoothing=2), "label_smoothing is 2, wanted"),
        (lambda: CCE(jnp.ones((2, 3)), jnp.ones((2, 3)), from_logits=None), "from_logits is NoneType None"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

"""Binary cross-entropy of probabilities and of logits: values of Keras, limits, second derivatives, options, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_rows

BCE = fdl.losses.binary_crossentropy


def f32(*values):
    return jnp.asarray(values, jnp.float32)


def test_values_of_keras():
    pred, target = f32([0.6, 0.4], [0.4, 0.6]), f32([0, 1], [0, 0])
    np.testing.assert_allclose(BCE(pred, target), [0.91629076, 0.7135582], rtol=1e-6)
    np.testing.assert_allclose(BCE(pred, target, label_smoothing=0.2), [0.87574422, 0.71355814], rtol=1e-6)
    logits, target = f32([100, -100, 100], [100, 100, -100]), f32([1, 0, 1], [0, 1, 1])
    np.testing.assert_allclose(BCE(logits, target, from_logits=True), [0, 200 / 3], rtol=1e-6)
    smooth = BCE(logits, target, from_logits=True, label_smoothing=0.1)
    np.testing.assert_allclose(smooth, [5, 65], rtol=1e-6)
    assert fdl.losses.get("bce") is BCE


def test_rank_one_gives_one_number_and_axis_is_averaged():
    pred, target = f32([0.6, 0.4, 0.3], [0.4, 0.6, 0.9]), f32([0, 1, 1], [0, 0, 1])
    assert BCE(pred[0], target[0]).shape == ()
    by_column = jnp.stack([BCE(pred[:, i], target[:, i]) for i in range(3)])
    np.testing.assert_allclose(BCE(pred, target, axis=0), by_column, rtol=1e-6)
    np.testing.assert_allclose(BCE(pred, target, axis=-2), by_column, rtol=1e-6)


def test_of_probabilities_and_of_logits_agree(getkey):
    logits, target = 2 * jax.random.normal(getkey(), (2, 3), jnp.float64), jnp.asarray([[0.2, 1, 0], [0.5, 0, 1]])
    p = jax.nn.sigmoid(logits)
    np.testing.assert_allclose(BCE(p, target), BCE(logits, target, from_logits=True), rtol=1e-12)
    dlogits = jax.grad(lambda z: BCE(z, target, from_logits=True).sum())(logits)
    np.testing.assert_allclose(dlogits, (p - target) / 3, rtol=1e-12, atol=1e-16)


PROBABILITIES = {
    "right and sure: 0": (0.0, 0.0, 0.0, 1.0, INF),
    "right and sure: 1": (1.0, 1.0, 0.0, -1.0, -INF),
    "right and sure: -0": (-0.0, 0.0, 0.0, 1.0, INF),
    "wrong and nearly sure": (1e-12, 1.0, 27.6310211, -1e12, 27.6310211),
    "right and nearly sure": (1e-12, 0.0, 1e-12, 1.0, 27.6310211),
    "wrong and sure: 0": (0.0, 1.0, INF, -INF, INF),
    "wrong and sure: -0": (-0.0, 1.0, INF, -INF, INF),
    "wrong and sure: 1": (1.0, 0.0, INF, INF, -INF),
    "soft": (0.25, 0.5, -0.5 * np.log(3 / 16), -4 / 3, np.log(3)),
    "a target above 1": (0.5, 1.5, np.log(2), -4.0, 0.0),
    "above 1": (1.5, 1.0, NAN, NAN, NAN),
    "below 0": (-0.1, 0.0, NAN, NAN, NAN),
    "NaN": (NAN, 1.0, NAN, NAN, NAN),
    "NaN target": (0.5, NAN, NAN, NAN, None),
}


def test_limits_of_probabilities():
    assert_rows(BCE, PROBABILITIES)


def test_second_derivatives_of_probabilities_where_they_are_finite():
    second = jax.jit(jax.vmap(jax.hessian(lambda p, t: BCE(p[None], t[None]))))
    np.testing.assert_allclose(second(f32(0, 1, 0.5, 0.5), f32(0, 1, 1, 0)), [1, 1, 4, 4], rtol=1e-6)


def test_a_traced_smoothing_is_swept():
    pred, target = f32(0.2, 0.7), f32(0, 1)
    rates = f32(0.0, 0.1, 0.5)
    swept = jax.vmap(lambda s: BCE(pred, target, label_smoothing=s))(rates)
    np.testing.assert_allclose(swept, [BCE(pred, target, label_smoothing=float(s)) for s in rates], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5, wanted 0 <= label_smoothing <= 1"),
        ({"from_logits": 1}, "from_logits is int 1, wanted True or False"),
        ({"axis": 2}, r"axis is 2, but the array is float32\[2, 3\]; wanted -2 <= axis < 2"),
        ({"axis": None}, "axis is NoneType None, wanted an integer"),
        ({"axis": 1.0}, "axis is float 1.0, wanted an integer"),
    ],
)
def test_errors_of_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        BCE(jnp.zeros((2, 3), jnp.float32), jnp.zeros((2, 3), jnp.float32), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BCE(jnp.zeros((4, 1)), jnp.zeros(4)), "nothing is broadcast"),
        (lambda: BCE(jnp.zeros((4, 1)), jnp.zeros((4, 1), bool)), "target is bool"),
        (lambda: BCE(jnp.zeros(()), jnp.zeros(())), "at least 1 dimension"),
        (lambda: BCE(jnp.zeros((2, 0)), jnp.zeros((2, 0))), "an example without entries along axis -1"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

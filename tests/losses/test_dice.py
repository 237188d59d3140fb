"""Dice and Tversky: Keras's values, every row of their limits tables, axes, options, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_rows

dice, tversky = fdl.losses.dice, fdl.losses.tversky

# Keras's documented examples
SMALL = jnp.asarray([[4.0, 1.0], [6.0, 1.0]], jnp.float32), jnp.asarray([[1.0, 2.0], [1.0, 2.0]], jnp.float32)
IMAGES = (
    jnp.asarray([[[[0.0], [1.0]], [[0.0], [1.0]]], [[[0.4], [0.0]], [[0.0], [0.9]]]], jnp.float32),
    jnp.asarray([[[[1.0], [1.0]], [[0.0], [0.0]]], [[[1.0], [1.0]], [[0.0], [0.0]]]], jnp.float32),
)
BITS = (
    jnp.asarray([[0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [1, 0, 1, 1]], jnp.float32),
    jnp.asarray([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], jnp.float32),
)


@pytest.mark.parametrize(
    ("loss", "masks", "axis", "want"),
    [
        (dice, SMALL, None, -0.55555546),
        (dice, BITS, None, 0.77777773),
        (dice, IMAGES, None, 0.6164384),
        (dice, IMAGES, (1, 2, 3), [0.5, 0.75757575]),
        (dice, IMAGES, "example", [0.5, 0.75757575]),
        (tversky, SMALL, None, -0.55555546),
        (tversky, IMAGES, "example", [0.5, 0.75757575]),
        (tversky.bind(alpha=0.2, beta=0.8), SMALL, None, -0.29629636),
        (tversky.bind(alpha=0.2, beta=0.8), BITS, None, 0.7916667),
        (tversky.bind(alpha=0.2, beta=0.8), IMAGES, (1, 2, 3), [0.5, 0.7222222]),
    ],
)
def test_values_as_in_keras(loss, masks, axis, want):
    np.testing.assert_allclose(loss(*masks, axis=axis), want, rtol=1e-6)


def test_one_value_per_example_and_one_for_a_vector():
    assert dice(*IMAGES).shape == tversky(*IMAGES).shape == (2,)
    np.testing.assert_allclose(dice(IMAGES[0].ravel(), IMAGES[1].ravel()), 0.6164384, rtol=1e-6)


def test_alpha_is_the_price_of_what_was_missed():
    pred, target = jnp.asarray([[0.0, 1.0]], jnp.float32), jnp.ones((1, 2), jnp.float32)
    np.testing.assert_allclose(tversky(pred, target, alpha=3.0, beta=0.0), [0.75])
    np.testing.assert_allclose(tversky(target, pred, alpha=3.0, beta=0.0), [0.0])


# pred, target, loss, dpred, dtarget
ROWS = {
    "both empty": ([0.0, 0.0], [0.0, 0.0], 1.0, [0.0, 0.0], [0.0, 0.0]),
    "both empty, minus 0": ([-0.0, 0.0], [0.0, -0.0], 1.0, [0.0, 0.0], [0.0, 0.0]),
    "target empty": ([0.2, 0.4], [0.0, 0.0], 1.0, [0.0, 0.0], [-2 / 3, -4 / 3]),
    "pred empty": ([0.0, 0.0], [1.0, 1.0], 1.0, [-1.0, -1.0], [0.0, 0.0]),
    "right": ([1.0, 0.0], [1.0, 0.0], 0.0, [-0.5, 0.5], [-0.5, 0.5]),
    "NaN": ([NAN, 0.0], [1.0, 0.0], NAN, [NAN, NAN], [NAN, NAN]),
}
NO_MASKS = {"1e30": ([1e30, 1e30], [1e30, 1e30], -INF, [INF, INF], [INF, INF])}
SMOOTHED = {
    "both empty": ([0.0, 0.0], [0.0, 0.0], 0.0, [1.0, 1.0], [1.0, 1.0]),
    "target empty": ([0.5, 0.5], [0.0, 0.0], 0.5, [0.25, 0.25], [-0.25, -0.25]),
}
FREE = {  # what is missed costs nothing, or what is a false alarm
    "alpha 0, pred empty": ([0.0, 0.0], [1.0, 0.5], 1.0, [-1.0, -0.5], [0.0, 0.0]),
    "alpha 0, both empty": ([0.0, 0.0], [0.0, 0.0], 1.0, [0.0, 0.0], [0.0, 0.0]),
}


@pytest.mark.parametrize("loss", [dice, tversky], ids=["dice", "tversky"])
def test_limits(loss):
    assert_rows(loss, ROWS)


def test_entries_that_are_no_masks_are_loud():
    assert_rows(dice, NO_MASKS)
    value, gradient = jax.value_and_grad(tversky)(*(jnp.full(2, 1e30, jnp.float32) for _ in range(2)))
    assert jnp.isnan(value) and jnp.isnan(gradient).all()


def test_limits_smoothed():
    assert_rows(dice, SMOOTHED, smooth=1.0)
    assert_rows(tversky, SMOOTHED, smooth=0.5)


def test_limits_of_free_errors():
    assert_rows(tversky, FREE, alpha=0.0)
    assert_rows(tversky, {"beta 0": ([0.5, 1.0], [0.0, 0.0], 1.0, [0.0, 0.0], [-0.5, -1.0])}, beta=0.0)


def test_an_example_without_weight_may_hold_nan():
    pred, target = jnp.asarray([[NAN, 1.0], [0.5, 1.0]], jnp.float32), jnp.ones((2, 2), jnp.float32)
    for loss in (dice, tversky):
        for gradient in jax.vjp(loss, pred, target)[1](jnp.asarray([0.0, 1.0], jnp.float32)):
            assert (gradient[0] == 0).all() and jnp.isfinite(gradient[1]).all() and gradient[1].any()


def test_options_can_be_swept():
    sweep = jnp.asarray([0.2, 0.9], jnp.float32)
    got = jax.vmap(lambda a: tversky(*IMAGES, alpha=a, beta=1 - a, smooth=a))(sweep)
    want = [tversky(*IMAGES, alpha=float(a), beta=float(1 - a), smooth=float(a)) for a in sweep]
    np.testing.assert_allclose(got, jnp.stack(want), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda a: dice(*IMAGES, smooth=2 * a))(sweep)[0], dice(*IMAGES, smooth=0.4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dice(jnp.zeros((2, 3)), jnp.zeros((2, 1))), "nothing is broadcast"),
        (lambda: tversky(jnp.zeros((2, 3)), jnp.zeros((2, 3), jnp.int32)), "target is int32"),
        (lambda: dice(jnp.zeros(()), jnp.zeros(())), "examples first"),
        (lambda: dice(jnp.zeros((2, 3)), jnp.zeros((2, 3)), axis=2), r"axis is 2, pred has 2 dimension"),
        (lambda: dice(jnp.zeros((2, 3)), jnp.zeros((2, 3)), axis="all"), "None or 'example'"),
        (lambda: tversky(jnp.zeros((2, 3)), jnp.zeros((2, 3)), axis=(1, -1)), "an axis twice"),
        (lambda: dice(jnp.zeros((2, 3)), jnp.zeros((2, 3)), smooth=-1.0), "smooth is -1.0"),
        (lambda: tversky(jnp.zeros((2, 3)), jnp.zeros((2, 3)), alpha="a"), "alpha is str"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

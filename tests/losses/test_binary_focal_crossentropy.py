"""Binary focal cross-entropy: values of Keras, limits of both forms, no saturation, options, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_rows

FOCAL = fdl.losses.binary_focal_crossentropy


def f32(*values):
    return jnp.asarray(values, jnp.float32)


def test_values_of_keras():
    pred, target = f32([0.6, 0.4], [0.4, 0.6]), f32([0, 1], [0, 0])
    np.testing.assert_allclose(FOCAL(pred, target), [0.32986468, 0.20579839], rtol=1e-6)
    balanced = FOCAL(pred, target, apply_class_balancing=True)
    np.testing.assert_allclose(balanced, [0.16493234, 0.15434879], rtol=1e-6)
    np.testing.assert_allclose(FOCAL(pred, target, label_smoothing=0.1), [0.31190372, 0.20059071], rtol=1e-6)
    logits, target = f32([1.5, -2.7, 2.9, -1.8], [2.0, -1.0, 0.5, -0.3]), f32([1, 0, 1, 0], [0, 1, 1, 0])
    np.testing.assert_allclose(FOCAL(logits, target, from_logits=True), [0.00254616, 0.62997818], rtol=2e-6)
    every = {"gamma": 0.5, "apply_class_balancing": True, "alpha": 0.3, "label_smoothing": 0.1}
    np.testing.assert_allclose(FOCAL(logits, target, from_logits=True, **every), [0.0436977, 0.48997155], rtol=2e-6)


def test_without_gamma_it_is_binary_crossentropy(getkey):
    logits, target = jax.random.normal(getkey(), (2, 3), jnp.float64), jnp.asarray([[0.2, 1, 0], [0.5, 0, 1]])
    plain = fdl.losses.binary_crossentropy(logits, target, from_logits=True)
    np.testing.assert_allclose(FOCAL(logits, target, from_logits=True, gamma=0.0), plain, rtol=1e-13)


LOGITS = {
    "right, +1000": (1000.0, 1.0, 0.0, 0.0, 0.0),
    "right, -1000": (-1000.0, 0.0, 0.0, 0.0, 0.0),
    "right and sure": (INF, 1.0, 0.0, 0.0, 0.0),
    "wrong, -1000": (-1000.0, 1.0, 1000.0, -1.0),
    "wrong, +1000": (1000.0, 0.0, 1000.0, 1.0),
    "wrong, -3e38": (-3e38, 1.0, 3e38, -1.0),
    "right, -3e38": (-3e38, 0.0, 0.0, 0.0),
    "wrong and sure": (-INF, 1.0, INF, -1.0),
    "wrong and sure, +inf": (INF, 0.0, INF, 1.0),
    "NaN": (NAN, 1.0, NAN, NAN),
    "NaN target": (1.0, NAN, NAN, NAN),
}
PROBABILITIES = {
    "right: 1": (1.0, 1.0, 0.0, 0.0, 0.0),
    "right: 0": (0.0, 0.0, 0.0, 0.0, 0.0),
    "wrong and sure: 0": (0.0, 1.0, INF, -INF),
    "wrong and sure: -0": (-0.0, 1.0, INF, -INF),
    "wrong and sure: 1": (1.0, 0.0, INF, INF),
    "soft and sure: 0": (0.0, 0.25, INF, -INF),
    "soft and sure: 1": (1.0, 0.25, INF, INF),
    "wrong and nearly sure": (1e-12, 1.0, 27.6310211, -1e12),
    "above 1": (1.5, 1.0, NAN, NAN),
    "below 0": (-0.1, 0.0, NAN, NAN),
    "NaN": (NAN, 1.0, NAN, NAN),
    "NaN target": (0.5, NAN, NAN, NAN),
}


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_limits(gamma):
    assert_rows(FOCAL, LOGITS, from_logits=True, gamma=gamma)
    assert_rows(FOCAL, PROBABILITIES, gamma=gamma)


def test_limits_with_class_balancing():
    rows = {
        "right": (1000.0, 1.0, 0.0, 0.0, 0.0),
        "wrong": (-1000.0, 1.0, 300.0, -0.3),
        "wrong, class 0": (1000.0, 0.0, 700.0, 0.7),
        "wrong and sure": (-INF, 1.0, INF, -0.3),
    }
    assert_rows(FOCAL, rows, from_logits=True, apply_class_balancing=True, alpha=0.3, rtol=1e-5)
    # a class without weight does not count, however wrong
    rows = {"no weight": (-INF, 1.0, 0.0, 0.0), "all weight": (INF, 0.0, INF, 1.0)}
    assert_rows(FOCAL, rows, from_logits=True, apply_class_balancing=True, alpha=0.0)


def test_the_tail_is_alive_in_float32():
    """(1 - p)^2 (-log p) at z = 20 is e^-60, with slope -3 e^-60."""
    assert_rows(FOCAL, {"tail": (20.0, 1.0, np.exp(-60), -3 * np.exp(-60))}, from_logits=True, rtol=1e-5)


def test_second_derivatives():
    z, t = f32(0, 1000, -1000, INF, -INF, 1000), f32(1, 1, 1, 1, 1, 0)
    for gamma in (0.5, 2.0):
        loss = lambda z, t, gamma=gamma: FOCAL(z[None], t[None], from_logits=True, gamma=gamma)
        second = jax.jit(jax.vmap(jax.hessian(loss)))(z, t)
        assert (second[1:] == 0).all() and second[0] > 0.01
    # v^gamma log(1/(1-v)) at v = 1 - p = 0: v^(gamma + 1) has second derivative 2 for gamma = 1, 0 for 2, 1 for 0
    for gamma, want in ((1.0, 2.0), (2.0, 0.0), (0.0, 1.0)):
        loss = lambda p, gamma=gamma: FOCAL(p[None], f32(1.0), gamma=gamma)
        np.testing.assert_allclose(jax.jit(jax.hessian(loss))(jnp.float32(1)), want, rtol=1e-6)


def test_traced_options_are_swept():
    pred, target, gammas, alphas = f32(0.2, 0.7), f32(0, 1), f32(0, 0.5, 2), f32(0.1, 0.5, 0.9)
    options = lambda gamma, alpha: {"gamma": gamma, "alpha": alpha, "apply_class_balancing": True}
    gradient = lambda gamma, alpha: jax.grad(lambda p: FOCAL(p, target, **options(gamma, alpha)))(pred)
    fixed = lambda gamma, alpha: jax.jit(lambda: gradient(gamma, alpha))()
    want = [fixed(float(g), float(a)) for g, a in zip(gammas, alphas, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(gammas, alphas), want, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1}, "gamma is -1, wanted 0 <= gamma"),
        ({"alpha": 1.5}, "alpha is 1.5, wanted 0 <= alpha <= 1; it is the weight of class 1"),
        ({"apply_class_balancing": 1}, "apply_class_balancing is int 1, wanted True or False"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"axis": 1}, "axis is 1"),
    ],
)
def test_errors(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FOCAL(f32(0.5), f32(1.0), **options)

"""Categorical focal cross-entropy: values of Keras, class weights, limits of both forms, second derivatives, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_rows

FOCAL = fdl.losses.categorical_focal_crossentropy


def f32(*values):
    return jnp.asarray(values, jnp.float32)


def test_values_of_keras():
    np.testing.assert_allclose(
        FOCAL(f32([0.05, 0.9, 0.05], [0.1, 0.85, 0.05]), f32([0, 1, 0], [0, 0, 1])),
        [2.63401482e-04, 6.75912082e-01],
        rtol=3e-6,
    )
    target, pred = jnp.eye(3, dtype=jnp.float32), f32([0.9, 0.05, 0.05], [0.5, 0.89, 0.6], [0.05, 0.01, 0.94])
    want = [0.00033318, 0.06613881, 0.00027281]
    for alpha in ([0.1, 0.2, 0.3], f32(0.1, 0.2, 0.3)):
        np.testing.assert_allclose(FOCAL(pred, target, alpha=alpha, gamma=1.5), want, rtol=2e-5)
    logits = f32([8, 1, 1], [0, 9, 1], [2, 3, 5])
    smooth = FOCAL(logits, target, from_logits=True, label_smoothing=0.1)
    np.testing.assert_allclose(smooth, [0.11648469, 0.1416111, 0.03939765], rtol=2e-6)


def test_without_gamma_it_is_categorical_crossentropy(getkey):
    logits = jax.random.normal(getkey(), (2, 3), jnp.float64)
    target = jax.nn.softmax(jax.random.normal(getkey(), (2, 3), jnp.float64))
    plain = fdl.losses.categorical_crossentropy(logits, target, from_logits=True)
    np.testing.assert_allclose(FOCAL(logits, target, from_logits=True, gamma=0.0, alpha=1.0), plain, rtol=1e-13)


def test_class_weights_lie_along_the_axis(getkey):
    pred = jax.random.uniform(getkey(), (3, 4), jnp.float64, 0.1, 1.0)
    target = jax.random.uniform(getkey(), (3, 4), jnp.float64)
    want = FOCAL(pred.T, target.T, alpha=(0.1, 0.2, 0.3))
    np.testing.assert_allclose(FOCAL(pred, target, alpha=(0.1, 0.2, 0.3), axis=0), want, rtol=1e-14)


LOGITS = {
    "right by 1000": ([1000.0, 0.0], [1.0, 0.0], 0.0, [0.0, 0.0]),
    "right and sure": ([INF, 0.0], [1.0, 0.0], 0.0, [0.0, 0.0]),
    "wrong by 1000": ([-1000.0, 0.0], [1.0, 0.0], 1000.0, [-1.0, 1.0]),
    "wrong by 1e30": ([-1e30, 0.0], [1.0, 0.0], 1e30, [-1.0, 1.0]),
    "wrong and sure": ([-INF, 0.0], [1.0, 0.0], INF, [-1.0, 1.0]),
    "a masked class": ([0.0, -INF], [1.0, 0.0], 0.0, [0.0, 0.0]),
    "no class possible": ([-INF, -INF], [1.0, 0.0], NAN, [NAN, NAN]),
    "NaN": ([NAN, 0.0], [1.0, 0.0], NAN, [NAN, NAN]),
}
PROBABILITIES = {
    "right": ([1.0, 0.0], [1.0, 0.0], 0.0, [0.0, 0.0]),
    "the impossible wanted": ([0.0, 1.0], [1.0, 0.0], INF, [-INF, 1.0]),
    "the impossible, written -0": ([-0.0, 1.0], [1.0, 0.0], INF, [-INF, 1.0]),
    "nearly impossible": ([1e-12, 1.0], [1.0, 0.0], 27.6310211, [-1e12, 1.0]),
    "no distribution": ([0.0, 0.0], [1.0, 0.0], NAN, [NAN, NAN]),
    "negative": ([1.1, -0.1], [1.0, 0.0], NAN, [NAN, NAN]),
    "infinite": ([INF, 0.5], [0.0, 1.0], NAN, [NAN, NAN]),
    "NaN": ([NAN, 0.5], [0.0, 1.0], NAN, [NAN, NAN]),
}


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_limits(gamma):
    assert_rows(FOCAL, LOGITS, from_logits=True, gamma=gamma, alpha=1.0)
    assert_rows(FOCAL, PROBABILITIES, gamma=gamma, alpha=1.0)


def test_two_classes_are_the_binary_loss(getkey):
    """Also where the answer is nearly right: the tail is alive in float32, on the label too."""
    binary = fdl.losses.binary_focal_crossentropy
    z = jnp.linspace(-20, 20, 9, dtype=jnp.float32)
    pairs, labels = jnp.stack([z, jnp.zeros_like(z)], axis=-1), jnp.broadcast_to(f32(1, 0), (9, 2))
    options = {"from_logits": True, "gamma": 0.5}
    want, slope = jax.vjp(lambda z: binary(z[:, None], jnp.ones((9, 1), jnp.float32), **options), z)
    got, slopes = jax.vjp(lambda pairs: FOCAL(pairs, labels, alpha=1.0, **options), pairs)
    np.testing.assert_allclose(got, want, rtol=2e-6)
    dloss = jax.random.normal(getkey(), (9,), jnp.float32)
    (dz,), (dpairs,) = slope(dloss), slopes(dloss)
    np.testing.assert_allclose(dpairs, jnp.stack([dz, -dz], axis=-1), rtol=4e-6)


def test_second_derivatives_at_a_tie():
    """Four equal classes: the sum of the others holds those that are as large."""
    for from_logits in (False, True):
        options = {"from_logits": from_logits, "gamma": 1.5}
        got, want = (
            jax.jit(jax.hessian(lambda x, loss=loss, options=options: loss(x, f32(0, 1, 0, 0), **options)))(
                f32(2, 2, 2, 2)
            )
            for loss in (FOCAL, FOCAL.equation)
        )
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_second_derivatives_are_finite_where_a_class_is_left_out():
    logits = lambda z: FOCAL(z, f32(1, 0, 0), from_logits=True, gamma=0.5, alpha=1.0)
    hessian = jax.jit(jax.hessian(logits))(f32(0, 0, -INF))
    pair = jax.jit(jax.hessian(lambda z: FOCAL(z, f32(1, 0), from_logits=True, gamma=0.5, alpha=1.0)))(f32(0, 0))
    np.testing.assert_allclose(hessian[:2, :2], pair, rtol=1e-6)
    assert (hessian[2] == 0).all() and (hessian[:, 2] == 0).all()
    # (1 - q)(-log q) with q = p[0] / (p[0] + p[1]) is (p[1] / p[0])^2 near (1, 0)
    hessian = jax.jit(jax.hessian(lambda p: FOCAL(p, f32(1, 0), gamma=1.0, alpha=1.0)))(f32(1, 0))
    np.testing.assert_allclose(hessian, [[0, 0], [0, 2]], atol=1e-6)


def test_traced_options_are_swept():
    pred, target, gammas = f32(0.2, 0.8), f32(0, 1), f32(0, 0.5, 2)
    alphas = f32([0.1, 0.2], [0.3, 0.4], [0.5, 0.6])
    gradient = lambda gamma, alpha: jax.grad(lambda p: FOCAL(p, target, gamma=gamma, alpha=alpha))(pred)
    fixed = lambda gamma, alpha: jax.jit(lambda: gradient(gamma, alpha))()
    want = [fixed(float(g), tuple(map(float, a))) for g, a in zip(gammas, alphas, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(gammas, alphas), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": [0.1, 0.2, 0.3]}, "alpha has 3 entries, wanted one for each of the 2 classes along axis -1"),
        ({"alpha": (0.1, -0.2)}, "alpha is -0.2, wanted 0 <= alpha"),
        ({"alpha": "balanced"}, "alpha is str 'balanced', wanted a number"),
        ({"gamma": -1}, "gamma is -1, wanted 0 <= gamma"),
        ({"from_logits": 1}, "from_logits is int 1"),
        ({"axis": 1}, "axis is 1"),
    ],
)
def test_errors(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FOCAL(f32(0.5, 0.5), f32(1.0, 0.0), **options)

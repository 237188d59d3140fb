"""Keras's losses against fdl's: the same values and gradients where Keras does not clip, and both answers where it does.

Runs where Keras is installed (`pip install "fdl[bench]"`) on the JAX backend, and says so where it is not. A loss adds its rows
to SAME and to CLIPPED; keep them in alphabetical order.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import losses as L

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason='Keras is not installed: pip install "fdl[bench]"')
if keras.backend.backend() != "jax":
    pytest.skip(f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax", allow_module_level=True)
K = keras.losses


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def one_hot(n: int, classes: int, seed: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.random.default_rng(seed).integers(0, classes, n)]


def f32(*values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


REAL = (normal(5, 7), normal(5, 7, seed=1))
POSITIVE = (np.exp(normal(5, 7)), np.exp(normal(5, 7, seed=1)))
SIGNS = (normal(5, 7), np.sign(normal(5, 7, seed=1)))
BITS = (normal(5, 7), (normal(5, 7, seed=1) > 0).astype(np.float32))
CLASSES = (normal(5, 7), one_hot(5, 7))


CHANCES = (1 / (1 + np.exp(-REAL[0])), BITS[1])
SOFT = (REAL[0], 1 / (1 + np.exp(-REAL[1])))
MASSES = (POSITIVE[0], one_hot(5, 7))
DISTRIBUTIONS = tuple(x / x.sum(-1, keepdims=True) for x in POSITIVE)
LABELS = np.random.default_rng(4).integers(0, 7, 5).astype(np.int32)
VOID = np.asarray([3, 255, 0, 255, 6], np.int32)


MASKS = CHANCES[0].reshape(5, 1, 7), SOFT[1].reshape(5, 1, 7)
EMPTY = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
UNIT = REAL[0] / np.linalg.norm(REAL[0], axis=1, keepdims=True)
PERSONS = np.asarray([0, 1, 0, 1, 2], np.int32)
OTHERS = REAL[1][:4] / np.linalg.norm(REAL[1][:4], axis=1, keepdims=True), np.asarray([2, 0, 1, 1], np.int32)
FRAMES = normal(3, 6, 5), np.asarray([[1, 1, 2], [3, 0, 0], [4, 2, 4]], np.int32)


class Same(NamedTuple):
    """fdl's call and Keras's, as functions of (pred, target), and the inputs."""

    ours: Callable
    theirs: Callable
    inputs: tuple[np.ndarray, ...]


SAME = {
    "binary_crossentropy": Same(L.binary_crossentropy, lambda p, t: K.binary_crossentropy(t, p), CHANCES),
    "binary_crossentropy, logits": Same(
        L.binary_crossentropy.bind(from_logits=True), lambda p, t: K.binary_crossentropy(t, p, from_logits=True), SOFT
    ),
    "binary_crossentropy, logits, smoothed": Same(
        L.binary_crossentropy.bind(from_logits=True, label_smoothing=0.2),
        lambda p, t: K.binary_crossentropy(t, p, from_logits=True, label_smoothing=0.2),
        BITS,
    ),
    "binary_crossentropy, smoothed along axis 0": Same(
        L.binary_crossentropy.bind(label_smoothing=0.2, axis=0),
        lambda p, t: K.binary_crossentropy(t, p, label_smoothing=0.2, axis=0),
        CHANCES,
    ),
    "binary_focal_crossentropy": Same(
        L.binary_focal_crossentropy, lambda p, t: K.binary_focal_crossentropy(t, p), CHANCES
    ),
    "binary_focal_crossentropy, balanced": Same(
        L.binary_focal_crossentropy.bind(apply_class_balancing=True, alpha=0.4, gamma=0.5),
        lambda p, t: K.binary_focal_crossentropy(t, p, apply_class_balancing=True, alpha=0.4, gamma=0.5),
        CHANCES,
    ),
    "binary_focal_crossentropy, logits": Same(
        L.binary_focal_crossentropy.bind(from_logits=True),
        lambda p, t: K.binary_focal_crossentropy(t, p, from_logits=True),
        BITS,
    ),
    "binary_focal_crossentropy, logits, every option": Same(
        L.binary_focal_crossentropy.bind(
            from_logits=True, apply_class_balancing=True, alpha=0.4, gamma=1.5, label_smoothing=0.1, axis=0
        ),
        lambda p, t: K.binary_focal_crossentropy(
            t, p, from_logits=True, apply_class_balancing=True, alpha=0.4, gamma=1.5, label_smoothing=0.1, axis=0
        ),
        SOFT,
    ),
    "binary_focal_crossentropy, smoothed along axis 0": Same(
        L.binary_focal_crossentropy.bind(label_smoothing=0.2, axis=0),
        lambda p, t: K.binary_focal_crossentropy(t, p, label_smoothing=0.2, axis=0),
        CHANCES,
    ),
    "categorical_crossentropy": Same(L.categorical_crossentropy, lambda p, t: K.categorical_crossentropy(t, p), MASSES),
    "categorical_crossentropy, axis 0": Same(
        L.categorical_crossentropy.bind(axis=0), lambda p, t: K.categorical_crossentropy(t, p, axis=0), DISTRIBUTIONS
    ),
    "categorical_crossentropy, logits": Same(
        L.categorical_crossentropy.bind(from_logits=True),
        lambda p, t: K.categorical_crossentropy(t, p, from_logits=True),
        CLASSES,
    ),
    "categorical_crossentropy, logits, smoothed": Same(
        L.categorical_crossentropy.bind(from_logits=True, label_smoothing=0.2),
        lambda p, t: K.categorical_crossentropy(t, p, from_logits=True, label_smoothing=0.2),
        CLASSES,
    ),
    "categorical_crossentropy, smoothed": Same(
        L.categorical_crossentropy.bind(label_smoothing=0.2),
        lambda p, t: K.categorical_crossentropy(t, p, label_smoothing=0.2),
        POSITIVE,
    ),
    "categorical_focal_crossentropy": Same(
        L.categorical_focal_crossentropy, lambda p, t: K.categorical_focal_crossentropy(t, p), MASSES
    ),
    "categorical_focal_crossentropy, class weights": Same(
        L.categorical_focal_crossentropy.bind(
            alpha=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], gamma=0.5, label_smoothing=0.2
        ),
        lambda p, t: K.categorical_focal_crossentropy(
            t, p, alpha=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], gamma=0.5, label_smoothing=0.2
        ),
        MASSES,
    ),
    "categorical_focal_crossentropy, logits": Same(
        L.categorical_focal_crossentropy.bind(from_logits=True),
        lambda p, t: K.categorical_focal_crossentropy(t, p, from_logits=True),
        CLASSES,
    ),
    "categorical_focal_crossentropy, logits along axis 0": Same(
        L.categorical_focal_crossentropy.bind(from_logits=True, alpha=0.7, gamma=1.5, axis=0),
        lambda p, t: K.categorical_focal_crossentropy(t, p, from_logits=True, alpha=0.7, gamma=1.5, axis=0),
        CLASSES,
    ),
    "categorical_generalized_cross_entropy": Same(
        L.categorical_generalized_cross_entropy.bind(q=0.5),
        lambda p, t: K.categorical_generalized_cross_entropy(t, p, q=0.5),
        (DISTRIBUTIONS[0], LABELS),
    ),
    "categorical_generalized_cross_entropy, q 0.9": Same(
        L.categorical_generalized_cross_entropy.bind(q=0.9),
        lambda p, t: K.categorical_generalized_cross_entropy(t, p, q=0.9),
        (DISTRIBUTIONS[0], LABELS),
    ),
    "categorical_hinge": Same(L.categorical_hinge, lambda p, t: K.categorical_hinge(t, p), CLASSES),
    "categorical_hinge, labels -1 and 1": Same(L.categorical_hinge, lambda p, t: K.categorical_hinge(t, p), SIGNS),
    "circle": Same(L.circle, lambda p, t: K.circle(t, p), (UNIT, PERSONS)),
    "circle, every option": Same(
        lambda p, t: L.circle(0.9 * p, t, remove_diagonal=False, gamma=20, margin=0.2),
        lambda p, t: K.circle(t, 0.9 * p, remove_diagonal=False, gamma=20, margin=0.2),
        (UNIT, PERSONS),
    ),
    "circle, references": Same(
        lambda p, t: L.circle(p, t, *map(jnp.asarray, OTHERS), remove_diagonal=False, gamma=20),
        lambda p, t: K.circle(t, p, ref_labels=OTHERS[1], ref_embeddings=OTHERS[0], remove_diagonal=False, gamma=20),
        (UNIT, PERSONS),
    ),
    "cosine_similarity": Same(L.cosine_similarity, lambda p, t: K.cosine_similarity(t, p), REAL),
    "cosine_similarity, axis 0": Same(
        L.cosine_similarity.bind(axis=0), lambda p, t: K.cosine_similarity(t, p, axis=0), REAL
    ),
    "ctc": Same(L.ctc, lambda p, t: K.ctc(t, p), FRAMES),
    "dice": Same(L.dice.bind(axis=None), lambda p, t: K.dice(t, p), MASKS),
    "dice, one per example": Same(L.dice, lambda p, t: K.dice(t, p, axis=(1, 2)), MASKS),
    "dice, two empty masks": Same(L.dice, lambda p, t: K.dice(t, p, axis=1), EMPTY),
    "hinge": Same(L.hinge, lambda p, t: K.hinge(t, p), SIGNS),
    "hinge, labels 0 and 1": Same(L.hinge.bind(binary_labels=True), lambda p, t: K.hinge(t, p), BITS),
    "huber": Same(L.huber, lambda p, t: K.huber(t, p), REAL),
    "huber, delta 0.3": Same(L.huber.bind(delta=0.3), lambda p, t: K.huber(t, p, delta=0.3), REAL),
    "kl_divergence": Same(L.kl_divergence, lambda p, t: K.kl_divergence(t, p), DISTRIBUTIONS),
    "log_cosh": Same(L.log_cosh, lambda p, t: K.log_cosh(t, p), REAL),
    "mean_absolute_error": Same(L.mean_absolute_error, lambda p, t: K.mean_absolute_error(t, p), REAL),
    "mean_absolute_percentage_error": Same(
        L.mean_absolute_percentage_error, lambda p, t: K.mean_absolute_percentage_error(t, p), REAL
    ),
    "mean_squared_error": Same(L.mean_squared_error, lambda p, t: K.mean_squared_error(t, p), REAL),
    "mean_squared_logarithmic_error": Same(
        L.mean_squared_logarithmic_error, lambda p, t: K.mean_squared_logarithmic_error(t, p), POSITIVE
    ),
    "poisson": Same(L.poisson, lambda p, t: K.poisson(t, p), (1 + POSITIVE[0], POSITIVE[1])),
    "sparse_categorical_crossentropy": Same(
        L.sparse_categorical_crossentropy, lambda p, t: K.sparse_categorical_crossentropy(t, p), (POSITIVE[0], LABELS)
    ),
    "sparse_categorical_crossentropy, a void class": Same(
        L.sparse_categorical_crossentropy.bind(ignore_class=255),
        lambda p, t: K.sparse_categorical_crossentropy(t, p, ignore_class=255),
        (POSITIVE[0], VOID),
    ),
    "sparse_categorical_crossentropy, logits": Same(
        L.sparse_categorical_crossentropy.bind(from_logits=True),
        lambda p, t: K.sparse_categorical_crossentropy(t, p, from_logits=True),
        (REAL[0], LABELS),
    ),
    "sparse_categorical_crossentropy, logits, a void class": Same(
        L.sparse_categorical_crossentropy.bind(from_logits=True, ignore_class=255),
        lambda p, t: K.sparse_categorical_crossentropy(t, p, from_logits=True, ignore_class=255),
        (REAL[0], VOID),
    ),
    "squared_hinge": Same(L.squared_hinge, lambda p, t: K.squared_hinge(t, p), SIGNS),
    "squared_hinge, labels 0 and 1": Same(
        L.squared_hinge.bind(binary_labels=True), lambda p, t: K.squared_hinge(t, p), BITS
    ),
    "tversky": Same(L.tversky.bind(axis=None), lambda p, t: K.tversky(t, p), MASKS),
    "tversky, every option": Same(
        L.tversky.bind(alpha=0.2, beta=0.9, axis=(0, 2)),
        lambda p, t: K.tversky(t, p, alpha=0.2, beta=0.9, axis=(0, 2)),
        MASKS,
    ),
    "tversky, one per example": Same(
        L.tversky.bind(alpha=0.3, beta=0.7),
        lambda p, t: K.tversky(t, p, alpha=0.3, beta=0.7, axis=(1, 2)),
        MASKS,
    ),
}


class Clipped(NamedTuple):
    """An input of one example where Keras clips, adds an epsilon or differs; (value, gradient by pred) of both."""

    ours: Callable
    theirs: Callable
    inputs: tuple[np.ndarray, ...]
    our_answer: tuple[float, Any]
    keras_answer: tuple[float, Any]


INF, NAN = np.inf, np.nan
CLIPPED = {
    "binary_crossentropy, an infinite logit": Clipped(
        L.binary_crossentropy.bind(from_logits=True),
        lambda p, t: K.binary_crossentropy(t, p, from_logits=True),
        (f32(INF), f32(1)),
        (0.0, [0.0]),
        (NAN, [0.0]),
    ),
    "binary_crossentropy, no probability": Clipped(
        L.binary_crossentropy,
        lambda p, t: K.binary_crossentropy(t, p),
        (f32(1.5), f32(1)),
        (NAN, [NAN]),
        (1.1920929e-7, [0.0]),
    ),
    "binary_crossentropy, right and sure": Clipped(
        L.binary_crossentropy,
        lambda p, t: K.binary_crossentropy(t, p),
        (f32(0), f32(0)),
        (0.0, [1.0]),
        (1.1920929e-7, [0.0]),
    ),
    "binary_crossentropy, wrong and nearly sure": Clipped(
        L.binary_crossentropy,
        lambda p, t: K.binary_crossentropy(t, p),
        (f32(1e-12), f32(1)),
        (-np.log(1e-12), [-1e12]),
        (-np.log(1e-7), [0.0]),
    ),
    "binary_crossentropy, wrong and sure": Clipped(
        L.binary_crossentropy,
        lambda p, t: K.binary_crossentropy(t, p),
        (f32(0), f32(1)),
        (INF, [-INF]),
        (-np.log(1e-7), [0.0]),
    ),
    "binary_focal_crossentropy, a logit of -1000": Clipped(
        L.binary_focal_crossentropy.bind(from_logits=True),
        lambda p, t: K.binary_focal_crossentropy(t, p, from_logits=True),
        (f32(-1000), f32(1)),
        (1000.0, [-1.0]),
        (-np.log(1e-7), [0.0]),
    ),
    "binary_focal_crossentropy, a logit of 1000": Clipped(
        L.binary_focal_crossentropy.bind(from_logits=True, gamma=0.5),
        lambda p, t: K.binary_focal_crossentropy(t, p, from_logits=True, gamma=0.5),
        (f32(1000), f32(1)),
        (0.0, [0.0]),
        (0.0, [NAN]),
    ),
    "categorical_crossentropy, a masked logit": Clipped(
        L.categorical_crossentropy.bind(from_logits=True),
        lambda p, t: K.categorical_crossentropy(t, p, from_logits=True),
        (f32(0, -INF, 0), f32(1, 0, 0)),
        (np.log(2), [-0.5, 0.0, 0.5]),
        (NAN, [-0.5, 0.0, 0.5]),
    ),
    "categorical_crossentropy, the impossible happened": Clipped(
        L.categorical_crossentropy,
        lambda p, t: K.categorical_crossentropy(t, p),
        (f32(0, 1), f32(1, 0)),
        (INF, [-INF, 1.0]),
        (-np.log(1e-7), [0.0, 0.0]),
    ),
    "categorical_focal_crossentropy, a logit of -1000": Clipped(
        L.categorical_focal_crossentropy.bind(from_logits=True, alpha=1.0),
        lambda p, t: K.categorical_focal_crossentropy(t, p, from_logits=True, alpha=1.0),
        (f32(-1000, 0), f32(1, 0)),
        (1000.0, [-1.0, 1.0]),
        (-np.log(1e-7), [0.0, 0.0]),
    ),
    "categorical_generalized_cross_entropy, q 1e-7": Clipped(
        L.categorical_generalized_cross_entropy.bind(q=1e-07),
        lambda p, t: K.categorical_generalized_cross_entropy(t, p, q=1e-07),
        (f32(1e-12, 1), np.asarray(0, np.int32)),
        (27.630983, [-1e12, 0.0]),
        (27.418137, [-1e12, 0.0]),
    ),
    "categorical_generalized_cross_entropy, the impossible happened": Clipped(
        L.categorical_generalized_cross_entropy.bind(q=0.5),
        lambda p, t: K.categorical_generalized_cross_entropy(t, p, q=0.5),
        (f32(0, 1), np.asarray(0, np.int32)),
        (2.0, [-INF, 0.0]),
        (2.0, [-INF, NAN]),
    ),
    "categorical_hinge, a masked class": Clipped(
        L.categorical_hinge,
        lambda p, t: K.categorical_hinge(t, p),
        (f32(0.0, -INF, 0.5), f32(1, 0, 0)),
        (1.5, [-1.0, 0.0, 1.0]),
        (NAN, [0.0, 0.0, 0.0]),
    ),
    "cosine_similarity, a zero vector": Clipped(
        L.cosine_similarity,
        lambda p, t: K.cosine_similarity(t, p),
        (f32(0, 0), f32(1, 2)),
        (0.0, [0.0, 0.0]),
        (0.0, [NAN, NAN]),
    ),
    "cosine_similarity, a short vector": Clipped(
        L.cosine_similarity,
        lambda p, t: K.cosine_similarity(t, p),
        (f32(3e-25, 0), f32(3, 4)),
        (-0.6, [0.0, -0.8 / 3e-25]),
        (-1.8e-18, [NAN, NAN]),
    ),
    "ctc, a blank among the labels": Clipped(
        L.ctc,
        lambda p, t: K.ctc(t, p),
        (np.zeros((1, 2, 2), np.float32), np.asarray([[0, 1]], np.int32)),
        (NAN, NAN),
        (0.2876821, [[[-0.5, 0.5], [-0.5, 0.5]]]),
    ),
    "ctc, an impossible label": Clipped(
        L.ctc,
        lambda p, t: K.ctc(t, p),
        (np.zeros((1, 2, 2), np.float32), np.asarray([[1, 1]], np.int32)),
        (INF, 0.0),
        (99999.195, [[[0.0554206, -0.0554206], [0.0554303, -0.0554303]]]),
    ),
    "hinge, the kink": Clipped(L.hinge, lambda p, t: K.hinge(t, p), (f32(1.0), f32(1)), (0.0, [0.0]), (0.0, [-0.5])),
    "huber, an infinite residual": Clipped(
        L.huber, lambda p, t: K.huber(t, p), (f32(INF), f32(0)), (INF, [1.0]), (INF, [NAN])
    ),
    "kl_divergence, the impossible happened": Clipped(
        L.kl_divergence, lambda p, t: K.kl_divergence(t, p), (f32(0), f32(1)), (INF, [-INF]), (-np.log(1e-7), [0.0])
    ),
    "log_cosh, a small residual": Clipped(
        L.log_cosh, lambda p, t: K.log_cosh(t, p), (f32(1e-4), f32(0)), (5e-9, [1e-4]), (0.0, [9.995699e-5])
    ),
    "log_cosh, an infinite residual": Clipped(
        L.log_cosh, lambda p, t: K.log_cosh(t, p), (f32(-INF), f32(0)), (INF, [-1.0]), (NAN, [-1.0])
    ),
    "mean_absolute_error, no residual": Clipped(
        L.mean_absolute_error, lambda p, t: K.mean_absolute_error(t, p), (f32(2), f32(2)), (0.0, [0.0]), (0.0, [-1.0])
    ),
    "mean_absolute_percentage_error, target 0": Clipped(
        L.mean_absolute_percentage_error,
        lambda p, t: K.mean_absolute_percentage_error(t, p),
        (f32(0.5), f32(0)),
        (INF, [INF]),
        (5e8, [1e9]),
    ),
    "mean_absolute_percentage_error, both 0": Clipped(
        L.mean_absolute_percentage_error,
        lambda p, t: K.mean_absolute_percentage_error(t, p),
        (f32(0), f32(0)),
        (0.0, [0.0]),
        (0.0, [-1e9]),
    ),
    "mean_squared_logarithmic_error, pred 0": Clipped(
        L.mean_squared_logarithmic_error,
        lambda p, t: K.mean_squared_logarithmic_error(t, p),
        (f32(0), f32(1)),
        (np.log(2) ** 2, [-2 * np.log(2)]),
        (np.log(2) ** 2, [0.0]),
    ),
    "poisson, pred 0": Clipped(
        L.poisson, lambda p, t: K.poisson(t, p), (f32(0), f32(1)), (INF, [-INF]), (-np.log(1e-7), [1 - 1e7])
    ),
    "sparse_categorical_crossentropy, a label outside": Clipped(
        L.sparse_categorical_crossentropy.bind(from_logits=True),
        lambda p, t: K.sparse_categorical_crossentropy(t, p, from_logits=True),
        (f32(0, 1), np.asarray(5, np.int32)),
        (NAN, [NAN, NAN]),
        (0.0, [0.0, 0.0]),
    ),
    "sparse_categorical_crossentropy, a masked logit": Clipped(
        L.sparse_categorical_crossentropy.bind(from_logits=True),
        lambda p, t: K.sparse_categorical_crossentropy(t, p, from_logits=True),
        (f32(0, -INF, 0), np.asarray(0, np.int32)),
        (np.log(2), [-0.5, 0.0, 0.5]),
        (NAN, [-0.5, 0.0, 0.5]),
    ),
    "tversky, pred empty and alpha 0": Clipped(
        L.tversky.bind(alpha=0.0),
        lambda p, t: K.tversky(t, p, alpha=0.0),
        (f32(0, 0), f32(1, 0)),
        (1.0, [-1.0, 0.0]),
        (1.0, [-1e7, 0.0]),
    ),
}


def value_and_gradient(call, pred, target, cotangent=None):
    """Of the sum of the values, each with its cotangent; Keras is not written for the strict session."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        values, pull = jax.vjp(lambda pred: call(pred, jnp.asarray(target)), jnp.asarray(pred))
        dvalues = jnp.ones_like(values) if cotangent is None else jnp.asarray(cotangent(values.shape), values.dtype)
        return np.asarray(values), np.asarray(pull(dvalues)[0])


@pytest.mark.parametrize("name", SAME)
def test_the_same_where_keras_does_not_clip(name):
    row = SAME[name]
    draw = lambda shape: normal(*shape, seed=9)
    value, gradient = value_and_gradient(row.ours, *row.inputs, cotangent=draw)
    want, want_gradient = value_and_gradient(row.theirs, *row.inputs, cotangent=draw)
    assert value.shape == want.shape
    np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CLIPPED)
def test_both_answers_where_keras_clips(name):
    row = CLIPPED[name]
    for call, (value, gradient) in ((row.ours, row.our_answer), (row.theirs, row.keras_answer)):
        got, got_gradient = value_and_gradient(call, *row.inputs)
        np.testing.assert_allclose(got, value, rtol=1e-6)
        np.testing.assert_allclose(got_gradient, gradient, rtol=1e-5)

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


class Same(NamedTuple):
    """fdl's call and Keras's, as functions of (pred, target), and the inputs."""

    ours: Callable
    theirs: Callable
    inputs: tuple[np.ndarray, np.ndarray]


SAME = {
    "categorical_hinge": Same(L.categorical_hinge, lambda p, t: K.categorical_hinge(t, p), CLASSES),
    "categorical_hinge, labels -1 and 1": Same(L.categorical_hinge, lambda p, t: K.categorical_hinge(t, p), SIGNS),
    "cosine_similarity": Same(L.cosine_similarity, lambda p, t: K.cosine_similarity(t, p), REAL),
    "cosine_similarity, axis 0": Same(
        L.cosine_similarity.bind(axis=0), lambda p, t: K.cosine_similarity(t, p, axis=0), REAL
    ),
    "hinge": Same(L.hinge, lambda p, t: K.hinge(t, p), SIGNS),
    "hinge, labels 0 and 1": Same(L.hinge.bind(binary_labels=True), lambda p, t: K.hinge(t, p), BITS),
    "huber": Same(L.huber, lambda p, t: K.huber(t, p), REAL),
    "huber, delta 0.3": Same(L.huber.bind(delta=0.3), lambda p, t: K.huber(t, p, delta=0.3), REAL),
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
    "squared_hinge": Same(L.squared_hinge, lambda p, t: K.squared_hinge(t, p), SIGNS),
    "squared_hinge, labels 0 and 1": Same(
        L.squared_hinge.bind(binary_labels=True), lambda p, t: K.squared_hinge(t, p), BITS
    ),
}


class Clipped(NamedTuple):
    """An input of one example where Keras clips, adds an epsilon or differs; (value, gradient by pred) of both."""

    ours: Callable
    theirs: Callable
    inputs: tuple[np.ndarray, np.ndarray]
    our_answer: tuple[float, list[float]]
    keras_answer: tuple[float, list[float]]


INF, NAN = np.inf, np.nan
CLIPPED = {
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
    "hinge, the kink": Clipped(L.hinge, lambda p, t: K.hinge(t, p), (f32(1.0), f32(1)), (0.0, [0.0]), (0.0, [-0.5])),
    "huber, an infinite residual": Clipped(
        L.huber, lambda p, t: K.huber(t, p), (f32(INF), f32(0)), (INF, [1.0]), (INF, [NAN])
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
}


def value_and_gradient(call, pred, target, cotangent=None):
    """Of the sum of the values, each with its cotangent; Keras is not written for the strict session."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        values, pull = jax.vjp(lambda pred: call(pred, jnp.asarray(target)), jnp.asarray(pred))
        dvalues = jnp.ones_like(values) if cotangent is None else jnp.asarray(cotangent(values.shape))
        return np.asarray(values), np.asarray(pull(dvalues)[0])


@pytest.mark.parametrize("name", SAME)
def test_the_same_where_keras_does_not_clip(name):
    row = SAME[name]
    draw = lambda shape: normal(*shape, seed=9)
    value, gradient = value_and_gradient(row.ours, *row.inputs, draw)
    want, want_gradient = value_and_gradient(row.theirs, *row.inputs, draw)
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

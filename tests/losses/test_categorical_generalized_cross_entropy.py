"""Generalized cross-entropy: values of Keras, both ends of q, limits, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import NAN, assert_rows

GCE = fdl.losses.categorical_generalized_cross_entropy


def f32(*values):
    return jnp.asarray(values, jnp.float32)


def test_values_of_keras():
    pred = f32([0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7])
    np.testing.assert_allclose(
        GCE(pred, jnp.asarray([0, 1, 2]), q=0.5), [0.32667994, 0.45080662, 0.32667994], rtol=1e-6
    )


def test_between_cross_entropy_and_absolute_error():
    pred, target = f32([1e-12, 1.0], [0.3, 0.7]), jnp.asarray([0, 0])
    np.testing.assert_allclose(GCE(pred, target, q=1e-7), -np.log([1e-12, 0.3]), rtol=3e-6)
    np.testing.assert_allclose(GCE(pred, target, q=0.999999), [1.0, 0.7], rtol=2e-6)


ROWS = {
    "impossible": ([0.0, 1.0], 0, 2.0, [-np.inf, 0.0]),
    "sure": ([1.0, 0.0], 0, 0.0, [-1.0, 0.0]),
    "nearly sure": ([1 - 2.0**-24, 0.0], 0, 2.0**-24, [-1.0, 0.0]),
    "hardly possible": ([1e-12, 1.0], 0, 2 * (1 - 1e-6), [-1e6, 0.0]),
    "label 2 of 2": ([0.5, 0.5], 2, NAN, [NAN, NAN]),
    "label -1": ([0.5, 0.5], -1, NAN, [NAN, NAN]),
    "above 1": ([1.5, 0.5], 1, NAN, [NAN, NAN]),
    "below 0": ([0.5, -0.1], 0, NAN, [NAN, NAN]),
    "NaN": ([0.5, NAN], 0, NAN, [NAN, NAN]),
}


def test_limits():
    assert_rows(GCE, ROWS, target_dtype=jnp.int32)


def test_a_traced_q_is_swept():
    pred, target, qs = f32(0.3, 0.7), jnp.asarray(0), f32(0.1, 0.5, 0.9)
    gradient = lambda q: jax.grad(lambda p: GCE(p, target, q=q))(pred)
    np.testing.assert_allclose(jax.vmap(gradient)(qs), [[-(0.3 ** (float(q) - 1)), 0] for q in qs], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: GCE(jnp.ones((2, 3)), jnp.zeros(2, jnp.int32), q=0),
            "q is 0, wanted 0 < q < 1; near 0 is cross-entropy",
        ),
        (lambda: GCE(jnp.ones((2, 3)), jnp.zeros(2, jnp.int32), q=1.0), "q is 1.0, wanted 0 < q < 1"),
        (
            lambda: GCE(jnp.ones((2, 3)), jnp.zeros((2, 1), jnp.int32)),
            r"wanted target of shape \[2\]: one label per row",
        ),
        (lambda: GCE(jnp.ones((2, 3)), jnp.zeros(2)), "target is float.*integer"),
        (lambda: GCE(jnp.ones(()), jnp.zeros((), jnp.int32)), "classes last"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

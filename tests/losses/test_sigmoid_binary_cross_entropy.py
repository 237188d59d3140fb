"""Binary cross-entropy of logits, elementwise: limits, tails, second derivatives, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_rows

SBCE = fdl.losses.sigmoid_binary_cross_entropy

ROWS = {
    "undecided": (0.0, 1.0, np.log(2), -0.5, 0.0),
    "right, +1000": (1000.0, 1.0, 0.0, 0.0, -1000.0),
    "right, -1000": (-1000.0, 0.0, 0.0, 0.0, 1000.0),
    "wrong, +1000": (1000.0, 0.0, 1000.0, 1.0, -1000.0),
    "wrong, -1000": (-1000.0, 1.0, 1000.0, -1.0, 1000.0),
    "wrong, -1e30": (-1e30, 1.0, 1e30, -1.0, 1e30),
    "right, alive": (50.0, 1.0, np.exp(-50), -np.exp(-50), -50.0),
    "right, alive below": (-50.0, 0.0, np.exp(-50), np.exp(-50), 50.0),
    "right and sure, inf": (INF, 1.0, 0.0, 0.0, -INF),
    "right and sure, -inf": (-INF, 0.0, 0.0, 0.0, INF),
    "wrong and sure, inf": (INF, 0.0, INF, 1.0, -INF),
    "wrong and sure, -inf": (-INF, 1.0, INF, -1.0, INF),
    "soft, inf": (INF, 0.25, INF, 0.75, -INF),
    "soft, -inf": (-INF, 0.25, INF, -0.25, INF),
    "a label above 1": (1.0, 2.0, np.log1p(np.exp(1)) - 2, 1 / (1 + np.exp(-1)) - 2, -1.0),
    "NaN": (NAN, 1.0, NAN, NAN, NAN),
    "NaN, label 0": (NAN, 0.0, NAN, NAN, NAN),
    "NaN label": (1.0, NAN, NAN, NAN, None),
}


def test_limits():
    squeezed = lambda z, t: SBCE(z, t)[:, 0]
    assert_rows(squeezed, ROWS)


def test_limits_hold_for_the_mean_of_keras():
    assert_rows(fdl.losses.binary_crossentropy, ROWS, from_logits=True)


def test_the_shape_is_kept():
    for shape in ((), (3,), (2, 3)):
        assert SBCE(jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32)).shape == shape


def test_second_derivative_is_alive_on_both_sides():
    z = jnp.asarray([0.0, 50.0, -50.0, 50.0, -50.0, 1000.0, jnp.inf, -jnp.inf], jnp.float32)
    t = jnp.asarray([1, 1, 1, 0, 0, 1, 1, 1], jnp.float32)
    want = [0.25, *[np.exp(-50)] * 4, 0, 0, 0]
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.hessian(SBCE)))(z, t), want, rtol=1e-5)


def test_sixteen_bits_are_computed_in_float32():
    logits, labels = jnp.asarray([-9.0, 300.0], jnp.bfloat16), jnp.asarray([1.0, 0.0], jnp.bfloat16)
    value, pull = jax.vjp(SBCE, logits, labels)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, [9 + np.log1p(np.exp(-9)), 300], rtol=1e-6)
    assert [d.dtype for d in pull(value)] == [jnp.bfloat16] * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SBCE(jnp.zeros((4, 1)), jnp.zeros(4)), "logits has shape .* nothing is broadcast"),
        (lambda: SBCE(jnp.zeros(2), jnp.zeros(2, jnp.int32)), "labels is int32.*astype"),
        (lambda: SBCE(jnp.zeros(2, jnp.int32), jnp.zeros(2)), "logits is int32"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

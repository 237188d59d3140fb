"""Kullback-Leibler divergence: values of scipy and Keras, its place beside cross-entropy, limits, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import fdl
from tests.losses.limits import INF, NAN, assert_rows

CE, KL = fdl.losses.cross_entropy, fdl.losses.kl_divergence


def test_cross_entropy_is_entropy_and_divergence(getkey):
    pred, target = (jax.nn.softmax(2 * jax.random.normal(getkey(), (4, 5), jnp.float64)) for _ in range(2))
    np.testing.assert_allclose(CE(pred, target), CE(target, target) + KL(pred, target), rtol=1e-13)
    np.testing.assert_allclose(KL(pred, target), scipy.special.rel_entr(target, pred).sum(-1), rtol=1e-12)
    assert (KL(target, target) == 0).all()


def test_close_distributions_keep_their_digits():
    # against itself moved by d: about 2 d^2, and each term is d, 4,000 times that
    target, step = jnp.asarray([0.625, 0.375], jnp.float32), jnp.asarray([2.0**-13, -(2.0**-13)], jnp.float32)
    t, p = np.asarray(target, np.longdouble), np.asarray(target + step, np.longdouble)
    np.testing.assert_allclose(KL(target + step, target), float((t * np.log(t / p)).sum()), rtol=5e-4)


def test_values_of_keras():
    pred = jnp.asarray([[0.4, 0.9, 0.12], [0.36, 0.3, 0.4]], jnp.float32)
    target = jnp.asarray([[0.5, 0.8, 0.12], [0.7, 0.43, 0.8]], jnp.float32)
    np.testing.assert_allclose(KL(pred, target), [0.0173454, 1.1748023], rtol=1e-5)
    assert fdl.losses.get("kld") is KL


ROWS = {
    "an empty cell": (0.0, 0.0, 0.0, 0.0, 0.0),
    "the impossible happened": (0.0, 0.5, INF, -INF, INF),
    "the impossible, written -0": (-0.0, 0.5, INF, -INF, INF),
    "hardly possible": (1e-12, 1.0, 27.6310211, -1e12, 28.6310211),
    "no weight": (0.25, 0.0, 0.0, 0.0, -INF),
    "equal": (0.3, 0.3, 0.0, -1.0, 1.0),
    "negative": (-0.1, 0.0, NAN, NAN, NAN),
    "negative target": (0.1, -0.1, NAN, NAN, NAN),
    "infinite": (INF, 0.0, NAN, NAN, NAN),
    "infinite target": (0.5, INF, NAN, NAN, NAN),
    "NaN": (NAN, 0.0, NAN, NAN, NAN),
    "NaN target": (0.5, NAN, NAN, NAN, NAN),
}


def test_limits():
    assert_rows(KL, ROWS)


def test_second_derivatives_at_an_empty_cell_are_finite():
    target = jnp.asarray([0.0, 0.25, 0.75], jnp.float32)
    hessian = jax.jit(jax.hessian(lambda p: KL(p, target)))(jnp.asarray([0.0, 0.5, 0.5], jnp.float32))
    np.testing.assert_allclose(hessian, np.diag([0.0, 1.0, 3.0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KL(jnp.ones(()), jnp.ones(())), "at least 1 dimension"),
        (lambda: KL(jnp.ones(2, jnp.float32), jnp.ones(2, jnp.float64)), "float32 and target is float64"),
        (lambda: KL(jnp.ones((2, 3)), jnp.ones((2, 1))), "nothing is broadcast"),
        (lambda: KL(jnp.ones(2, jnp.int32), jnp.ones(2)), "pred is int32"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

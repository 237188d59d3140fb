"""Whitening: what it promises, spectra with equal and with vanishing eigenvalues, the extremes, refusals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import InputError, InputTypeError
from fdl.layers.whiten import _deviations, op

rng = np.random.default_rng(0)
TURN = np.linalg.qr(rng.standard_normal((4, 4)))[0]


def arrays(*shape, dtype: Any = np.float64):
    return jnp.asarray(rng.standard_normal(shape), dtype)


def with_spectrum(*deviations):
    """[8, 4] with exactly these deviations along TURN: signs that are orthogonal, as in a factorial design."""
    signs = np.asarray([[(-1) ** ((n >> k) & 1) for k in range(3)] + [(-1) ** bin(n).count("1")] for n in range(8)])
    return jnp.asarray(signs * np.asarray(deviations) @ TURN + 3.0)


def by_newton(x, eps):
    """The definition without eigenvectors: S^(-1/2) by the iteration of Denman & Beavers, whose derivative needs no gaps."""
    d = x - x.mean(axis=0, keepdims=True)
    y, z = d.T @ d / len(d) + eps * jnp.eye(x.shape[1]), jnp.eye(x.shape[1])
    for _ in range(14):
        y, z = (y + jnp.linalg.inv(z)) / 2, (z + jnp.linalg.inv(y)) / 2
    return d @ z


@jax.jit
def both(x, dy):
    """(value, gradient) by the op and by Newton's iteration, eps 0.1."""
    got, pull = jax.vjp(lambda x: op(x, eps=0.1), x)
    want, pull_want = jax.vjp(lambda x: by_newton(x, 0.1), x)
    return (got, pull(dy)[0]), (want, pull_want(dy)[0])


SPECTRA = {
    "distinct": (1.0, 2.0, 0.7, 3.0),
    "all equal": (2.0, 2.0, 2.0, 2.0),
    "two pairs": (1.0, 3.0, 1.0, 3.0),
    "two vanish": (1.0, 0.0, 2.0, 0.0),
    "all vanish": (0.0, 0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_value_and_gradient_where_eigenvalues_are_equal_or_vanish(spectrum):
    x, dy = with_spectrum(*SPECTRA[spectrum]), arrays(8, 4)
    (y, dx), (want, want_dx) = both(x, dy)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-12)
    np.testing.assert_allclose(dx, want_dx, rtol=0, atol=1e-11)
    np.testing.assert_allclose(dx.sum(axis=0), 0, atol=1e-12)


def test_divided_differences_as_they_are_written_fail_where_eigenvalues_are_equal():
    """The quotient of differences loses all digits there, and the comparison above sees it."""
    x, dy = with_spectrum(*SPECTRA["all equal"]), arrays(8, 4)

    def backward(residuals, dy):
        x, u, r = residuals
        (d, size), l = _deviations(x), r**-2
        gaps = l[:, None] - l[None, :]
        f = jnp.where(gaps == 0, -(r[:, None] ** 3) / 2, (r[:, None] - r[None, :]) / gaps)
        g = u.T @ (d.T @ dy) @ u
        dd = dy @ (u * r[None] @ u.T) + d @ (u @ (f * (g + g.T)) @ u.T) / len(d)
        return ((dd - dd.mean(axis=0, keepdims=True)) / size,)

    naive = fdl.Op(op._equation, op._forward, backward)
    gradient = lambda x: jax.vjp(lambda x: naive(x, eps=0.1), x)[1](dy)[0]
    distinct = with_spectrum(*SPECTRA["distinct"])
    np.testing.assert_allclose(gradient(distinct), both(distinct, dy)[1][1], rtol=0, atol=1e-11)
    wrong = np.abs(gradient(x) - both(x, dy)[1][1]).max()
    assert not wrong < 1e-4
    _, pull = jax.vjp(lambda x: op.equation(x, eps=0.1), with_spectrum(*SPECTRA["all vanish"]))
    assert not np.isfinite(pull(dy)[0]).all(), "what JAX derives from eigh"


def test_covariance_the_identity_and_the_nearest_such():
    x = 3 + arrays(50, 4) @ arrays(4, 4)
    y = op(x, eps=0.0)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.T @ y / 50, np.eye(4), atol=1e-11)
    cross = np.asarray(y.T @ (x - x.mean(axis=0, keepdims=True)))
    np.testing.assert_allclose(cross, cross.T, atol=1e-10)
    assert np.linalg.eigvalsh(cross).min() > 0  # a symmetric positive cross-covariance is that of the nearest white y


def test_it_follows_rotations_and_is_batch_norm_where_features_are_uncorrelated():
    x, turn = 3 + arrays(50, 4) @ arrays(4, 4), jnp.asarray(TURN)
    np.testing.assert_allclose(op(x @ turn), op(x) @ turn, atol=1e-10)
    apart = with_spectrum(1.0, 2.0, 0.7, 3.0) @ turn.T
    np.testing.assert_allclose(op(apart), fdl.ops.batch_norm({}, apart)[0], atol=1e-12)
    assert np.abs(op(x) - fdl.ops.batch_norm({}, x)[0]).max() > 0.1


def test_places_count_as_examples():
    x, dy = arrays(3, 2, 5, 4), arrays(3, 2, 5, 4)
    y, pull = jax.vjp(op, x)
    flat, pull_flat = jax.vjp(op, x.reshape(30, 4))
    np.testing.assert_array_equal(y.reshape(30, 4), flat)
    np.testing.assert_array_equal(pull(dy)[0].reshape(30, 4), pull_flat(dy.reshape(30, 4))[0])


@pytest.mark.parametrize(("mean", "deviation", "rtol"), [(1e4, 1e-2, 5e-3), (1e6, 1.0, 5e-3), (0, 1e25, 1e-5)])
def test_large_means_and_deviations_in_float32(mean, deviation, rtol):
    x = np.float32(mean + deviation * (rng.standard_normal((256, 4)) @ TURN * [1, 2, 3, 1])).astype(np.float32)
    want = op(jnp.asarray(x, jnp.float64))
    np.testing.assert_allclose(op(jnp.asarray(x)), want, rtol=0, atol=rtol * np.abs(want).max())
    assert np.isfinite(jax.vjp(op, jnp.asarray(x))[1](arrays(256, 4, dtype=np.float32))[0]).all()


@pytest.mark.parametrize("x", [np.full((1, 3), 2.0), np.full((5, 3), 2.0)], ids=["a batch of one", "all equal"])
@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_no_variance(x, eps):
    y, pull = jax.vjp(lambda x: op(x, eps=eps), jnp.asarray(x))
    np.testing.assert_array_equal(y, 0)
    (dx,) = pull(arrays(*x.shape))
    assert np.isfinite(dx).all()
    if len(x) == 1 or eps == 0:
        np.testing.assert_allclose(dx, 0, atol=1e-12)


def test_a_nan_is_loud():
    assert np.isnan(op(arrays(7, 3).at[2, 1].set(np.nan))).all()


def test_bad_arguments_are_refused_by_name():
    for x, eps, error in [
        (jnp.ones(3), 1e-5, InputError),
        (jnp.ones((0, 3)), 1e-5, InputError),
        (jnp.ones((2, 3)), -1.0, InputError),
        (jnp.ones((2, 3), jnp.int32), 1e-5, InputTypeError),
    ]:
        with pytest.raises(error, match="whiten"):
            op(x, eps=eps)

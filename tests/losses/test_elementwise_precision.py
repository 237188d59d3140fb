"""Losses that are a function of one residual, on every 16-bit pattern of it and on a dense sample of the float32 ones.

The derivative in 16 bits is within 1 ulp of the correctly rounded one; value and derivative in float32 within 8 ulps. The truth is
the textbook formula in extended precision. Subnormal numbers, which XLA flushes to 0 on a CPU, count as 0 or as themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import losses as L
from fdl.op import Op

pytestmark = pytest.mark.optimized

SMALLEST = float(np.finfo(np.float32).tiny)  # normal float32, and normal bfloat16
TENTH = float(np.float32(0.1))
Truth = Callable[[np.ndarray, np.longdouble], np.ndarray]


class Row(NamedTuple):
    """A loss, the target it is measured at, and its value and slope by pred as functions of (pred, target) of numpy."""

    op: Op
    target: float
    value: Truth
    slope: Truth


def of_residual(function):
    return lambda p, t: function(p - t)


def pseudo(x):
    return np.where(np.abs(x) < 1e-4, x * x / 2 - x**4 / 8, np.sqrt(1 + x * x) - 1)


def log_cosh(x):
    a = np.abs(x)
    return np.where(
        a < 5e-3, x * x / 2 - x**4 / 12 + x**6 / 45, a + np.log1p(np.exp(-2 * a)) - np.log(np.longdouble(2))
    )


def log_ratio(p, t):
    return np.where(p < -1, np.nan, np.log1p(p) - np.log1p(t))


def pinball(q):
    return (
        of_residual(lambda x: np.where(x >= 0, (1 - np.longdouble(q)) * x, -np.longdouble(q) * x)),
        of_residual(lambda x: np.where(x > 0, 1 - q, np.where(x < 0, -q, np.sign(x)))),
    )


def modified(z):
    return np.where(z >= -1, np.maximum(1 - z, 0) ** 2, -4 * z)


def modified_slope(z):
    return np.where(z >= -1, -2 * np.maximum(1 - z, 0), -4)


def chance(function):
    """Of a probability; -0.0 is one."""
    return lambda p, t: np.where((p >= 0) & (p <= 1), function(np.abs(p), t), np.nan)


def measure(function):
    return lambda p, t: np.where((p >= 0) & (p < np.inf), function(np.abs(p), t), np.nan)


def times(weight, x):
    return np.where(weight == 0, 0, weight * x)


def softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def sigmoid(z):
    return np.where(z >= 0, 1 / (1 + np.exp(-z)), np.exp(z) / (1 + np.exp(z)))


binary = (
    chance(lambda p, t: -times(t, np.log(p)) - times(1 - t, np.log1p(-p))),
    chance(
        lambda p, t: np.where((p > 0) & (p < 1), (p - t) / (p * (1 - p)), times(1 - t, 1 / (1 - p)) - times(t, 1 / p))
    ),
)


def focal(gamma):
    """(value, slope) of logits with target 0, as functions of z."""
    power = lambda z: sigmoid(z) ** np.longdouble(gamma)
    decided = lambda z: np.where(np.isinf(z), 0, gamma * sigmoid(-z) * softplus(z))
    return (
        lambda z, t: np.where(z == -np.inf, 0, power(z) * softplus(z)),
        lambda z, t: np.where(z == -np.inf, 0, power(z) * (decided(z) + sigmoid(z))),
    )


ROWS = {
    "binary_crossentropy, target 0": Row(L.binary_crossentropy, 0, *binary),
    "binary_crossentropy, target 0.1": Row(L.binary_crossentropy, TENTH, *binary),
    "binary_crossentropy, target 1": Row(L.binary_crossentropy, 1, *binary),
    "binary_crossentropy of logits, target 0": Row(
        L.binary_crossentropy.bind(from_logits=True), 0, lambda z, t: softplus(z), lambda z, t: sigmoid(z)
    ),
    "binary_crossentropy of logits, target 1": Row(
        L.binary_crossentropy.bind(from_logits=True), 1, lambda z, t: softplus(-z), lambda z, t: -sigmoid(-z)
    ),
    "binary_focal_crossentropy of logits, gamma 0.5": Row(
        L.binary_focal_crossentropy.bind(from_logits=True, gamma=0.5), 0, *focal(0.5)
    ),
    "binary_focal_crossentropy of logits, gamma 2": Row(
        L.binary_focal_crossentropy.bind(from_logits=True), 0, *focal(2)
    ),
    "cross_entropy": Row(L.cross_entropy, TENTH, measure(lambda p, t: -t * np.log(p)), measure(lambda p, t: -t / p)),
    "mean_squared_error": Row(L.mean_squared_error, 0, of_residual(np.square), of_residual(lambda x: 2 * x)),
    "mean_absolute_error": Row(L.mean_absolute_error, 0, of_residual(np.abs), of_residual(np.sign)),
    "mean_absolute_error, target 0.1": Row(L.mean_absolute_error, TENTH, of_residual(np.abs), of_residual(np.sign)),
    "mean_absolute_percentage_error": Row(
        L.mean_absolute_percentage_error,
        TENTH,
        lambda p, t: 100 * np.abs((p - t) / t),
        lambda p, t: 100 * np.sign(p - t) / np.abs(t),
    ),
    "mean_squared_logarithmic_error": Row(
        L.mean_squared_logarithmic_error,
        0,
        lambda p, t: log_ratio(p, t) ** 2,
        lambda p, t: np.where(p == np.inf, 0, 2 * log_ratio(p, t) / np.where(p == -1, 0.0, 1 + p)),
    ),
    "huber": Row(
        L.huber,
        0,
        of_residual(lambda x: np.where(np.abs(x) <= 1, x * x / 2, np.abs(x) - 0.5)),
        of_residual(lambda x: np.clip(x, -1, 1)),
    ),
    "pseudo_huber": Row(
        L.pseudo_huber,
        0,
        of_residual(pseudo),
        of_residual(lambda x: np.where(np.isinf(x), np.sign(x), x / np.sqrt(1 + x * x))),
    ),
    "log_cosh": Row(L.log_cosh, 0, of_residual(log_cosh), of_residual(np.tanh)),
    "quantile": Row(L.quantile.bind(q=0.9), 0, *pinball(0.9)),
    "hinge": Row(L.hinge, 1, lambda p, t: np.maximum(1 - p, 0), lambda p, t: np.where(np.isnan(p), p, -1.0 * (p < 1))),
    "squared_hinge": Row(
        L.squared_hinge, -1, lambda p, t: np.maximum(1 + p, 0) ** 2, lambda p, t: 2 * np.maximum(1 + p, 0)
    ),
    "modified_huber": Row(
        L.modified_huber,
        1,
        lambda p, t: np.where(np.isnan(p), p, modified(p)),
        lambda p, t: np.where(np.isnan(p), p, modified_slope(p)),
    ),
    "poisson": Row(
        L.poisson,
        1,
        lambda p, t: np.where(p < 0, np.nan, np.where(p == np.inf, p, p - t * np.log(np.abs(p)))),
        lambda p, t: np.where(p < 0, np.nan, np.where(p == np.inf, 1, (p - t) / np.where(p < 0, p, np.abs(p)))),
    ),
}


@pytest.fixture(autouse=True)
def quiet_numpy():
    with np.errstate(all="ignore"):
        yield


def patterns(dtype):
    """Every bit pattern of a 16-bit dtype; one float32 in 20,011."""
    if jnp.finfo(dtype).bits == 16:
        return np.arange(1 << 16, dtype=np.uint16).view(dtype)
    return np.arange(0, 1 << 32, 20_011, dtype=np.uint64).astype(np.uint32).view(np.float32)


def ulps(got, want, dtype):
    """The distance in units of the last place that `want` has in `dtype`; NaN and infinite where they should be is 0."""
    got, want = np.asarray(got).astype(np.longdouble), np.asarray(want, np.longdouble)
    finite = jnp.finfo(dtype)
    rounded = want.astype(np.float64).astype(dtype).astype(np.longdouble)
    exponent = np.frexp(np.where(np.isfinite(want), want, 1))[1] - 1
    spacing = np.ldexp(np.longdouble(1), np.maximum(exponent, finite.minexp) - finite.nmant)
    reference = rounded if jnp.finfo(dtype).bits == 16 else want
    distance = np.abs(got - reference) / spacing
    same = (got == rounded) | (np.isnan(got) & np.isnan(want)) | (np.abs(got - want) < 1.01 * SMALLEST)
    return np.where(same, 0, np.where(np.isnan(distance), np.inf, distance))


def distance(got, truth, p, t, dtype):
    """Of a result from the truth, at p as it is or, where p is subnormal in float32, at 0."""
    p, t = p.astype(np.longdouble), np.longdouble(t)
    flushed = np.where(np.abs(p) < SMALLEST, 0 * p, p)
    return np.minimum(ulps(got, truth(p, t), dtype), ulps(got, truth(flushed, t), dtype))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32], ids=["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", ROWS)
def test_every_residual(name, dtype):
    row = ROWS[name]
    p = patterns(dtype)
    t = np.full_like(p, row.target)
    value, pull = jax.vjp(row.op, jnp.asarray(p[:, None]), jnp.asarray(t[:, None]))
    slope = np.asarray(pull(jnp.ones_like(value))[0])[:, 0]
    assert value.dtype == jnp.float32 and slope.dtype == dtype
    off = distance(value, row.value, p, t[0], jnp.float32)
    assert off.max() <= 8, f"value at {p[off.argmax()]}: {value[off.argmax()]}, {off.max():.1f} ulps off"
    off = distance(slope, row.slope, p, t[0], dtype)
    limit = 8 if dtype == jnp.float32 else 1
    assert off.max() <= limit, f"slope at {p[off.argmax()]}: {slope[off.argmax()]}, {off.max():.1f} ulps off"

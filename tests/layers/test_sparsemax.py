"""Sparsemax: the projection itself, the derivation against autodiff, kinks and limits, 16 bits, refusals, the layer."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.errors import InputError, InputTypeError
from fdl.layers.sparsemax import op, sparsemax

INF, NAN = math.inf, math.nan


@functools.partial(jax.jit, static_argnums=0)
def both_ways(f, x, dy):
    """Value and gradient."""
    y, pull = jax.vjp(f, x)
    return y, *pull(dy)


def arrays(*shape, dtype=jnp.float64):
    rng = np.random.default_rng(len(shape))
    return [jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(3)]


def test_it_is_the_nearest_point_of_the_simplex():
    """p is on the simplex, and (x - p) . (q - p) <= 0 for every corner q: no point of the simplex is nearer."""
    x, *_ = arrays(200, 9)
    p = np.asarray(op(x))
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)
    assert (p >= 0).all() and (p == 0).mean() > 0.5
    residual = np.asarray(x) - p
    assert (residual.max(axis=-1) - (residual * p).sum(axis=-1) <= 1e-12).all()
    np.testing.assert_allclose(op(jnp.asarray([0.5, 0.0, -3.0])), [0.75, 0.25, 0], rtol=1e-12)  # by hand


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_value_gradient_and_second_derivative_equal_the_equation(axis):
    bound = op.bind(axis=axis)
    x, dy, tangent = arrays(3, 5, 7)

    def derivatives(f):
        first = lambda x: jax.vjp(f, x)[1](dy)[0]
        return f(x), *jax.jvp(first, (x,), (tangent,))

    got, want = jax.jit(lambda: (derivatives(bound), derivatives(bound.equation)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), got, want)
    (dx,) = jax.jit(lambda: bound.backward(bound.forward(x)[1], dy))()
    np.testing.assert_allclose(dx, want[1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dx.sum(axis=axis), 0, atol=1e-12)


# row, value, gradient for dy = DY
DY = [3.0, -1.0, 0.5]
LIMITS = {
    "on the kink": ([1, 0, -1], [1, 0, 0], [0, 0, 0]),
    "one +inf": ([1, INF, -INF], [0, 1, 0], [0, 0, 0]),
    "two +inf": ([INF, INF, 0], [0.5, 0.5, 0], [2, -2, 0]),
    "one -inf": ([0, 0, -INF], [0.5, 0.5, 0], [2, -2, 0]),
    "all -inf": ([-INF] * 3, [0, 0, 0], [0, 0, 0]),
    "equal 1e30": ([1e30] * 3, [1 / 3] * 3, np.array([13, -11, -2]) / 6),
    "far apart": ([1e30, -1e30, 3.4e38], [0, 0, 1], [0, 0, 0]),
    "large offset": ([4096.5, 4096.0, 4000.0], [0.75, 0.25, 0], [2, -2, 0]),
    "nan": ([0, NAN, 1], [NAN] * 3, [NAN] * 3),
}


@pytest.mark.parametrize("row", LIMITS)
def test_limits(row):
    x, value, gradient = LIMITS[row]
    y, dx = both_ways(op, jnp.asarray([x, [0.5, 0.0, -3.0]], jnp.float32), jnp.asarray([DY, DY], jnp.float32))
    np.testing.assert_allclose(y[0], value, rtol=1e-6)
    np.testing.assert_allclose(dx[0], gradient, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y[1], [0.75, 0.25, 0], rtol=1e-6)
    np.testing.assert_allclose(dx[1], [2, -2, 0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_16_bits_are_computed_in_float32_and_rounded_once(dtype):
    x, dy, _ = arrays(200, 33, dtype=dtype)
    y, dx = both_ways(op, x, dy)
    assert y.dtype == dx.dtype == dtype
    want, want_dx = both_ways(op.equation, x.astype(jnp.float64), dy.astype(jnp.float64))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype(jnp.float64), want, rtol=0.51 * eps, atol=1e-6)
    np.testing.assert_allclose(dx.astype(jnp.float64), want_dx, rtol=0.51 * eps, atol=1e-6)


def test_the_support_does_not_depend_on_the_rounding_of_the_output():
    """A weight of 1e-9 is 0 in float16, but its unit is inside the support and gets its error."""
    x = jnp.asarray([0.0, -1.0, 2.0**-24], jnp.float16)  # p = (0.5 - 2^-25, 0, 0.5 + 2^-25)
    _, dx = both_ways(op, x, jnp.asarray(DY, jnp.float16))
    np.testing.assert_allclose(dx.astype(jnp.float64), [1.25, 0, -1.25])
    x = jnp.asarray([1.0 - 2.0**-11, 0.0], jnp.float16)  # p = (1 - 2^-12, 2^-12)
    _, dx = both_ways(op, x, jnp.asarray([3.0, -1.0], jnp.float16))
    np.testing.assert_allclose(dx.astype(jnp.float64), [2, -2])


def test_bad_arguments_are_refused_by_name():
    for x, axis, error in [
        (jnp.ones((2, 3)), 2, InputError),
        (jnp.ones((2, 0)), -1, InputError),
        (jnp.ones((2, 3)), None, InputTypeError),
        (jnp.ones(3, jnp.int32), -1, InputTypeError),
    ]:
        with pytest.raises(error, match="sparsemax"):
            op(x, axis=axis)


def test_the_layer(getkey):
    x, dy, _ = arrays(3, 5, 7)
    layer = sparsemax(axis=1)
    assert layer == sparsemax(axis=1) != sparsemax() and layer.name == "sparsemax"
    assert layer.init(getkey(), (5, 7)) == ({}, {})
    y, _, residuals = jax.jit(lambda x: layer.forward({}, {}, x))(x)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-12)
    _, dx = jax.jit(layer.backward)(residuals, dy)
    np.testing.assert_allclose(dx, both_ways(op.bind(axis=1).equation, x, dy)[1], rtol=1e-10, atol=1e-12)

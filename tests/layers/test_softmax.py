"""Softmax and log-softmax: the derivation against autodiff, the limits table row by row, 16 bits, refusals, layers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.errors import InputError, InputTypeError
from fdl.layers.softmax import log_op, log_softmax, op, softmax

INF, NAN = math.inf, math.nan
OPS = {"softmax": op, "log_softmax": log_op}
both = pytest.mark.parametrize("name", OPS)


@functools.partial(jax.jit, static_argnums=0)
def both_ways(f, x, dy):
    """Value and gradient."""
    y, pull = jax.vjp(f, x)
    return y, *pull(dy)


def arrays(*shape, dtype=jnp.float64):
    rng = np.random.default_rng(len(shape))
    return [jnp.asarray(scale * rng.standard_normal(shape), dtype) for scale in (2.0, 1.0, 1.0)]


@both
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_value_gradient_and_second_derivative_equal_the_equation(name, axis):
    bound = OPS[name].bind(axis=axis)
    x, dy, tangent = arrays(3, 5, 7)

    def derivatives(f):
        first = lambda x: jax.vjp(f, x)[1](dy)[0]
        return f(x), *jax.jvp(first, (x,), (tangent,)), jax.vjp(first, x)[1](tangent)[0]

    got, want = jax.jit(lambda: (derivatives(bound), derivatives(bound.equation)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), got, want)
    (dx,) = jax.jit(lambda: bound.backward(bound.forward(x)[1], dy))()
    np.testing.assert_allclose(dx, want[1], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dx.sum(axis=axis), 0, atol=1e-12)


# row, softmax, log-softmax, and the gradients for dy = DY, from the table in the docstring
DY = [3.0, -1.0, 0.5]
LOG3 = math.log(3)
LIMITS = {
    "one +inf": ([1, INF, -INF], [0, 1, 0], [-INF, 0, -INF], [0, 0, 0], [3, -3.5, 0.5]),
    "two +inf": ([INF, INF, 0], [0.5, 0.5, 0], [-math.log(2)] * 2 + [-INF], [1, -1, 0], [1.75, -2.25, 0.5]),
    "one -inf": ([0, 0, -INF], [0.5, 0.5, 0], [-math.log(2)] * 2 + [-INF], [1, -1, 0], [1.75, -2.25, 0.5]),
    "all -inf": ([-INF] * 3, [0, 0, 0], [-INF] * 3, [0, 0, 0], [0, 0, 0]),
    "equal 1e30": ([1e30] * 3, [1 / 3] * 3, [-LOG3] * 3, np.array([13, -11, -2]) / 18, np.array([13, -11, -2]) / 6),
    "equal -1e30": ([-1e30] * 3, [1 / 3] * 3, [-LOG3] * 3, np.array([13, -11, -2]) / 18, np.array([13, -11, -2]) / 6),
    "far apart": ([1e30, 0, -1e30], [1, 0, 0], [0, -1e30, -2e30], [0, 0, 0], [0.5, -1, 0.5]),
    "largest": ([3.4e38, -3.4e38, 0], [1, 0, 0], [0, -INF, -3.4e38], [0, 0, 0], [0.5, -1, 0.5]),
    "nan": ([0, NAN, 1], [NAN] * 3, [NAN] * 3, [NAN] * 3, [NAN] * 3),
    "nan, inf": ([INF, NAN, -INF], [NAN] * 3, [NAN] * 3, [NAN] * 3, [NAN] * 3),
}


@both
@pytest.mark.parametrize("row", LIMITS)
def test_limits(name, row):
    x, *table = LIMITS[row]
    value, gradient = (table[0], table[2]) if name == "softmax" else (table[1], table[3])
    # beside an ordinary row, which must not notice
    x = jnp.asarray([x, [0.0, math.log(2), math.log(5)]], jnp.float32)
    y, dx = both_ways(OPS[name], x, jnp.asarray([DY, DY], jnp.float32))
    np.testing.assert_allclose(y[0], value, rtol=1e-6)
    np.testing.assert_allclose(dx[0], gradient, rtol=1e-6, atol=1e-6)
    p = np.array([1, 2, 5]) / 8
    np.testing.assert_allclose(y[1], p if name == "softmax" else np.log(p), rtol=1e-6)
    want = p * (np.array(DY) - p @ DY) if name == "softmax" else DY - p * sum(DY)
    np.testing.assert_allclose(dx[1], want, rtol=1e-6)


def test_the_masked_row_has_a_finite_second_derivative():
    x = jnp.asarray([-INF] * 3, jnp.float64)
    for f in OPS.values():
        bend = jax.jvp(lambda x, f=f: both_ways(f, x, jnp.asarray(DY))[1], (x,), (jnp.ones_like(x),))[1]
        np.testing.assert_array_equal(bend, [0, 0, 0])


@both
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_16_bits_are_computed_in_float32_and_rounded_once(name, dtype):
    x, dy, _ = arrays(200, 33, dtype=dtype)
    y, dx = both_ways(OPS[name], x, dy)
    assert y.dtype == dx.dtype == dtype
    want, want_dx = both_ways(OPS[name].equation, x.astype(jnp.float64), dy.astype(jnp.float64))
    eps = float(jnp.finfo(dtype).eps)
    tiny = 4e-8 if dtype == jnp.float16 else 1e-30  # half of the smallest float16
    np.testing.assert_allclose(y.astype(jnp.float64), want, rtol=0.51 * eps, atol=tiny)
    # the difference inside dx cancels: float32's eps of the largest term comes on top
    np.testing.assert_allclose(dx.astype(jnp.float64), want_dx, rtol=0.51 * eps, atol=1e-6)


@both
@pytest.mark.parametrize(
    ("x", "axis", "error", "words"),
    [
        (jnp.ones((2, 3)), 2, InputError, ["axis", "2", "[2, 3]"]),
        (jnp.ones((2, 3)), 1.0, InputTypeError, ["axis", "float 1.0", "int"]),
        (jnp.ones((2, 0)), -1, InputError, ["[2, 0]", "empty"]),
        (jnp.ones(3, jnp.int32), -1, InputTypeError, ["x", "int32", "astype"]),
    ],
)
def test_bad_arguments_are_refused_by_name(name, x, axis, error, words):
    with pytest.raises(error) as caught:
        OPS[name](x, axis=axis)
    for word in [name, *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(("constructor", "f"), [(softmax, op), (log_softmax, log_op)], ids=["softmax", "log_softmax"])
def test_the_layers(constructor, f, getkey):
    x, dy, _ = arrays(3, 5, 7)
    layer = constructor(axis=1)
    assert layer == constructor(axis=1) != constructor() and layer.name == constructor.__name__
    assert layer.init(getkey(), (5, 7)) == ({}, {})
    y, _, residuals = jax.jit(lambda x: layer.forward({}, {}, x))(x)
    _, dx = jax.jit(layer.backward)(residuals, dy)
    want, want_dx = both_ways(f.bind(axis=1).equation, x, dy)
    np.testing.assert_allclose(y, want, rtol=1e-12)
    np.testing.assert_allclose(dx, want_dx, rtol=1e-10, atol=1e-12)

"""The gated linear unit: the derivation against autodiff, limits, 16 bits, refusals, the layer."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.errors import InputError, InputTypeError
from fdl.layers.glu import glu, op

INF, NAN = math.inf, math.nan


@functools.partial(jax.jit, static_argnums=0)
def both_ways(f, x, dy):
    """Value and gradient."""
    y, pull = jax.vjp(f, x)
    return y, *pull(dy)


def arrays(shape, out, dtype=jnp.float64):
    rng = np.random.default_rng(7)
    return [jnp.asarray(2 * rng.standard_normal(s), dtype) for s in (shape, out, shape)]


@pytest.mark.parametrize(("axis", "out"), [(-1, (3, 4, 5)), (1, (3, 2, 10))])
def test_value_gradient_and_second_derivative_equal_the_equation(axis, out):
    bound = op.bind(axis=axis)
    x, dy, tangent = arrays((3, 4, 10), out)

    def derivatives(f):
        first = lambda x: jax.vjp(f, x)[1](dy)[0]
        return f(x), *jax.jvp(first, (x,), (tangent,)), jax.vjp(first, x)[1](tangent)[0]

    got, want = jax.jit(lambda: (derivatives(bound), derivatives(bound.equation)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), got, want)
    (dx,) = jax.jit(lambda: bound.backward(bound.forward(x)[1], dy))()
    np.testing.assert_allclose(dx, want[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "y", "da", "db"),
    [
        (3, INF, 3, 2, 0),
        (3, 1e30, 3, 2, 0),
        (3, -INF, 0, 0, 0),
        (3, -1e30, 0, 0, 0),
        (-INF, 0, -INF, 1, -INF),
        (1e30, 0, 5e29, 1, 5e29),
        (3, -80, 3 * math.exp(-80), 2 * math.exp(-80), 6 * math.exp(-80)),
        (INF, -INF, NAN, 0, NAN),
        (NAN, 0, NAN, 1, NAN),
        (3, NAN, NAN, NAN, NAN),
    ],
)
def test_limits(a, b, y, da, db):
    value, dx = both_ways(op, jnp.asarray([a, 1, b, 0], jnp.float32), jnp.asarray([2, -4], jnp.float32))
    np.testing.assert_allclose(value, [y, 0.5], rtol=1e-6)
    np.testing.assert_allclose(dx, [da, -2, db, -1], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_16_bits_are_computed_in_float32_and_rounded_once(dtype):
    x, dy, _ = arrays((300, 20), (300, 10), dtype)
    y, dx = both_ways(op, x, dy)
    assert y.dtype == dx.dtype == dtype
    want, want_dx = both_ways(op.equation, x.astype(jnp.float64), dy.astype(jnp.float64))
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype(jnp.float64), want, rtol=0.51 * eps, atol=4e-8)
    np.testing.assert_allclose(dx.astype(jnp.float64), want_dx, rtol=0.51 * eps, atol=4e-8)


def test_bad_arguments_are_refused_by_name():
    for x, axis, error, words in [
        (jnp.ones((2, 3)), -1, InputError, ["axis -1", "size 3", "even"]),
        (jnp.ones((2, 4)), 2, InputError, ["axis", "[2, 4]"]),
        (jnp.ones(4, jnp.int32), -1, InputTypeError, ["x", "int32"]),
    ]:
        with pytest.raises(error) as caught:
            op(x, axis=axis)
        for word in ["glu", *words]:
            assert word in str(caught.value)


def test_the_layer(getkey):
    x, dy, _ = arrays((3, 4, 10), (3, 4, 5))
    layer = glu()
    assert layer == glu(-1) != glu(1) and layer.name == "glu" and layer.init(getkey(), (4, 10)) == ({}, {})
    y, _, residuals = jax.jit(lambda x: layer.forward({}, {}, x))(x)
    np.testing.assert_allclose(y, x[..., :5] / (1 + np.exp(-x[..., 5:])), rtol=1e-12)
    _, dx = jax.jit(layer.backward)(residuals, dy)
    np.testing.assert_allclose(dx, both_ways(op.equation, x, dy)[1], rtol=1e-10, atol=1e-12)

"""PReLU: the derivation against autodiff, its limits, 16 bits, refusals and the layer."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.errors import InputError, InputTypeError
from fdl.layers.prelu import equation, op, prelu

INF, NAN = math.inf, math.nan


@functools.partial(jax.jit, static_argnums=0)
def both_ways(f, params, x, dy):
    """Value and gradients."""
    y, pull = jax.vjp(f, params, x)
    return y, *pull(dy)


def arguments(dtype, shape=(7, 3, 5), seed=0):
    rng = np.random.default_rng(seed)
    slope = jnp.asarray(rng.uniform(-0.5, 1.5, shape[-1]), dtype)
    return (
        {"slope": slope},
        jnp.asarray(rng.standard_normal(shape), dtype),
        jnp.asarray(rng.standard_normal(shape), dtype),
    )


def test_value_gradients_and_second_derivatives_equal_the_equation():
    params, x, dy = arguments(jnp.float64)
    tangent = arguments(jnp.float64, seed=1)[:2]

    def derivatives(f):
        first = lambda params, x: jax.vjp(f, params, x)[1](dy)
        return f(params, x), jax.jvp(first, (params, x), tangent)

    got, want = jax.jit(lambda: (derivatives(op), derivatives(equation)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), got, want)
    dparams, dx = jax.jit(lambda: op.backward(op.forward(params, x)[1], dy))()
    np.testing.assert_allclose(dparams["slope"], want[1][0][0]["slope"], rtol=1e-10)
    np.testing.assert_allclose(dx, want[1][0][1], rtol=1e-10)


def test_limits():
    params = {"slope": jnp.asarray([0.25, 0.0], jnp.float32)}
    rows = jnp.asarray([-INF, INF, 0.0, -0.0, -1e30, 1e30], jnp.float32)
    x = jnp.stack([rows, rows], axis=1)
    y, dparams, dx = both_ways(op, params, x, jnp.full_like(x, 2.0))
    np.testing.assert_array_equal(y[:, 0], np.array([-INF, INF, 0, 0, -2.5e29, 1e30], np.float32))
    np.testing.assert_array_equal(y[:, 1], np.array([0, INF, 0, 0, 0, 1e30], np.float32))
    np.testing.assert_array_equal(dx[:, 0], [0.5, 2, 0.5, 0.5, 0.5, 2])
    np.testing.assert_array_equal(dx[:, 1], [0, 2, 0, 0, 0, 2])
    np.testing.assert_array_equal(dparams["slope"], [-INF, -INF])
    _, dparams, _ = both_ways(op, params, x[4:], jnp.full_like(x[4:], 2.0))
    np.testing.assert_allclose(dparams["slope"], [-2e30, -2e30], rtol=1e-6)


def test_nan_is_loud_in_its_channel_alone():
    params, x, dy = arguments(jnp.float32, (4, 3))
    y, dparams, dx = both_ways(op, params, x.at[2, 1].set(NAN), dy)
    where = np.zeros((4, 3), bool)
    where[2, 1] = True
    np.testing.assert_array_equal(np.isnan(y), where)
    np.testing.assert_array_equal(np.isnan(dx), where)
    np.testing.assert_array_equal(np.isnan(dparams["slope"]), [False, True, False])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_16_bits_are_summed_in_float32_and_rounded_once(dtype):
    params, x, dy = arguments(dtype, (4001, 2))
    up = lambda tree: jax.tree.map(lambda v: v.astype(jnp.float64), tree)
    eps = float(jnp.finfo(dtype).eps)
    results = both_ways(op, params, x, dy), both_ways(equation, *up((params, x, dy)))
    for got, want in zip(*map(jax.tree.leaves, results), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(jnp.float64), want, rtol=0.51 * eps, atol=1e-7)


@pytest.mark.parametrize(
    ("params", "x", "error", "words"),
    [
        ({"slope": jnp.ones(3)}, jnp.ones((2, 4)), InputError, ["prelu", "channels 4", "[3]", "layer before"]),
        ({"w": jnp.ones(3)}, jnp.ones((2, 3)), InputError, ["prelu", "params", "slope"]),
        ({"slope": jnp.ones(3)}, jnp.ones((2, 3), jnp.float32), InputTypeError, ["float32", "float64", "astype"]),
        ({"slope": jnp.ones(3)}, jnp.ones((2, 3), jnp.int32), InputTypeError, ["prelu", "x", "int32"]),
    ],
)
def test_bad_arguments_are_refused_by_name(params, x, error, words):
    with pytest.raises(error) as caught:
        op(params, x)
    for word in words:
        assert word in str(caught.value)


def test_the_layer(getkey):
    layer = prelu()
    params, state = layer.init(getkey(), (4, 3))
    np.testing.assert_array_equal(params["slope"], np.full(3, 0.25, np.float32))
    assert layer == prelu() and layer.name == "prelu" and state == {}
    np.testing.assert_array_equal(prelu(0.1).init(getkey(), (4, 3), jnp.float64)[0]["slope"], [0.1] * 3)
    _, x, dy = arguments(jnp.float32, (2, 4, 3))
    y, _, residuals = jax.jit(lambda x: layer.forward(params, state, x))(x)
    np.testing.assert_allclose(y, np.where(x > 0, x, 0.25 * np.asarray(x)))
    dparams, dx = jax.jit(layer.backward)(residuals, dy)
    assert dparams["slope"].shape == (3,) and dx.shape == x.shape
    with pytest.raises(InputTypeError, match="slope"):
        prelu("steep")  # pyright: ignore[reportArgumentType]

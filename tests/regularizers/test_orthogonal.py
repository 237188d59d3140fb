"""The orthogonal penalty: Keras's values, limits, convolution kernels, what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

orthogonal = fdl.regularizers.orthogonal
# no two rows or columns orthogonal: there the penalty has a kink, and rounding would choose the side
W = jnp.asarray([[1, -2, 0.5], [0.3, 0.7, -1.1], [2, 0.4, 0.6], [-0.2, 1.5, 0.7]], jnp.float32)
KERAS = {  # OrthogonalRegularizer(0.3, mode)(W) of Keras 3.15 and its gradient by JAX
    "rows": (
        0.09715212136507034,
        [[0.0030891234055161476, 0.003383716568350792, 0.007356612477451563],
         [0.00837821327149868, 0.059308189898729324, 0.04002654552459717],
         [0.0003233589231967926, 0.010455647483468056, -0.008048293180763721],
         [0.025514116510748863, 0.020002223551273346, -0.03557216376066208]],
    ),
    "columns": (
        0.06943590193986893,
        [[0.03694908320903778, -0.01956227421760559, 0.06880860775709152],
         [-0.04707731306552887, 0.019090788438916206, 0.01392111275345087],
         [-0.011676869355142117, -0.050598662346601486, 0.03567591682076454],
         [-0.0026392273139208555, -0.021499089896678925, -0.057852327823638916]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_keras(mode):
    value, gradient = jax.jit(jax.value_and_grad(orthogonal(0.3, mode=mode)))(W)
    np.testing.assert_allclose(value, KERAS[mode][0], rtol=1e-6)
    np.testing.assert_allclose(gradient, KERAS[mode][1], atol=1e-6 * float(jnp.abs(gradient).max()))
    transposed = orthogonal(0.3, mode={"rows": "columns", "columns": "rows"}[mode])(W.T)
    np.testing.assert_allclose(transposed, value, rtol=1e-6)


def test_limits():
    both = jax.jit(lambda w: jax.value_and_grad(orthogonal(0.3))(w))
    value, gradient = both(W.at[1].set(0))
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all() and (gradient[1] == 0).all(), "a row of zeros"
    assert (gradient[0] != 0).all(), "the other rows are still turned"
    value, gradient = both(jnp.zeros((4, 3), jnp.float32))
    assert value == 0 and (gradient == 0).all()
    value, gradient = both(jnp.eye(3, dtype=jnp.float32))
    assert value == 0 and (gradient == 0).all(), "orthogonal rows"
    value, gradient = both(jnp.asarray([[1, 2], [2, 4], [-3, -6]], jnp.float32))
    np.testing.assert_allclose(value, 0.3, rtol=1e-6, err_msg="parallel rows")
    assert jnp.abs(gradient).max() < 1e-7
    value, gradient = both(W[:1])
    assert value == 0 and (gradient == 0).all(), "one row: no pairs"
    assert jnp.isnan(both(W.at[1, 1].set(np.nan))[0])


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_lengths_do_not_matter_even_where_squares_overflow_or_vanish(scale):
    value, gradient = jax.value_and_grad(orthogonal(0.3))(W * jnp.float32(scale))
    np.testing.assert_allclose(value, KERAS["rows"][0], rtol=1e-6)
    want = np.asarray(KERAS["rows"][1]) / scale
    np.testing.assert_allclose(gradient, want, atol=1e-5 * np.abs(want).max())


def test_convolution_kernels_are_matrices_and_arrays_add_up():
    kernel = W.reshape(2, 2, 1, 3)
    both = orthogonal(0.3)({"a": kernel, "b": 2 * W})
    np.testing.assert_allclose(both, 2 * KERAS["rows"][0], rtol=1e-6)
    gradient = jax.grad(orthogonal(0.3, mode="columns"))(kernel)
    np.testing.assert_allclose(gradient.reshape(4, 3), KERAS["columns"][1], atol=1e-7)


def test_descending_it_makes_columns_orthogonal():
    penalty = orthogonal(1.0, mode="columns")
    step = lambda w, rate: (w - rate * jax.grad(penalty)(w), None)
    w = jax.lax.scan(step, W.astype(jnp.float64), 0.3 * 0.98 ** jnp.arange(400, dtype=jnp.float64))[0]
    assert penalty(w) < 1e-3 < penalty(W)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthogonal(-1.0), "regularizers.orthogonal: strength is -1.0"),
        (lambda: orthogonal(0.1, mode="diagonals"), "mode is 'diagonals', wanted 'rows' or 'columns'"),
        (lambda: orthogonal(0.1, filter=lambda path, w: True)({"b": W[0]}), r"array of shape \[3\], wanted a matrix"),
        (lambda: orthogonal(0.1)({"b": W[0]}), r"matches none of the parameters \['b'\]"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

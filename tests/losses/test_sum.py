"""The sum over examples: weights, NaN at weight 0, the sum of nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

total = fdl.losses.sum


def f32(*xs):
    return jnp.asarray(xs, jnp.float32)


def test_weights():
    values, weights = f32(1, 2, 6), f32(1, 1, 2)
    assert total(values) == 9 and total(values, weights) == 15
    assert total(jnp.stack([values, values], axis=1), weights) == 30, "[N] weights reach every step"
    assert total(values, jnp.asarray([True, False, True])) == 7


def test_it_is_the_mean_times_the_sum_of_the_weights():
    values, weights = f32(0.3, -2, 6), f32(1, 0.5, 2)
    np.testing.assert_allclose(total(values, weights), 3.5 * fdl.losses.mean(values, weights), rtol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_has_no_weight_contributes_exactly_nothing(poison):
    value, gradient = jax.jit(jax.value_and_grad(total))(f32(1, poison, 3), f32(1, 0, 2))
    assert value == 7
    np.testing.assert_array_equal(gradient, [1, 0, 2])


def test_limits():
    value, gradient = jax.value_and_grad(total)(f32(1, 2), f32(0, 0))
    assert value == 0 and (gradient == 0).all()
    value, gradient = jax.value_and_grad(total)(jnp.zeros((0, 3), jnp.float32))
    assert value == 0 and gradient.shape == (0, 3), "the sum of nothing"
    assert jnp.isnan(total(f32(1, np.nan), f32(1, 0.1))), "NaN that counts is loud"


def test_sixteen_bits_are_summed_in_float32():
    for dtype in (jnp.bfloat16, jnp.float16):
        value = total(jnp.full(4096, 300, dtype), jnp.ones(4096, dtype))
        assert value == 4096 * 300 and value.dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: total(jnp.zeros((3, 2)), jnp.zeros(2)), r"losses.sum: weights has shape \[2\].*leading axes"),
        (lambda: total(jnp.zeros(3), jnp.zeros((3, 1))), "weights has shape"),
        (lambda: total(jnp.zeros(3, jnp.int32)), "values is int32"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

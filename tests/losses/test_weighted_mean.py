"""The weighted sum over the number of examples: Keras's reduction, masks, NaN at weight 0 and under the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

weighted_mean = fdl.losses.weighted_mean


def f32(*xs):
    return jnp.asarray(xs, jnp.float32)


def test_weights():
    values, weights = f32(1, 2, 6), f32(1, 1, 2)
    assert weighted_mean(values) == 3 and weighted_mean(values, weights) == 5
    assert weighted_mean(jnp.stack([values, values], axis=1), weights) == 5, "[N] weights reach every step"
    assert weighted_mean(values, 2 * weights) == 10, "it is linear in the weights"
    assert fdl.losses.mean(values, 2 * weights) == fdl.losses.mean(values, weights), "the other is not"


def test_a_mask_leaves_examples_out_and_a_weight_of_zero_does_not():
    values, kept = f32(1, 2, 6), jnp.asarray([True, False, True])
    assert weighted_mean(values, None, kept) == 3.5 == fdl.losses.mean(values, kept)
    assert weighted_mean(values, None, kept.astype(jnp.int32)) == 3.5
    np.testing.assert_allclose(weighted_mean(values, kept), 7 / 3, rtol=1e-6)
    assert weighted_mean(values, f32(1, 1, 3), kept) == 9.5


def test_keras():
    """reduce_weighted_values of Keras 3.15's sum_over_batch_size: values, sample_weight [3], mask [3, 2]."""
    values = f32(0.5, -1, 2, 3, -4, 1.5).reshape(3, 2)
    weights, mask = f32(0.2, 1, 3), jnp.asarray([[True, False], [True, True], [False, True]])
    np.testing.assert_allclose(weighted_mean(values), 0.3333333432674408, rtol=1e-6)
    np.testing.assert_allclose(weighted_mean(values, weights), -0.43333330750465393, rtol=1e-6)
    np.testing.assert_allclose(weighted_mean(values, None, mask), 1.75, rtol=1e-6)
    np.testing.assert_allclose(weighted_mean(values, weights, mask), 2.3999998569488525, rtol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_does_not_count_contributes_exactly_nothing(poison):
    values, weights = f32(1, poison, 3, 5), f32(1, 0, 2, 1)
    value, gradient = jax.jit(jax.value_and_grad(weighted_mean))(values, weights)
    assert value == 3
    np.testing.assert_array_equal(gradient, [0.25, 0, 0.5, 0.25])
    both = jax.jit(jax.value_and_grad(weighted_mean, argnums=(0, 1)))
    value, (dvalues, dweights) = both(values, f32(1, poison, 2, 1), jnp.asarray([True, False, True, True]))
    assert value == 4
    np.testing.assert_allclose(dvalues, f32(1, 0, 2, 1) / 3, rtol=1e-6)
    np.testing.assert_allclose(dweights, f32(1, 0, 3, 5) / 3, rtol=1e-6)


def test_nothing_counts():
    grad = jax.value_and_grad(weighted_mean)
    for value, gradient in (grad(f32(1, 2), f32(0, 0)), grad(f32(1, 2), None, jnp.asarray([False, False]))):
        assert value == 0 and (gradient == 0).all()
    assert jnp.isnan(weighted_mean(f32(1, np.nan), f32(1, 0.1))), "NaN that counts is loud"


def test_sixteen_bits_are_summed_in_float32():
    for dtype in (jnp.bfloat16, jnp.float16):
        value: jax.Array = weighted_mean(jnp.full(4096, 300, dtype), jnp.ones(4096, dtype), jnp.ones(4096, bool))
        assert value.dtype == jnp.float32 and value == 300


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weighted_mean(jnp.zeros(0)), "losses.weighted_mean: values .* the mean of nothing"),
        (lambda: weighted_mean(jnp.zeros((3, 2)), jnp.zeros(2)), r"weights has shape \[2\].*leading axes"),
        (lambda: weighted_mean(jnp.zeros((3, 2)), None, jnp.zeros(2, bool)), r"mask has shape \[2\].*leading axes"),
        (lambda: weighted_mean(jnp.zeros(3), None, jnp.zeros(3)), "mask is float.*wanted booleans"),
        (lambda: weighted_mean(jnp.zeros(3, jnp.int32)), "values is int32"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

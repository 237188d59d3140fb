"""The mean over examples: weights, NaN at weight 0, nothing counted, nothing there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

mean = fdl.losses.mean


def test_weights():
    values, weights = jnp.asarray([1.0, 2.0, 6.0], jnp.float32), jnp.asarray([1.0, 1.0, 2.0], jnp.float32)
    assert mean(values) == 3 and mean(values, weights) == 3.75
    assert mean(jnp.stack([values, values], axis=1), weights) == 3.75, "[N] weights reach every step"
    assert mean(values, jnp.asarray([True, False, True])) == 3.5


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_has_no_weight_contributes_exactly_nothing(poison):
    values, weights = jnp.asarray([1.0, poison, 3.0], jnp.float32), jnp.asarray([1.0, 0.0, 1.0], jnp.float32)
    value, gradient = jax.value_and_grad(mean)(values, weights)
    assert value == 2
    np.testing.assert_array_equal(gradient, [0.5, 0.0, 0.5])


def test_all_weights_zero_give_zero():
    value, gradient = jax.value_and_grad(mean)(jnp.asarray([1.0, 2.0], jnp.float32), jnp.zeros(2, jnp.float32))
    assert value == 0 and (gradient == 0).all()


def test_nan_that_counts_is_loud():
    value = mean(jnp.asarray([1.0, np.nan], jnp.float32), jnp.asarray([1.0, 0.1], jnp.float32))
    assert jnp.isnan(value)


def test_sixteen_bits_are_summed_in_float32():
    for dtype in (jnp.bfloat16, jnp.float16):
        assert mean(jnp.ones(4096, dtype)) == 1 and mean(jnp.full(4096, 300, dtype)) == 300
        assert mean(jnp.ones(4096, dtype)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean(jnp.zeros(0)), "the mean of nothing"),
        (lambda: mean(jnp.zeros((3, 2)), jnp.zeros(2)), r"weights has shape \[2\].*leading axes"),
        (lambda: mean(jnp.zeros(3), jnp.zeros((3, 1))), "weights has shape"),
        (lambda: mean(jnp.zeros(3, jnp.int32)), "values is int32"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_get():
    assert fdl.losses.get("mse") is fdl.losses.mean_squared_error
    assert fdl.losses.get("softmax_cross_entropy") is fdl.losses.softmax_cross_entropy
    with pytest.raises(ValueError, match="no loss 'nope'; there are .*mean_squared_error"):
        fdl.losses.get("nope")


def test_weights_that_cancel_out_are_no_empty_batch():
    values, weights = jnp.asarray([1.0, 3.0], jnp.float32), jnp.asarray([1.0, -1.0], jnp.float32)
    assert fdl.losses.mean(values, weights) == -jnp.inf
    assert fdl.losses.mean(values, 0 * weights) == 0


@pytest.mark.parametrize("name", ["mse", "MSE", "MeanSquaredError", "mean_squared_error"])
def test_names_as_in_keras(name):
    assert fdl.losses.get(name) is fdl.losses.mean_squared_error
    assert fdl.losses.get("KLDivergence") is fdl.losses.kl_divergence and fdl.losses.get("CTC") is fdl.losses.ctc

"""What the losses over pred [..., D] and target [..., D] have in common: the door, shapes, and examples without weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import losses as L

LOSSES = {
    "categorical_hinge": L.categorical_hinge,
    "cosine_similarity": L.cosine_similarity,
    "euclidean_distance": L.euclidean_distance,
    "hinge": L.hinge,
    "huber": L.huber,
    "log_cosh": L.log_cosh,
    "mean_absolute_error": L.mean_absolute_error,
    "mean_absolute_percentage_error": L.mean_absolute_percentage_error,
    "mean_squared_logarithmic_error": L.mean_squared_logarithmic_error,
    "modified_huber": L.modified_huber,
    "poisson": L.poisson,
    "pseudo_huber": L.pseudo_huber,
    "quantile": L.quantile,
    "squared_hinge": L.squared_hinge,
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
def test_door(name):
    loss, x = LOSSES[name], jnp.ones((4, 1))
    for pred, target, message in (
        (x, jnp.ones(4), rf"{name}: pred has shape \[4, 1\].*\[4\].*nothing is broadcast"),
        (x.astype(jnp.int32), x, f"{name}: pred is int32"),
        (x, x.astype(jnp.int32), f"{name}: target is int32"),
        (x.astype(jnp.float32), x.astype(jnp.float64), "float32 and target is float64"),
        (jnp.ones(()), jnp.ones(()), "at least 1 dimension"),
        (jnp.ones((4, 0)), jnp.ones((4, 0)), "an example without outputs"),
        ([1.0], x, f"{name}: pred is list"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            loss(pred, target)


@every_loss
def test_one_value_per_example(name):
    x = jnp.ones((2, 4, 3), jnp.bfloat16)
    assert LOSSES[name](x, x).shape == (2, 4) and LOSSES[name](x[0, 0], x[0, 0]).shape == ()
    assert LOSSES[name](x, x).dtype == jnp.float32
    assert L.get(name) is LOSSES[name]


@every_loss
def test_an_example_without_weight_contributes_exactly_nothing(name):
    """Also where it holds NaN or inf, by pred and by target: 0 * NaN would be NaN."""
    pred = jnp.asarray([[0.5, 2.0], [np.nan, 1.0], [3.0, 0.25], [np.inf, 1.0]], jnp.float32)
    target = jnp.asarray([[1.0, 1.0], [np.nan, 1.0], [1.0, 1.0], [np.inf, 1.0]], jnp.float32)
    counted = np.asarray([True, False, True, False])
    total = lambda pred, target, weights: L.mean(LOSSES[name](pred, target), weights)
    run = jax.value_and_grad(total, argnums=(0, 1))
    value, gradients = run(pred, target, jnp.asarray(counted, jnp.float32))
    want, want_gradients = run(pred[counted], target[counted], None)
    assert value == want
    for got, want in zip(gradients, want_gradients, strict=True):
        np.testing.assert_array_equal(got[~counted], 0)
        np.testing.assert_array_equal(got[counted], want)


def test_keras_aliases():
    assert L.get("mae") is L.mean_absolute_error
    assert L.get("mape") is L.mean_absolute_percentage_error
    assert L.get("msle") is L.mean_squared_logarithmic_error

"""The initialisers that `w_init` takes: those of JAX as they are, with the variances that their papers say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import InputError, InputTypeError

of = jax.nn.initializers
LAYERS = {  # layer, one example, fan in, fan out
    "dense": (lambda w_init: fdl.dense(150, w_init=w_init), (300,), 300, 150),
    "conv": (lambda w_init: fdl.conv(64, (3, 2), w_init=w_init), (5, 5, 70), 420, 384),
}
VARIANCES = {
    "glorot_uniform": (of.glorot_uniform(), lambda i, o: 2 / (i + o)),
    "he_normal": (of.he_normal(), lambda i, o: 2 / i),
    "lecun_normal": (of.lecun_normal(), lambda i, o: 1 / i),
    "small Gaussian": (of.normal(0.01), lambda i, o: 1e-4),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", VARIANCES)
def test_variance(name, layer):
    """Of n numbers the variance is known to about sqrt(2/n), 1 % here; mean 0 likewise."""
    make, shape, fan_in, fan_out = LAYERS[layer]
    w_init, variance = VARIANCES[name]
    params, _ = make(w_init).init(jax.random.key(0), shape)
    w, want = np.asarray(params["w"], np.float64), variance(fan_in, fan_out)
    assert w.size > 25_000 and not np.any(params["b"])
    assert abs(w.var() / want - 1) < 4 * np.sqrt(2 / w.size)
    assert abs(w.mean()) < 4 * np.sqrt(want / w.size)


def test_the_default_is_glorot_uniform():
    (wide, _), (narrow, _) = (fdl.dense(150).init(jax.random.key(0), (size,)) for size in (300, 50))
    for params, fan_in in ((wide, 300), (narrow, 50)):
        limit = np.sqrt(6 / (fan_in + 150))
        assert 0.99 * limit < np.abs(params["w"]).max() <= limit


@pytest.mark.parametrize("features", [20, 50])
def test_orthogonal(features):
    params, _ = fdl.dense(features, w_init=of.orthogonal()).init(jax.random.key(0), (30,), jnp.float64)
    w = params["w"] if features <= 30 else params["w"].T
    np.testing.assert_allclose(w.T @ w, np.eye(w.shape[1]), atol=1e-12)


def test_two_layers_with_the_same_initialiser_are_equal():
    w_init = of.he_normal()
    assert fdl.dense(3, w_init=w_init) == fdl.dense(3, w_init=w_init) != fdl.dense(3)


@pytest.mark.parametrize(
    ("w_init", "error", "words"),
    [
        (of.he_normal, InputTypeError, "wanted an array; call it"),
        (lambda key, shape, dtype: None, InputTypeError, "w_init returned NoneType None, wanted an array; return w"),
        (lambda key, shape, dtype: jnp.zeros(shape[::-1], dtype), InputError, r"wanted float32\[4, 3\]"),
        (lambda key, shape, dtype: jnp.zeros(shape, jnp.float64), InputError, r"returned float64\[4, 3\]"),
    ],
)
def test_the_door(w_init, error, words):
    with pytest.raises(error, match=words):
        fdl.dense(3, w_init=w_init).init(jax.random.key(0), (4,))

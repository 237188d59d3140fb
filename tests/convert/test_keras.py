"""Recurrent layers on the weights of Keras: outputs, last states and every gradient, in float32."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.convert.cells import D, I, N, T, close, drawn
from tests.convert.peers import assert_alike, convert, redrawn

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason='Keras is not installed: pip install "fdl[bench]"')
if keras.backend.backend() != "jax":
    pytest.skip(f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax", allow_module_level=True)
K = keras.layers

pytestmark = [
    pytest.mark.usefixtures("their_promotion"),
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
    ),  # of their get_weights
]

LAYERS = {
    "gru": (K.GRU, {"reset_after": True}),
    "gru before": (K.GRU, {"reset_after": False}),
    "lstm": (K.LSTM, {}),
    "rnn": (K.SimpleRNN, {}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients(name):
    """In float32: their tanh and their scan compute in it whatever the layer's dtype."""
    make, options = LAYERS[name]
    layer = make(D, return_sequences=True, return_state=True, **options)
    layer.build((N, T, I))

    def theirs(weights, x, state):
        (y, *final), _ = layer.stateless_call(
            weights, [v.value for v in layer.non_trainable_variables], x, initial_state=list(state)
        )
        return y, tuple(final)

    assert_alike(name.split()[0], "keras", theirs, redrawn(layer.get_weights(), np.float32), 2e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_both_directions_and_layers_on_top(cell):
    make, options = LAYERS[cell]
    model = keras.Sequential(
        [K.Input((T, I))] + [K.Bidirectional(make(D, return_sequences=True, **options)) for _ in range(2)]
    )
    weights = [redrawn(layer.get_weights(), np.float32) for layer in model.layers]
    for layer, own in zip(model.layers, weights, strict=True):
        layer.set_weights(own)
    x = drawn((N, T, I), 1, np.float32)
    want = np.asarray(model(x))
    one = {"gru": lambda: fdl.gru(D, "reset_after"), "lstm": lambda: fdl.lstm(D), "rnn": lambda: fdl.rnn(D)}[cell]
    ours = fdl.serial(fdl.bidirectional(one()), fdl.bidirectional(one()))
    params = jax.tree.map(jnp.asarray, convert(cell, weights, "keras", "fdl"))
    close(ours.apply(params, {}, jnp.asarray(x))[0], want, 2e-5)


@pytest.mark.parametrize("reset_after", [True, False])
def test_without_a_bias(reset_after):
    layer = K.GRU(D, use_bias=False, reset_after=reset_after, return_sequences=True)
    layer.build((N, T, I))
    params = fdl.convert.gru(layer.get_weights(), "keras", "fdl", reset_after=reset_after)
    x = drawn((N, T, I), 1, np.float32)
    with jax.enable_x64(False):  # without a bias theirs mixes float32 and float64
        want = np.asarray(layer(x))
    variant = "reset_after" if reset_after else "full"
    close(fdl.ops.gru(jax.tree.map(jnp.asarray, params), jnp.asarray(x), variant=variant)[0], want, 2e-5)
    layer.set_weights(fdl.convert.gru(params, "fdl", "keras", bias=False))


def test_layers_without_a_state_of_their_own():
    x = drawn((2, 6, 5, 4), 1, np.float32)
    cases = [
        ("dense", K.Dense(3), fdl.ops.dense),
        ("conv", K.Conv2D(6, (3, 2), groups=2), lambda p, x: fdl.ops.conv(p, x, padding="VALID", groups=2)),
        ("layer_norm", K.LayerNormalization(epsilon=1e-5), fdl.ops.layer_norm),
        ("group_norm", K.GroupNormalization(2, epsilon=1e-5), lambda p, x: fdl.ops.group_norm(p, x, groups=2)),
        ("rms_norm", K.RMSNormalization(epsilon=1e-6), fdl.ops.rms_norm),
    ]
    for name, layer, op in cases:
        layer.build(x.shape)
        layer.set_weights(redrawn(layer.get_weights(), np.float32))
        params = jax.tree.map(jnp.asarray, getattr(fdl.convert, name)(layer.get_weights(), "keras"))
        want = np.asarray(layer(x))
        close(op(params, jnp.asarray(x)), want, 2e-5)


def test_batch_norm_in_use():
    layer, x = K.BatchNormalization(epsilon=1e-5), drawn((5, 3), 1, np.float32)
    layer.build(x.shape)
    layer.set_weights([np.exp(w) for w in redrawn(layer.get_weights(), np.float32)])
    found = jax.tree.map(jnp.asarray, fdl.convert.batch_norm(layer.get_weights(), "keras"))
    want = np.asarray(layer(x, training=False))
    close(fdl.batch_norm().apply(found["params"], found["state"], jnp.asarray(x))[0], want, 2e-5)

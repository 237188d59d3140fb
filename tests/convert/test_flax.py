"""Recurrent layers on the weights of flax.linen and flax.nnx: outputs, last states and every gradient, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.errors import InputError
from tests.convert.cells import D, I, N, T, close, drawn
from tests.convert.peers import assert_alike, redrawn

linen = pytest.importorskip("flax.linen", reason='Flax is not installed: pip install "fdl[bench]"')
nnx = pytest.importorskip("flax.nnx")

pytestmark = pytest.mark.usefixtures("their_promotion")

LINEN = {
    "gru": (linen.GRUCell, "gru"),
    "lstm": (linen.LSTMCell, "lstm"),
    "optimized lstm": (linen.OptimizedLSTMCell, "lstm"),
    "rnn": (linen.SimpleCell, "rnn"),
}
NNX = {
    "gru": (nnx.GRUCell, "gru", "nnx"),
    "lstm": (nnx.LSTMCell, "lstm", "nnx"),
    "optimized lstm": (nnx.OptimizedLSTMCell, "lstm", "nnx_optimized"),
    "rnn": (nnx.SimpleCell, "rnn", "nnx"),
}


def carried(state: Any) -> Any:
    """Theirs is (c, h)."""
    return state[0] if len(state) == 1 else state[::-1]


def ours(carry: Any) -> Any:
    return tuple(carry)[::-1] if isinstance(carry, tuple | list) else (carry,)


@pytest.mark.parametrize("name", LINEN)
def test_linen(name):
    make, cell = LINEN[name]
    layer = linen.RNN(make(D, param_dtype=jnp.float64), return_carry=True)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((N, T, I)))["params"]

    def theirs(weights, x, state):
        carry, y = layer.apply({"params": {"cell": weights}}, x, initial_carry=carried(state))
        return y, ours(carry)

    assert_alike(cell, "flax", theirs, redrawn(shapes["cell"], np.float64))


@pytest.mark.parametrize("name", NNX)
def test_nnx(name):
    make, cell, layout = NNX[name]
    dtypes = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    structure, state = nnx.split(nnx.RNN(make(I, D, rngs=nnx.Rngs(0), **dtypes), return_carry=True))

    def theirs(weights, x, start):
        nnx.replace_by_pure_dict(state, {"cell": weights})
        carry, y = nnx.merge(structure, state)(x, initial_carry=carried(start))
        return y, ours(carry)

    assert_alike(cell, layout, theirs, redrawn(nnx.to_pure_dict(state)["cell"], np.float64))


def test_nnx_has_no_place_for_the_bias_beside_h():
    cell = linen.GRUCell(D)
    shapes = jax.eval_shape(cell.init, jax.random.key(0), jnp.ones((N, D)), jnp.ones((N, I)))["params"]
    weights = redrawn(shapes, np.float32)
    with pytest.raises(InputError, match="s_n .* is not 0"):
        fdl.convert.gru(weights, "flax", "nnx")
    weights["hn"]["bias"][:] = 0
    nnx_cell = nnx.GRUCell(I, D, rngs=nnx.Rngs(0))
    state = nnx.state(nnx_cell)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, fdl.convert.gru(weights, "flax", "nnx")))
    nnx.update(nnx_cell, state)
    h, x = drawn([(N, D), (N, I)], 1, np.float32)
    close(nnx_cell(h, x)[1], cell.apply({"params": weights}, h, x)[1], 1e-6)


def test_both_directions():
    one = lambda: linen.RNN(linen.LSTMCell(D, param_dtype=jnp.float64))
    layer = linen.Bidirectional(one(), one())
    x = drawn((N, T, I), 1)
    weights = redrawn(jax.eval_shape(layer.init, jax.random.key(0), x)["params"], np.float64)
    want = layer.apply({"params": weights}, x)
    params = jax.tree.map(jnp.asarray, fdl.convert.lstm(weights, "flax"))
    close(fdl.bidirectional(fdl.lstm(D)).apply(params, {}, jnp.asarray(x))[0], want)
    np.testing.assert_equal(fdl.convert.lstm(params, "fdl", "flax"), weights)


def test_layers_without_a_state_of_their_own():
    x = jnp.asarray(drawn((2, 6, 5, 4), 1))
    f64 = {"param_dtype": jnp.float64}
    conv = linen.Conv(6, (3, 2), padding="VALID", feature_group_count=2, **f64)
    cases: list[Any] = [
        ("dense", linen.Dense(3, **f64), fdl.ops.dense),
        ("conv", conv, lambda p, x: fdl.ops.conv(p, x, padding="VALID", groups=2)),
        ("layer_norm", linen.LayerNorm(**f64, epsilon=1e-5, use_fast_variance=False), fdl.ops.layer_norm),
        ("rms_norm", linen.RMSNorm(**f64), fdl.ops.rms_norm),
    ]
    for name, layer, op in cases:
        weights = redrawn(jax.eval_shape(layer.init, jax.random.key(0), x)["params"], np.float64)
        want = layer.apply({"params": weights}, x)
        close(op(jax.tree.map(jnp.asarray, getattr(fdl.convert, name)(weights, "flax")), x), want)


def test_batch_norm_in_use():
    layer, x = linen.BatchNorm(use_running_average=True, param_dtype=jnp.float64), jnp.asarray(drawn((5, 3), 1))
    variables = jax.tree.map(np.exp, redrawn(jax.eval_shape(layer.init, jax.random.key(0), x), np.float64))
    want = layer.apply(variables, x)
    found = jax.tree.map(jnp.asarray, fdl.convert.batch_norm(variables, "flax"))
    close(fdl.batch_norm().apply(found["params"], found["state"], x)[0], want)

"""Recurrent layers on the weights of equinox.nn: outputs, last states and every gradient, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.convert.cells import D, I, T, close, drawn
from tests.convert.peers import assert_alike, redrawn

eqx = pytest.importorskip("equinox", reason='Equinox is not installed: pip install "fdl[bench]"')


pytestmark = pytest.mark.usefixtures("their_promotion")


def weights_of(module: Any) -> dict[str, Any]:
    arrays = {name: value for name, value in vars(module).items() if eqx.is_array(value)}
    return redrawn(arrays, np.float64)


def with_weights(module: Any, weights: dict[str, Any]) -> Any:
    return eqx.tree_at(lambda m: [getattr(m, name) for name in weights], module, list(weights.values()))


@pytest.mark.parametrize(("cell", "make"), [("gru", eqx.nn.GRUCell), ("lstm", eqx.nn.LSTMCell)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients(cell, make, bias):
    module = make(I, D, use_bias=bias, key=jax.random.key(0))

    def theirs(weights, x, state):
        step = jax.vmap(with_weights(module, weights))
        after = []
        for t in range(T):
            state = step(x[:, t], state) if cell == "lstm" else (step(x[:, t], state[0]),)
            after.append(state[0])
        return jnp.stack(after, axis=1), state

    weights = weights_of(module)
    biases = {"gru": {"bias", "bias_n"}, "lstm": {"bias"}}[cell] if bias else set()
    assert set(weights) == {"weight_ih", "weight_hh"} | biases
    if bias:
        assert_alike(cell, "equinox", theirs, weights)
        return
    x, h, c = drawn([(2, T, I), (2, D), (2, D)], 1)
    params = jax.tree.map(jnp.asarray, getattr(fdl.convert, cell)(weights, "equinox"))
    state = {"h": jnp.asarray(h)} | ({"c": jnp.asarray(c)} if cell == "lstm" else {})
    options = {"variant": "reset_after"} if cell == "gru" else {}
    got, _ = getattr(fdl.ops, cell)(params, jnp.asarray(x), state, **options)
    close(got, theirs(weights, x, (h, c)[: len(state)])[0])


def test_layers_without_a_state_of_their_own():
    key = jax.random.key(0)
    x = jnp.asarray(drawn((6, 5, 4), 1))
    cases: list[Any] = [
        ("dense", eqx.nn.Linear(4, 3, key=key), fdl.ops.dense, lambda m: jax.vmap(jax.vmap(m))(x)),
        (
            "conv",
            eqx.nn.Conv2d(4, 6, (3, 2), groups=2, key=key),
            lambda p, x: fdl.ops.conv(p, x, padding="VALID", groups=2),
            lambda m: jnp.moveaxis(m(jnp.moveaxis(x, -1, 0)), 0, -1),
        ),
        ("layer_norm", eqx.nn.LayerNorm(4), fdl.ops.layer_norm, lambda m: jax.vmap(jax.vmap(m))(x)),
    ]
    for name, module, op, theirs in cases:
        weights = weights_of(module)
        want = theirs(with_weights(module, weights))
        params = jax.tree.map(jnp.asarray, getattr(fdl.convert, name)(weights, "equinox"))
        close(op(params, x[None])[0], want)

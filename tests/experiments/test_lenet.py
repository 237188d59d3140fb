"""The parts of the LeNet experiment: gradients leaf by leaf, layer outputs, the claim about max pooling."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

import fdl
from experiments import lenet

rng = np.random.default_rng(0)
MODEL = fdl.serial(
    conv_1=fdl.conv(2, (3, 3)),
    relu_1=fdl.relu(),
    pool_1=fdl.max_pool((2, 2)),
    conv_2=fdl.conv(3, (3, 3)),
    relu_2=fdl.relu(),
    pool_2=fdl.max_pool((2, 2)),
    flatten=fdl.flatten(),
    output=fdl.dense(10),
)
DATA = np.asarray(rng.random((9, 6, 6, 1)), np.float32), rng.integers(0, 10, 9)


def test_every_leaf_has_a_row_and_a_wrong_backward_shows(monkeypatch):
    rows, worst = lenet.agreement(MODEL, DATA, 0)
    assert [row[0] for row in rows] == [
        f"{name}/{leaf}" for name in ("conv_1", "conv_2", "output") for leaf in ("b", "w")
    ]
    assert worst < 1e-12 and all(row[2] > 0 for row in rows)
    exact = fdl.backprop.value_and_grad

    def wrong(model, loss, gradient):
        right = exact(model, loss, gradient=gradient)

        def gradients(*args):
            value, grads = right(*args)
            return value, {**grads, "conv_1": jax.tree.map(lambda g: g * 1.00001, grads["conv_1"])}

        return gradients if gradient == "manual" else right

    monkeypatch.setattr(fdl.backprop, "value_and_grad", wrong)
    assert lenet.agreement(MODEL, DATA, 0)[1] > 1e-6


def test_outputs_and_winners(monkeypatch):
    found: Any
    params, state = MODEL.init(jax.random.key(0), (6, 6, 1))
    result = fdl.train.Result(params, state, {}, None, 0)
    outputs = lenet.outputs_of(MODEL, params, state, jnp.asarray(DATA[0]))
    np.testing.assert_allclose(outputs["output"], MODEL.apply(params, state, jnp.asarray(DATA[0]))[0], rtol=1e-5)
    (found,) = lenet.winners(MODEL, result, DATA)
    assert found.verdict == "holds"
    monkeypatch.setattr(fdl.backprop, "deltas", lambda *args: jax.tree.map(jnp.ones_like, outputs))
    (found,) = lenet.winners(MODEL, result, DATA)
    assert found.verdict == "fails"

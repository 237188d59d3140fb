"""A whole Layer: both ways through its backward, and the cost."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check, losses
from fdl.compose import residual, serial
from fdl.errors import InputError, InputTypeError
from fdl.layer import Layer
from fdl.layers import activations
from fdl.layers.dense import dense
from fdl.layers.dense import op as dense_op
from fdl.layers.dropout import dropout
from tests.check.zoo import CHANGES, batch_norm, labels, normal, planted

pytestmark = pytest.mark.optimized

untyped: Any = check.layer  # for arguments of the wrong type


def dense_with(op):
    def init(key, spec, dtype):
        return {"w": jax.random.normal(key, (spec.shape[-1], 4), dtype), "b": jnp.zeros(4, dtype)}

    return Layer.from_op("dense", op, init)


def test_a_model_is_right_by_every_way():
    model = serial(dense(6), activations.tanh(), dropout(0.3), residual(dense(6), activations.sigmoid()), dense(3))
    report = check.layer(model, normal(1, 7, 5), labels(2, 7, 3), losses.softmax_cross_entropy_with_integer_labels)
    assert report.ok and report.detection_probability == 1
    assert {row.way for row in report.comparisons_by_mode} == {"apply", "backward", "backprop"}
    leaves = [leaf.leaf for leaf in report.leaves if leaf.quantity == "gradient"]
    assert "params['residual_3']['dense_0']['w']" in leaves and "x" in leaves and len(leaves) == 7
    assert "by apply, backward, backprop" in str(report)


@pytest.mark.parametrize("fault", CHANGES)
def test_a_fault_in_one_leaf_is_found_by_every_way(fault):
    model = serial(dense_with(planted(dense_op, 0, CHANGES[fault])), activations.tanh(), dense(3))
    x, target = normal(1, 7, 5), normal(2, 7, 3)
    report = check.layer(model, x, target, losses.mean_squared_error, modes="quick")
    assert report.verdict == "wrong"
    assert {failure.leaf for failure in report.failures} == {"params['dense_0']['b']"}
    assert {failure.way for failure in report.failures} == {"apply", "backward", "backprop"}


def test_the_input_and_a_layer_without_parameters():
    assert check.layer(activations.gelu(), normal(1, 7, 5), modes="quick").ok
    wrong = serial(dense(3), dense_with(planted(dense_op, 2, CHANGES["negated"])))
    report = check.layer(wrong, normal(1, 7, 5), modes="quick")
    assert {failure.leaf for failure in report.failures} == {"params['dense_0']['b']", "params['dense_0']['w']", "x"}


def test_a_bias_that_a_backward_forgets_is_seen_though_it_starts_at_zero():
    def forward(params, x):
        y, residuals = dense_op._forward(params, x)
        return y - params["b"][None], residuals

    forgetful = type(dense_op)(dense_op._equation, forward, dense_op._backward, name="dense")
    report = check.layer(dense_with(forgetful), normal(1, 7, 5), modes="quick")
    assert report.verdict == "wrong" and {failure.quantity for failure in report.failures} == {"value"}


def with_statistics(momentum_of_backward=None):
    """Batch norm with running statistics: state is passed on, not differentiated."""

    def init(key, spec, dtype):
        size = spec.shape[-1]
        params = {"scale": jnp.ones(size, dtype), "shift": jnp.zeros(size, dtype)}
        return params, {"mean": jnp.zeros(size, dtype), "steps": jnp.zeros((), jnp.int32)}

    def run(walk, params, state, x):
        y, residuals = walk.evaluate(batch_norm, params, x)
        mean = 0.9 * state["mean"] + 0.1 * jnp.mean(x, axis=0)
        return y, {"mean": mean, "steps": state["steps"] + 1}, residuals

    def backward(residuals, dy):
        dparams, dx = batch_norm.backward(residuals, dy)
        return dparams, dx if momentum_of_backward is None else dx + momentum_of_backward

    return Layer("batch_norm", init=init, run=run, backward=backward)


def test_state_is_passed_on_and_compared():
    report = check.layer(with_statistics(), normal(1, 9, 4))
    assert report.ok
    assert report.not_differentiated == ("state['mean'] float32[4]", "state['steps'] int32[]", "key None")
    assert "state['mean']" in {leaf.leaf for leaf in report.leaves if leaf.quantity == "value"}
    report = check.layer(with_statistics(0.1), normal(1, 9, 4), modes="quick")
    assert {(failure.way, failure.leaf) for failure in report.failures} == {("backward", "x")}


def test_a_backward_of_the_wrong_structure_is_a_failure():
    inner = dense(3)
    broken = Layer("broken", init=inner._init, run=inner._run, backward=lambda residuals, dy: ({}, dy))
    report = check.layer(broken, normal(1, 7, 5), modes="quick")
    assert report.verdict == "wrong" and "returned the structure" in str(report)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float64])
def test_the_precision_is_that_of_x(dtype):
    model = serial(dense(6), activations.relu(), dense(3))
    report = check.layer(model, normal(1, 7, 5, dtype=dtype), modes="quick")
    assert report.ok and str(jnp.dtype(dtype)) in {row.dtype for row in report.comparisons_by_mode}


def test_use_without_training_and_token_ids():
    model = serial(dense(6), dropout(0.5))
    assert check.layer(model, normal(1, 7, 5), train=False, modes="quick").ok

    def init(key, spec, dtype):
        return {"w": jax.random.normal(key, (11, 4), dtype)}

    def equation(params, ids):
        return jax.nn.one_hot(ids, 11, dtype=params["w"].dtype) @ params["w"]

    def backward(ids, dy):
        return {"w": jnp.zeros((11, 4), dy.dtype).at[ids].add(dy)}, None

    op = type(dense_op)(equation, lambda params, ids: (params["w"][ids], ids), backward, name="embedding")
    report = check.layer(Layer.from_op("embedding", op, init), labels(1, 9, 11), modes="quick")
    assert report.ok and "x int32[9]" in report.not_differentiated


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (InputTypeError, "wanted a Layer; fdl.check.gradients", lambda: untyped(jnp.sin, normal(1, 3, 2))),
        (InputTypeError, "x is list, wanted an array", lambda: check.layer(dense(3), [1.0])),
        (InputError, "wanted a batch axis", lambda: check.layer(dense(3), jnp.float32(1))),
        (InputError, "loss is missing", lambda: check.layer(dense(3), normal(1, 3, 2), normal(2, 3, 3))),
        (
            InputError,
            "target is missing",
            lambda: check.layer(dense(3), normal(1, 3, 2), loss=losses.mean_squared_error),
        ),
        (InputError, "modes is 'none'", lambda: check.layer(dense(3), normal(1, 3, 2), modes="none")),
    ],
)
def test_what_cannot_be_checked_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()

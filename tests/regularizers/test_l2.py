"""L2: both conventions, what it sees, traced strengths, against decoupled decay, errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl

l2 = fdl.regularizers.l2
not_typed: Any = l2


def test_value_and_gradient(params):
    want = sum(float((params[name]["w"] ** 2).sum()) for name in params)
    for half, factor in ((False, 2.0), (True, 1.0)):
        penalty = l2(0.1, half=half)
        assert np.isclose(penalty(params), 0.1 * want * factor / 2, rtol=1e-12)
        value, residuals = penalty.forward(params)
        (dparams,) = penalty.backward(residuals, jnp.asarray(0.7, value.dtype))
        for name in params:
            np.testing.assert_allclose(dparams[name]["w"], 0.7 * 0.1 * factor * params[name]["w"], rtol=1e-12)
            assert (dparams[name]["b"] == 0).all(), "biases are not seen"


def test_the_step_is_weight_decay_under_sgd(params):
    grads = jax.grad(l2(0.1, half=True))(params)
    stepped = params["dense_0"]["w"] - 0.5 * grads["dense_0"]["w"]
    np.testing.assert_allclose(stepped, (1 - 0.5 * 0.1) * params["dense_0"]["w"], rtol=1e-12)


def test_filter(params):
    penalty = l2(1.0, filter=lambda path, array: path == "dense_2/b")
    assert np.isclose(penalty(params), float((params["dense_2"]["b"] ** 2).sum()))


def test_a_traced_strength_is_swept(params):
    strengths = jnp.asarray([0.0, 0.1, 1.0], jnp.float64)
    values = jax.vmap(lambda s: l2(s)(params))(strengths)
    np.testing.assert_allclose(values, [float(l2(float(s))(params)) for s in strengths], rtol=1e-12)


def test_limits():
    w = jnp.asarray([[0.0, 2e19, np.nan]], jnp.float32)
    for column, value, slope in ((0, 0, 0), (1, np.inf, 4e19), (2, np.nan, np.nan)):
        got, gradient = jax.value_and_grad(l2(1.0))(w[:, column : column + 1])
        np.testing.assert_allclose([got, gradient[0, 0]], [value, slope], rtol=1e-6)


def test_decoupled_decay_agrees_with_l2_in_the_loss_under_sgd_and_differs_under_adam(params):
    """Row R3. A loss 1/2 sum (c w)^2, whose slopes c^2 differ from weight to weight."""
    strength, rate, steps = 0.1, 0.05, 20
    scales = jax.tree.map(lambda w: jnp.linspace(0.3, 2.0, w.size, dtype=w.dtype).reshape(w.shape), params)
    loss_slope = lambda p: jax.tree.map(lambda c, w: c**2 * (w - 1), scales, p)
    penalty = l2(strength, half=True)

    def train(optimizer, with_penalty):
        def step(carry, _):
            p, state = carry
            grads = loss_slope(p)
            if with_penalty:
                grads = jax.tree.map(jnp.add, grads, jax.grad(penalty)(p))
            updates, state = optimizer.update(grads, state, p)
            return (optax.apply_updates(p, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]

    @jax.jit
    def differences():
        mask = fdl.regularizers.mask
        decay = optax.add_decayed_weights(strength, mask=mask)
        pairs = (
            (optax.sgd(rate), optax.chain(decay, optax.sgd(rate))),
            (optax.adam(rate), optax.adamw(rate, weight_decay=strength, mask=mask)),
        )
        ends = [(train(in_loss, True), train(decoupled, False)) for in_loss, decoupled in pairs]
        return [jax.tree.map(lambda a, b: jnp.abs(a - b).max(), *pair) for pair in ends]

    with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction mixes a float and an int32
        sgd, adam = differences()
    assert max(jax.tree.leaves(sgd)) < 1e-14
    for layer in ("dense_0", "dense_2"):
        assert adam[layer]["w"] > 0.01, "weights of 0.5 or so: more than a hundredth apart after 20 steps"
        assert adam[layer]["b"] < 1e-14, "biases decay in neither"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: l2(-1.0), "strength is -1.0, wanted 0 <= strength"),
        (lambda p: l2(float("nan")), "strength is nan"),
        (lambda p: not_typed(1.0, half="yes"), "half is str .yes., wanted True or False"),
        (lambda p: l2("much"), "strength is str 'much', wanted a number"),
        (lambda p: l2(1.0, filter=lambda path, array: False)(p), r"matches none of the parameters \['dense_0/b'"),
        (lambda p: l2(1.0)({}), "matches none"),
    ],
)
def test_errors(params, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(params)

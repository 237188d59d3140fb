"""L2: both conventions, what it sees, traced strengths, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

l2 = fdl.regularizers.l2


@pytest.fixture
def params(getkey):
    model = fdl.serial(fdl.dense(4), fdl.tanh(), fdl.dense(3))
    return jax.tree.map(lambda p: p + 0.5, model.init(getkey(), (5,), jnp.float64)[0])


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: l2(-1.0), "strength is -1.0, wanted 0 <= strength"),
        (lambda p: l2(float("nan")), "strength is nan"),
        (lambda p: l2("much"), "strength is str 'much', wanted a number"),
        (lambda p: l2(1.0, filter=lambda path, array: False)(p), r"matches none of the parameters \['dense_0/b'"),
        (lambda p: l2(1.0)({}), "matches none"),
    ],
)
def test_errors(params, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(params)

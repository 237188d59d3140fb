"""L1 and the elastic net: values, the subgradient at 0, what they see, traced strengths, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

l1, l2, elastic_net = fdl.regularizers.l1, fdl.regularizers.l2, fdl.regularizers.elastic_net


def test_value_and_gradient(params):
    params = jax.tree.map(lambda w: w - 0.7, params)  # both signs
    value, residuals = l1(0.1).forward(params)
    np.testing.assert_allclose(value, 0.1 * sum(float(jnp.abs(params[n]["w"]).sum()) for n in params), rtol=1e-12)
    (dparams,) = l1(0.1).backward(residuals, jnp.asarray(0.7, value.dtype))
    for name in params:
        np.testing.assert_allclose(dparams[name]["w"], 0.07 * np.sign(params[name]["w"]), rtol=1e-12)
        assert (dparams[name]["b"] == 0).all(), "biases are not seen"


def test_the_elastic_net_is_the_sum_of_both(params):
    both, halved = elastic_net(0.3, 0.2), elastic_net(0.3, 0.2, half=True)
    np.testing.assert_allclose(both(params), l1(0.3)(params) + l2(0.2)(params), rtol=1e-12)
    np.testing.assert_allclose(halved(params), l1(0.3)(params) + l2(0.2, half=True)(params), rtol=1e-12)
    w = jnp.asarray([[1, -2, 0.5], [0.3, 0.7, -1.1], [2, 0.4, 0.6], [-0.2, 1.5, 0.9]], jnp.float32)
    np.testing.assert_allclose(both(w), 6.291999816894531, rtol=1e-6, err_msg="Keras 3.15's L1L2(0.3, 0.2)")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_limits(dtype):
    """No push at 0, where jax.grad of abs says 1; full push however small the weight; loud NaN."""
    w = jnp.asarray([[0.0, -0.0, 1e-6, -1e-6, np.inf, -np.inf, np.nan]], dtype)
    for penalty in (l1(0.5), elastic_net(0.5, 0.0)):
        gradient = jax.grad(penalty)(w[:, :4])
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, jnp.asarray([[0, 0, 0.5, -0.5]], dtype))
        assert penalty(w[:, :2]) == 0 and jnp.isnan(penalty(w))
    gradient = np.asarray(jax.grad(l1(0.5))(w), np.float32)
    np.testing.assert_array_equal(gradient, [[0, 0, 0.5, -0.5, 0.5, -0.5, np.nan]])
    assert (jax.grad(elastic_net(0.5, 0.3))(w[:, :2]) == 0).all()


def test_a_traced_strength_is_swept(params):
    strengths = jnp.asarray([0.0, 0.1, 1.0], jnp.float32)  # of another dtype than the parameters
    values, gradients = jax.vmap(lambda s: jax.value_and_grad(elastic_net(s, 2 * s))(params))(strengths)
    once = elastic_net(1.0, 2.0)
    np.testing.assert_allclose(values, np.asarray([0.0, 0.1, 1.0]) * float(once(params)), rtol=1e-7)
    for got, want in zip(jax.tree.leaves(gradients), jax.tree.leaves(jax.grad(once)(params)), strict=True):
        np.testing.assert_allclose(got[1], 0.1 * want, rtol=1e-7)
    np.testing.assert_allclose(l1(strengths[1])(params), 0.1 * l1(1.0)(params), rtol=1e-7)


def test_filter_mask_and_sparsity(params):
    params["dense_0"]["w"] = params["dense_0"]["w"].at[:, 1].set(0)
    params["count"] = jnp.zeros((2, 2), jnp.int32)
    mask = fdl.regularizers.mask(params)
    assert mask == {
        "dense_0": {"w": True, "b": False},
        "dense_2": {"w": True, "b": False},
        "count": False,
    }
    np.testing.assert_allclose(fdl.regularizers.sparsity(params), 5 / 32, rtol=1e-6)
    _, residuals = l1(1.0).forward(params)
    assert l1(1.0).backward(residuals, jnp.float64(1))[0]["count"] is None, "integers have no derivative"
    with pytest.raises(TypeError, match="the filter chooses count, which is int32"):
        l1(1.0, filter=lambda path, array: True)(params)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: l1(-1.0), "regularizers.l1: strength is -1.0, wanted 0 <= strength"),
        (lambda p: elastic_net(0.1, -1.0), "regularizers.elastic_net: l2 is -1.0, wanted 0 <= l2"),
        (lambda p: elastic_net(float("nan"), 1.0), "l1 is nan"),
        (lambda p: l1(1.0, filter=lambda path, array: False)(p), r"matches none of the parameters \['dense_0/b'"),
    ],
)
def test_errors(params, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(params)

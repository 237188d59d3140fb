"""The parts of the experiment on batch normalization's identities that its claims rest on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

import fdl
from experiments import batch_norm_identities as experiment

rng = np.random.default_rng(0)


def arrays(*shape):
    return jnp.asarray(rng.standard_normal(shape))


def test_the_wrong_backwards_differ_from_the_right_one_as_said():
    x, dy = 2 * arrays(11, 3), arrays(11, 3)
    right = jax.vjp(experiment.plain, x)[1](dy)[0]
    ignoring, bessel = (jax.vjp(op, x)[1](dy)[0] for op in (experiment.IGNORING, experiment.BESSEL))
    np.testing.assert_allclose(experiment.IGNORING(x), experiment.plain(x), rtol=1e-12)
    np.testing.assert_allclose(ignoring, dy / jnp.sqrt(x.var(0, keepdims=True) + experiment.EPS), rtol=1e-12)
    np.testing.assert_allclose(bessel.mean(0), 0, atol=1e-12)
    assert 0.01 < np.abs(bessel - right).max() / np.abs(right).max() < 0.5


@pytest.mark.parametrize("normalized", [False, True])
def test_singular_values_are_those_of_the_jacobian(normalized, monkeypatch):
    monkeypatch.setattr(experiment, "DEPTH", 2)
    monkeypatch.setattr(experiment, "UNITS", 4)
    model = experiment.deep("tanh", normalized)
    params, _ = model.init(jax.random.key(0), (3,), jnp.float64)
    params = jax.tree.map(lambda p: p + 0.3 * arrays(*p.shape), params)
    x = arrays(9, 3)
    found = experiment.singular_values("tanh", normalized, params, x)
    assert found.shape == (9, 1, 4)
    first = fdl.ops.dense(params["dense_1"], x)
    standard = lambda z, like: (z - like.mean(0)) / jnp.sqrt(like.var(0) + experiment.EPS) if normalized else z
    affine = lambda z: z * params["batch_norm_1"]["scale"] + params["batch_norm_1"]["shift"] if normalized else z
    next_one = lambda z: jnp.tanh(affine(z)) @ params["dense_2"]["w"]
    with jax.numpy_rank_promotion("allow"):
        z = standard(first, first)
        after = next_one(z)
        jacobian = jax.jacobian(lambda one: standard(next_one(one), after))(z[5])
    np.testing.assert_allclose(found[5, 0], np.linalg.svd(jacobian, compute_uv=False), rtol=1e-10)


def test_training_follows_the_rate_the_penalty_and_the_watch():
    x, labels = np.asarray(arrays(80, 5), np.float32), rng.integers(0, 10, 80)
    watch = lambda params, grads: (jnp.sum(params["hidden"]["w"] ** 2), jnp.sum(grads["hidden"]["w"] ** 2))

    def run(rate, **more):
        return experiment.trained(experiment.DECAY, x, labels, 10, rate, seed=1, dtype=jnp.float64, watch=watch, **more)

    (plain, _), found = run(0.1)
    w, dw = found["watched"]
    np.testing.assert_allclose(np.diff(w), 0.01 * dw[:-1], rtol=1e-9)
    penalty = fdl.regularizers.l2(0.5, filter=experiment.only_hidden)
    (decayed, _), _ = run(0.1, penalty=penalty)
    assert jnp.sum(decayed["hidden"]["w"] ** 2) < 0.2 * jnp.sum(plain["hidden"]["w"] ** 2)

    def growing(step, grads, late=1.0):
        updates = jax.tree.map(lambda g: 0.1 * g, grads)
        return {**updates, "hidden": {"w": 0.1 / 0.9 ** (2 * step.astype(jnp.float64) + late) * grads["hidden"]["w"]}}

    heads = [np.asarray(params["output"]["w"]) for params in (decayed, run(growing)[0][0])]
    np.testing.assert_allclose(*heads, rtol=1e-9)
    other = run(lambda step, grads: growing(step, grads, late=0.0))[0][0]
    assert np.abs(heads[0] - other["output"]["w"]).max() > 1e-6, "half a step of growth shows"


def test_the_share_of_the_steps_to_the_others_last_loss():
    others = np.asarray([4.0, 3.0, 2.0, 1.0])
    assert experiment._share(np.asarray([3.0, 1.0, 0.5, 0.4]), others) == 0.5
    assert experiment._share(others, others) == 1.0
    assert experiment._share(others + 1, others) == float("inf")

"""The starts and the bound of `vanishing_exploding`, and the recurrence of `dead_weights`, on cases that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

pytest.importorskip("matplotlib")

from experiments import dead_weights, vanishing_exploding


def test_starts_share_their_draws():
    small, glorot, he, orthogonal = vanishing_exploding.starts(0)["dense_3"][:, 0]
    np.testing.assert_allclose(he / small, 100 * (2 / 64) ** 0.5)
    np.testing.assert_allclose(glorot / small, 100 * (2 / 128) ** 0.5)
    np.testing.assert_allclose(orthogonal.T @ orthogonal, np.eye(64), atol=1e-12)
    assert np.std(small) == pytest.approx(0.01, rel=0.05)


def test_the_steepest_slopes_are_the_steepest():
    for name, steepest in vanishing_exploding.STEEPEST.items():
        x = jnp.linspace(-6, 6, 120_001)
        slopes = jax.vmap(jax.grad(getattr(fdl.ops, name)))(x)
        assert float(slopes.max()) <= steepest * (1 + 1e-7) and float(slopes.max()) == pytest.approx(steepest, rel=1e-6)


def test_the_recurrence_is_the_derivative():
    random = np.random.default_rng(3)
    x, target = random.normal(size=(5, 6)), random.normal(size=(5, 3))
    params = dead_weights.drawn(dead_weights.MODEL, random, 6)
    found = dead_weights.recurrence(params, x, target)

    def cost(first):
        moved = {**params, "w32": {**params["w32"], "w": first}}
        a = x
        for name in dead_weights.DENSE:
            a = jnp.tanh(a @ moved[name]["w"] + moved[name]["b"][None])
        return jnp.mean((a - target) ** 2)

    np.testing.assert_allclose(
        found.activity["w32"].T @ found.deltas["w32"], jax.grad(cost)(params["w32"]["w"]), rtol=1e-10, atol=1e-14
    )

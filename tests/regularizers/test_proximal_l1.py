"""The proximal step: what it minimises, exact zeros in every precision, schedules, inside a training run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl

proximal_l1, soft_threshold = fdl.regularizers.proximal_l1, fdl.regularizers.soft_threshold
apply_updates: Any = optax.apply_updates  # its type says that a tree may be a number


def test_soft_threshold():
    v = jnp.asarray([-3, -1, -0.4, -0.0, 0, 0.4, 1, 3, np.inf, -np.inf, np.nan], jnp.float32)
    got = soft_threshold(v, 1.0)
    np.testing.assert_array_equal(got, [-2, 0, 0, 0, 0, 0, 0, 2, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(soft_threshold(v, 0.0), v)


def test_it_minimises_what_it_says():
    v, threshold = np.linspace(-2, 2, 41), 0.7
    grid = np.linspace(-3, 3, 6001)
    cost = (grid - v[:, None]) ** 2 / 2 + threshold * np.abs(grid)
    np.testing.assert_allclose(soft_threshold(jnp.asarray(v), threshold), grid[cost.argmin(1)], atol=6e-4)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16])
def test_zeros_are_exact_after_apply_updates(dtype, getkey):
    params = {"w": jax.random.normal(getkey(), (64, 32), dtype), "b": jax.random.normal(getkey(), (32,), dtype)}
    grads = jax.tree.map(lambda w: 0.3 * w, params)
    optimizer = optax.chain(optax.sgd(0.1), proximal_l1(5.0, 0.1))
    updates, state = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    new = apply_updates(params, updates)
    want = soft_threshold((params["w"] + (-0.1 * grads["w"]).astype(dtype)).astype(jnp.float64), 0.5)
    share = float(fdl.regularizers.sparsity(new))
    assert new["w"].dtype == dtype and 0.3 < share < 0.5, "|0.97 w| <= 0.5 for 39 % of a normal w"
    np.testing.assert_allclose(share, np.mean(np.asarray(want) == 0), atol=0.01)
    np.testing.assert_allclose(new["w"].astype(jnp.float64), want, atol=4 * float(jnp.finfo(dtype).eps) * 4)
    np.testing.assert_array_equal(new["b"], apply_updates(params["b"], -0.1 * grads["b"]), "biases are not seen")


def test_schedules_and_traced_numbers():
    params = {"w": jnp.full((1, 3), 10.0, jnp.float32)}
    nothing = jax.tree.map(jnp.zeros_like, params)

    def after(strength, rate, steps=3):
        optimizer = proximal_l1(strength, rate)
        p, state = params, optimizer.init(params)
        for _ in range(steps):
            updates, state = optimizer.update(nothing, state, p)
            p = apply_updates(p, updates)
        return p["w"][0, 0]

    assert after(2.0, 0.5) == 7
    assert after(lambda step: 2.0 * step.astype(jnp.float32), 0.5) == 7, "strengths 0, 2, 4"
    assert after(1.0, optax.linear_schedule(1.0, 0.5, 1)) == 8, "rates 1, 0.5, 0.5"
    swept = jax.vmap(lambda s: after(s, 0.5))(jnp.asarray([1, 2], jnp.float32))
    np.testing.assert_array_equal(swept, [8.5, 7])


def test_a_scheduled_penalty_is_the_penalty_of_the_step(params):
    schedule = lambda step: 0.1 * (step.astype(jnp.float32) + 1)
    optimizer = optax.chain(fdl.regularizers.scheduled(fdl.regularizers.l2, schedule, half=True), optax.sgd(0.5))

    @jax.jit
    def two_steps(params):
        p, state = params, optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, p), state, p)
            p = apply_updates(p, updates)
        return p

    want = jax.tree.map(lambda w: w * (0.95 * 0.9 if w.ndim == 2 else 1), params)
    for got, wanted in zip(jax.tree.leaves(two_steps(params)), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_in_a_training_run_useless_inputs_are_cut_off(getkey):
    x = jax.random.normal(getkey(), (64, 6), jnp.float32)
    y = x[:, :2] @ jnp.asarray([[1.5], [-2.0]], jnp.float32)
    result = fdl.train.fit(
        fdl.serial(line=fdl.dense(1)),
        fdl.losses.mean_squared_error,
        optax.chain(optax.sgd(0.1), proximal_l1(0.5, 0.1)),
        (np.asarray(x), np.asarray(y)),
        epochs=120,
        batch_size=64,
        key=getkey(),
        progress=False,
    )
    w = np.asarray(result.params["line"]["w"])[:, 0]
    np.testing.assert_array_equal(w != 0, [True, True, False, False, False, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: proximal_l1(-1.0, 0.1), "regularizers.proximal_l1: strength is -1.0"),
        (lambda p: proximal_l1(1.0, "fast"), "learning_rate is str 'fast', wanted a number"),
        (lambda p: proximal_l1(1.0, 0.1).update(p, proximal_l1(1.0, 0.1).init(p)), "params are missing"),
        (lambda p: proximal_l1(1.0, 0.1, filter=lambda path, w: False).init(p), "the filter matches none"),
        (lambda p: fdl.regularizers.scheduled(fdl.regularizers.l2, 0.1), "wanted a function of the step"),
    ],
)
def test_errors(params, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(params)

"""Amended cross-entropy of an ensemble: the definition, what each classifier does to the others, limits, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

ACE, CE = fdl.losses.amended_cross_entropy, fdl.losses.cross_entropy
INF, NAN = np.inf, np.nan


def ensemble(key, count=3, examples=4, classes=5):
    k = jax.random.split(key)
    q = jax.nn.softmax(jax.random.normal(k[0], (examples, count, classes), jnp.float64))
    return q, jax.nn.softmax(jax.random.normal(k[1], (examples, classes), jnp.float64))


def test_the_definition(getkey):
    q, p = ensemble(getkey())
    got = ACE(q, p, diversity=0.7)
    for k in range(3):
        others = sum(CE(q[:, k], q[:, j]) for j in range(3) if j != k)
        np.testing.assert_allclose(got[:, k], CE(q[:, k], p) - 0.7 / 3 * others, rtol=1e-13)


def test_without_diversity_each_is_alone(getkey):
    q, p = ensemble(getkey())
    alone = jnp.stack([CE(q[:, k], p) for k in range(3)], axis=1)
    np.testing.assert_allclose(ACE(q, p, diversity=0), alone, rtol=1e-13)
    np.testing.assert_allclose(ACE(q[:, :1], p, diversity=1), alone[:, :1], rtol=1e-13)


def test_the_cost_of_one_alone_leaves_out_what_it_does_to_the_others(getkey):
    """The paper's training: the others are held fixed, and only - w / q is left."""
    (q, p), k, share = ensemble(getkey()), 1, 0.7 / 3

    def own_cost(mine):
        held = jax.lax.stop_gradient(q).at[:, k].set(mine)
        return ACE(held, p, diversity=0.7)[:, k].sum()

    w = p - share * (q[:, 0] + q[:, 2])
    np.testing.assert_allclose(jax.grad(own_cost)(q[:, k]), -w / q[:, k], rtol=1e-12)


# target, the two classifiers, diversity; the losses, and the gradient by both for cotangents (2, -3). w = p - diversity/2 q[other]
ROWS = {
    "the impossible wanted": ([1.0, 0.0], [[0.0, 1.0], [1.0, 0.0]], 0.0, [INF, 0.0], [[-INF, 0.0], [3.0, 0.0]]),
    "only the other believes": ([0.0, 1.0], [[0.0, 1.0], [0.5, 0.5]], 1.0, [-INF, np.log(2) / 2], None),
    "nobody believes": (
        [0.0, 1.0],
        [[0.0, 1.0], [0.0, 1.0]],
        0.0,
        [0.0, 0.0],
        [[0.0, -2.0], [0.0, 3.0]],
    ),
    "nobody believes, diverse": (
        [0.0, 1.0],
        [[0.0, 1.0], [0.0, 1.0]],
        1.0,
        [0.0, 0.0],
        [[INF, -1.0], [-INF, 1.5]],
    ),
    "negative": ([0.0, 1.0], [[-0.1, 1.1], [0.5, 0.5]], 1.0, [NAN, NAN], None),
    "NaN": ([0.0, 1.0], [[NAN, 1.1], [0.5, 0.5]], 1.0, [NAN, NAN], None),
}


@pytest.mark.parametrize("row", ROWS)
def test_limits(row):
    target, pred, diversity, want, want_gradient = ROWS[row]
    options = {"diversity": jnp.float32(diversity)}
    value, pull = jax.vjp(lambda q: ACE(q, jnp.asarray(target, jnp.float32), **options), jnp.asarray(pred, jnp.float32))
    np.testing.assert_allclose(value, want, rtol=1e-6)
    (gradient,) = pull(jnp.asarray([2.0, -3.0], jnp.float32))
    if want_gradient is not None:
        np.testing.assert_allclose(gradient, want_gradient, rtol=1e-6)
    if np.isnan(want[0]):
        assert np.isnan(gradient).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ACE(jnp.ones((4, 3, 5)), jnp.ones((4, 3, 5))), r"wanted pred \[..., K, V\].* target \[4, 5\]"),
        (lambda: ACE(jnp.ones(5), jnp.ones(5)), "classifiers, then classes"),
        (lambda: ACE(jnp.ones((3, 5)), jnp.ones(5), diversity=1.5), "diversity is 1.5, wanted 0 <= diversity <= 1"),
        (lambda: ACE(jnp.ones((3, 5), jnp.float32), jnp.ones(5, jnp.float64)), "float32 and target is float64"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

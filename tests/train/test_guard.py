"""The guard: the last finite state is kept, and the report names the step, the stage, the layer and the leaf."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.op import Op
from fdl.train.guard import first_bad_step

KEY = jax.random.key(7)
transformation: Any = optax.GradientTransformationExtraArgs
MSE = fdl.losses.mean_squared_error
MODEL = fdl.serial(first=fdl.dense(4), bend=fdl.tanh(), last=fdl.dense(2))
BAD = 9  # the step, from 1, that is poisoned
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(40, 3)).astype(np.float32), rng.normal(size=(40, 2)).astype(np.float32)
POISON = 23  # the example with this value is met once in every epoch


def train(optimizer: Any, *, model: Any = MODEL, loss: Any = MSE, x: Any = X, **kwargs: Any) -> Any:
    settings = {"key": KEY, "batch_size": 8, "epochs": 4, "progress": False} | kwargs
    return fdl.train.fit(model, loss, optimizer, (x, Y), **settings)


def poisoned_at(step, value):
    """An optimizer whose update at one step is what `value` makes of it."""
    return (
        optax.stateless(lambda updates, params: updates)
        if step is None
        else optax.chain(optax.sgd(0.1), _Poison(step, value))
    )


def _Poison(step, value):
    def update(updates: Any, count: Any, params: Any = None, **more: Any) -> Any:
        return jax.tree.map(lambda u: jnp.where(count == step - 1, value(u), u), updates), count + 1

    return transformation(lambda params: jnp.zeros((), jnp.int32), update)


def checked(result, step, stage, layer):
    assert result.divergence is not None and result.steps == step - 1
    assert (result.divergence.step, result.divergence.stage, result.divergence.layer) == (step, stage, layer)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result.params, result.opt_state)))
    return result


@pytest.mark.parametrize("gradient", ["manual", "autodiff"])
def test_an_update_that_is_not_finite(gradient):
    with pytest.warns(RuntimeWarning, match=r"step 9 .*the update of first/b is the first"):
        result = train(poisoned_at(BAD, lambda u: u * jnp.nan), gradient=gradient)
    checked(result, BAD, "update", "first")
    # the run up to there is what it would have been
    clean = train(poisoned_at(BAD, lambda u: u * jnp.nan), gradient=gradient, steps=BAD - 1)
    jax.tree.map(np.testing.assert_array_equal, clean.params, result.params)


def _faulty(forward_factor, backward_factor):
    """x -> x, but for examples that hold a large number: there the value or the gradient is spoilt."""

    def spoil(x, y, factor):
        return jnp.where((jnp.abs(x) > 100).any(axis=-1, keepdims=True), y * factor, y)

    op = Op(
        lambda x: spoil(x, x, forward_factor),
        lambda x: (spoil(x, x, forward_factor), x),
        lambda x, dy: (spoil(x, dy, backward_factor),),
        name="faulty",
    )
    return fdl.Layer.from_op("faulty", op)


@pytest.mark.parametrize(
    ("factors", "stage", "layer"),
    [((jnp.inf, 1.0), "output", "block/faulty_1"), ((1.0, jnp.nan), "error", "block/scale")],
)
def test_the_layer_where_it_began(factors, stage, layer):
    # the first layer multiplies by a large weight, so that examples with a large input show there
    model = fdl.serial(block=fdl.serial(fdl.flatten(), _faulty(*factors)), last=fdl.dense(2))
    if stage == "error":
        model = fdl.serial(block=fdl.serial(scale=fdl.dense(3), bad=_faulty(*factors)), last=fdl.dense(2))
    x = X.copy()
    x[POISON] = 1000.0
    with pytest.warns(RuntimeWarning, match="is the first that is not finite"):
        result = train(optax.sgd(1e-9), model=model, x=x)
    assert result.divergence is not None
    assert (result.divergence.stage, result.divergence.layer) == (stage, layer)
    assert result.steps < 5 and result.divergence.epoch == 1


def test_the_loss_may_stay_finite_while_a_parameter_is_lost():
    """A unit whose outgoing weights are 0 and stay 0: nothing of it is seen in the loss."""
    blind = fdl.serial(first=fdl.dense(4), bend=fdl.relu(), last=fdl.dense(2))
    params, _ = blind.init(KEY, (3,))
    params["first"]["b"] = jnp.full(4, -1e6, jnp.float32)  # all units are off

    def value(u):
        return jnp.where(jnp.arange(u.size).reshape(u.shape) == 0, -jnp.inf, u) if u.shape == (4,) else u

    with pytest.warns(RuntimeWarning):
        result = train(poisoned_at(BAD, value), model=blind, params=params)
    checked(result, BAD, "update", "first")
    assert result.divergence is not None and result.divergence.entries == (1, 4)


def test_first_bad_step_finds_every_place():
    for steps in (1, 2, 7, 64):
        for bad in range(1, steps + 1):
            assert first_bad_step(lambda n: n, lambda n, bad=bad: n < bad, steps) == bad


def test_rollback_goes_on_with_smaller_updates():
    """Gradient descent on a quadratic diverges above the rate 2 / curvature, and converges below it."""
    model, x = fdl.serial(fdl.dense(2, bias=False)), 10 * X
    with pytest.warns(RuntimeWarning, match="went back to step 0, from here the updates are 1/[248] of"):
        result = train(optax.sgd(0.1), model=model, x=x, on_divergence="rollback", epochs=30)
    assert result.divergence is None and result.history["loss"][-1] < 5 and len(result.history["loss"]) == 30
    with pytest.warns(RuntimeWarning, match="went back to step 0|stopped, and kept the state"):
        lost = train(optax.sgd(1e6), model=model, x=x, on_divergence="rollback", epochs=30)
    assert lost.divergence is not None and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(lost.params))


def test_rollback_changes_no_bit_of_a_run_that_stays_finite():
    plain, guarded = (
        train(optax.sgd(0.01, momentum=0.9)),
        train(optax.sgd(0.01, momentum=0.9), on_divergence="rollback"),
    )
    jax.tree.map(np.testing.assert_array_equal, plain.params, guarded.params)
    jax.tree.map(np.testing.assert_array_equal, plain.opt_state, guarded.opt_state)


def test_an_optimizer_may_hold_infinity_from_the_start():
    def init(params):
        return jnp.asarray(jnp.inf, jnp.float32)

    def update(updates: Any, best: Any, params: Any = None, **more: Any) -> Any:
        value = more["value"]
        return jax.tree.map(lambda u: -0.01 * u, updates), jnp.minimum(best, value)

    result = train(transformation(init, update))
    assert result.divergence is None and result.steps == 20 and np.isfinite(result.opt_state)


def test_a_line_search_gets_what_it_asks_for():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        result = train(optax.lbfgs(), model=fdl.serial(fdl.dense(2)), batch_size=40, epochs=6)
    slow = train(optax.sgd(0.1), model=fdl.serial(fdl.dense(2)), batch_size=40, epochs=6)
    assert result.history["loss"][-1] < slow.history["loss"][-1]

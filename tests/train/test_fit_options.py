"""What fit takes besides data and an optimizer: accumulation, precision, early stopping, callbacks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.errors import InputError, InputTypeError

CE = fdl.losses.softmax_cross_entropy_with_integer_labels
MSE = fdl.losses.mean_squared_error
KEY = jax.random.key(3)
rng = np.random.default_rng(1)
Y = (np.arange(50) % 2).astype(np.int32)
X = (rng.normal(size=(50, 3)) + 3 * Y[:, None]).astype(np.float32)
MODEL = fdl.serial(fdl.dense(8), fdl.tanh(), fdl.dense(2))


def train(data: Any = (X, Y), *, model: Any = MODEL, loss: Any = CE, **kwargs: Any) -> Any:
    settings: dict[str, Any] = {"key": KEY, "epochs": 3, "batch_size": 16, "progress": False} | kwargs
    return fdl.train.fit(model, loss, settings.pop("optimizer", optax.sgd(0.2, momentum=0.9)), data, **settings)


@pytest.mark.parametrize("gradient", ["manual", "autodiff"])
@pytest.mark.parametrize("weighted", [False, True])
def test_accumulation_is_the_gradient_of_the_whole_batch(gradient, weighted):
    """Parts of unequal weight, and a last batch of 2 of 16, three of whose parts are empty."""
    weights = np.where(np.arange(50) % 7 == 0, 0, np.linspace(0, 3, 50)) if weighted else None
    params = MODEL.init(KEY, (3,), jnp.float64)[0]
    settings = {"data": (X.astype(np.float64), Y), "weights": weights, "params": params, "gradient": gradient}
    settings["penalty"] = fdl.regularizers.l2(1e-2)
    whole, parts = train(**settings), train(**settings, accumulate=4)
    np.testing.assert_allclose(whole.history["loss"], parts.history["loss"], rtol=1e-6)  # shares are float32
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), whole.params, parts.params)


def test_accumulation_draws_anew_in_every_part():
    model = fdl.serial(fdl.dropout(0.5), fdl.dense(2))
    same = (np.ones((16, 3), np.float32), np.zeros(16, np.int32))
    whole, parts = (train(same, model=model, accumulate=k, epochs=1) for k in (1, 4))
    assert not np.array_equal(whole.params["dense_1"]["w"], parts.params["dense_1"]["w"])


def test_accumulation_carries_the_running_averages_from_part_to_part():
    model = fdl.serial(fdl.batch_norm(momentum=0.9), fdl.dense(2))
    result = train(model=model, accumulate=4, steps=1)
    np.testing.assert_allclose(result.state["batch_norm_0"]["weight"], 1 - 0.9**4, rtol=1e-6)


@pytest.mark.parametrize("gradient", ["manual", "autodiff"])
def test_bfloat16_computes_in_16_bits_and_keeps_32(gradient):
    seen = []

    def watch(pred, target):
        seen.append(pred.dtype)
        return jnp.zeros(pred.shape[:1])

    model = fdl.serial(fdl.dense(8), fdl.batch_norm(), fdl.tanh(), fdl.dense(2))
    exact, rounded = (train(model=model, precision=p, gradient=gradient) for p in (None, "bfloat16"))
    assert {a.dtype for a in jax.tree.leaves((rounded.params, rounded.state, rounded.opt_state))} == {
        jnp.dtype("float32")
    }
    difference = np.abs(np.asarray(exact.params["dense_0"]["w"]) - np.asarray(rounded.params["dense_0"]["w"])).max()
    assert 1e-5 < difference < 0.05
    np.testing.assert_allclose(exact.history["loss"], rounded.history["loss"], rtol=0.05)
    assert not seen


def test_bfloat16_really_rounds_between_the_layers():
    from fdl.train.precision import computed_in

    model = computed_in(MODEL, "bfloat16")
    params, state = MODEL.init(KEY, (3,))
    y, _ = model.apply(params, state, X)
    cast = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    np.testing.assert_array_equal(y, MODEL.apply(cast, state, jnp.asarray(X, jnp.bfloat16))[0].astype(jnp.float32))
    (_, _), grads = fdl.backprop.value_and_grad(model, CE)(params, state, X, Y)
    assert {a.dtype for a in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert fdl.backprop.deltas(model, CE, params, state, X, Y).keys() == set(model.names)


def test_early_stopping_returns_the_best_epoch():
    """The rate becomes negative after two epochs, so that everything gets worse from there."""
    rate = optax.scale_by_schedule(lambda step: jnp.where(jnp.asarray(step) < 8, -0.2, 0.5))
    result = train(optimizer=rate, valid=(X, Y), epochs=50, early_stopping=3)
    losses = result.history["valid_loss"]
    assert result.best_epoch == 1 + losses.argmin() == 2 and len(losses) == 5 and result.steps == 20
    best = train(optimizer=rate, epochs=2)
    jax.tree.map(np.testing.assert_array_equal, best.params, result.params)
    last = train(optimizer=rate, valid=(X, Y), epochs=50, early_stopping=fdl.train.EarlyStopping(3, restore_best=False))
    assert last.best_epoch is None
    assert fdl.train.evaluate(MODEL, CE, last.params, last.state, (X, Y))["loss"] == np.float32(losses[-1])


def test_early_stopping_by_a_figure_that_should_grow_or_by_the_loss():
    frozen = optax.sgd(0.0)
    for monitor in ("valid_accuracy", "valid_loss"):
        rule = fdl.train.EarlyStopping(2, monitor=monitor)
        result = train(optimizer=frozen, valid=(X, Y), epochs=9, early_stopping=rule)
        assert len(result.history["loss"]) == 3 and result.best_epoch == 1
    assert len(train(early_stopping=fdl.train.EarlyStopping(1, monitor="loss"), epochs=4).history["loss"]) >= 2
    with pytest.raises(InputError, match="monitors 'valid_f1', the figures are"):
        train(valid=(X, Y), early_stopping=fdl.train.EarlyStopping(2, monitor="valid_f1"))


def test_callbacks_see_every_epoch_and_may_end_the_run():
    events = []

    def watch(event):
        assert isinstance(event.params["dense_0"]["w"], np.ndarray)
        events.append(event)
        return event.epoch == 3

    result = train(valid=(X, Y), epochs=9, callbacks=(watch,))
    assert [(e.epoch, e.step) for e in events] == [(1, 4), (2, 8), (3, 12)] and result.steps == 12
    assert [e.figures["valid_loss"] for e in events] == list(result.history["valid_loss"])
    jax.tree.map(np.testing.assert_array_equal, events[-1].params, result.params)
    assert all(a.seconds < b.seconds for a, b in zip(events, events[1:], strict=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulate": 3}, "accumulate is 3 and batch_size 16; wanted a divisor"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"early_stopping": 3}, "there is no valid="),
        ({"early_stopping": 0.5, "valid": (X, Y)}, "early_stopping is float 0.5"),
        ({"on_divergence": "ignore"}, "on_divergence is 'ignore'"),
        ({"resume": True}, "there is no checkpoint="),
        ({"mesh": 8}, "mesh is int 8, wanted a jax.sharding.Mesh"),
        (
            {"mesh": jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("rows",))},
            "the mesh has the axes .'rows',., wanted",
        ),
    ],
)
def test_settings_that_do_not_go_together(change, message):
    with pytest.raises((InputError, InputTypeError), match=message):
        train(**change)

"""fit: it learns, by hand and by autodiff alike, counts every example, repeats itself, and refuses what it should."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.errors import InputError, InputTypeError
from fdl.train import run as run_module
from fdl.train.loop import epoch_order
from fdl.train.run import Pace

CE = fdl.losses.softmax_cross_entropy_with_integer_labels
MSE = fdl.losses.mean_squared_error


@pytest.fixture(scope="module")
def blobs():
    """Two classes that a line separates, 50 examples: not a multiple of the batch size."""
    rng = np.random.default_rng(0)
    y = (np.arange(50) % 2).astype(np.int32)
    x = (rng.normal(size=(50, 3)) + 3 * y[:, None]).astype(np.float32)
    return x, y


MODEL = fdl.serial(fdl.dense(8), fdl.tanh(), fdl.dense(2))
KEY = jax.random.key(7)


def run(data, **kwargs):
    settings = {"key": KEY, "epochs": 5, "batch_size": 16, "progress": False} | kwargs
    model = settings.pop("model", MODEL)
    return fdl.train.fit(model, settings.pop("loss", CE), optax.sgd(0.2, momentum=0.9), data, **settings)


def test_it_learns_and_keeps_a_history(blobs):
    result = run(blobs, valid=blobs, epochs=8)
    assert {k: v.shape for k, v in result.history.items()} == dict.fromkeys(
        ("loss", "valid_loss", "valid_accuracy"), (8,)
    )
    assert all(isinstance(v, np.ndarray) for v in result.history.values())
    assert result.history["valid_accuracy"][-1] > 0.95 and result.history["loss"][-1] < result.history["loss"][0]
    assert result.steps == 8 * 4


def test_manual_and_autodiff_give_the_same_curve(blobs):
    model = fdl.serial(fdl.dense(8), fdl.gelu(), fdl.dropout(0.2), fdl.dense(2))
    penalty = fdl.regularizers.l2(1e-3)
    start = {"params": model.init(KEY, (3,), jnp.float64)[0], "model": model, "penalty": penalty, "epochs": 3}
    data = (blobs[0].astype(np.float64), blobs[1])
    manual, autodiff = run(data, **start), run(data, **start, gradient="autodiff")
    np.testing.assert_allclose(manual.history["loss"], autodiff.history["loss"], rtol=1e-11)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), manual.params, autodiff.params)


def test_the_partial_last_batch_counts_every_example_once():
    """One step over a padded batch of 7 of 16 equals one step over the 7."""
    x = np.arange(21, dtype=np.float64).reshape(7, 3) / 10
    t = np.ones((7, 2))
    padded = fdl.serial(fdl.dense(2))
    params, _ = padded.init(KEY, (3,), jnp.float64)
    whole = run((x, t), model=padded, loss=MSE, params=params, batch_size=7, epochs=1)
    of_23 = np.concatenate([x, x, x, x[:2]])  # 23 = 16 + 7
    result = run((of_23, np.ones((23, 2))), model=padded, loss=MSE, params=params, batch_size=16, epochs=1)
    assert whole.steps == 1 and result.steps == 2
    order, mask = epoch_order(KEY, 0, 23, 16)
    assert mask is not None and sorted(np.asarray(order)[np.asarray(mask)]) == list(range(23))
    # by hand: the same two steps without padding
    optimizer = optax.sgd(0.2, momentum=0.9)
    order, mask = epoch_order(jax.random.split(jax.random.split(KEY)[1])[0], 0, 23, 16)
    p, o, losses = params, optimizer.init(params), []
    for rows, counts in zip(np.asarray(order), np.asarray(mask), strict=True):
        rows = rows[counts]
        (value, _), grads = fdl.backprop.value_and_grad(padded, MSE)(
            p, {}, jnp.asarray(of_23[rows]), jnp.ones((len(rows), 2))
        )
        updates, o = optimizer.update(grads, o, p)
        p = optax.apply_updates(p, updates)
        losses.append(float(value) * len(rows))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), result.params, p)
    np.testing.assert_allclose(result.history["loss"], [sum(losses) / 23], rtol=1e-6)


def test_examples_of_weight_zero_count_nothing(blobs):
    x, y = blobs
    weights = (np.arange(50) < 32).astype(np.float32)
    poisoned = np.where(weights[:, None] == 0, np.nan, x).astype(np.float32)
    assert run((poisoned, y), weights=weights).history["loss"][-1] == run((x, y), weights=weights).history["loss"][-1]


def test_the_same_key_gives_the_same_bits_however_the_run_is_cut(blobs):
    a, b = run(blobs, epochs=3), run(blobs, steps=12)
    assert a.steps == b.steps == 12
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    cut = run(blobs, steps=10, valid=blobs)
    assert cut.steps == 10 and [len(curve) for curve in cut.history.values()] == [3, 3, 3]
    other = run(blobs, epochs=3, key=jax.random.key(8))
    assert not np.array_equal(other.params["dense_0"]["w"], a.params["dense_0"]["w"])


def test_the_number_of_steps_per_call_changes_no_bit(blobs, monkeypatch):
    def with_moment(seconds):
        monkeypatch.setattr(run_module, "_MOMENT", seconds)
        return run(blobs, epochs=40)

    one_by_one, many = with_moment(0.0), with_moment(60.0)
    np.testing.assert_array_equal(one_by_one.history["loss"], many.history["loss"])
    jax.tree.map(np.testing.assert_array_equal, one_by_one.params, many.params)


def test_the_pace_aims_at_a_moment(monkeypatch):
    clock = iter([0.0, 3.0, 3.01, 3.02, 3.11, 13.11])
    monkeypatch.setattr(run_module.time, "perf_counter", lambda: next(clock))
    pace, asked = Pace(10), []
    for _ in range(5):
        asked.append(pace.steps)
        pace.update(pace.steps)
    # the first call compiles; then four times as many at most, as many as were right, and at once fewer if it was slow
    assert asked == [10, 10, 40, 160, 177] and pace.steps == 1


def test_a_run_ends_at_the_first_step_that_diverges_and_keeps_the_last_finite_state(blobs, monkeypatch):
    huge = optax.scale_by_schedule(lambda step: jnp.where(jnp.asarray(step) < 30, -0.01, -1e30))
    settings = {"key": KEY, "batch_size": 16, "progress": False}

    def with_moment(seconds):
        monkeypatch.setattr(run_module, "_MOMENT", seconds)
        with pytest.warns(RuntimeWarning, match="in epoch 8;.*step 32 .epoch 8.: the loss is the first that is not"):
            return fdl.train.fit(MODEL, MSE, huge, (blobs[0], blobs[0][:, :2]), epochs=50, **settings)

    one_by_one, many = with_moment(0.0), with_moment(60.0)
    for result in (one_by_one, many):
        # the update of step 31 is huge but finite, and the loss of step 32 overflows
        assert result.steps == 31 and len(result.history["loss"]) == 8
        assert np.isfinite(result.history["loss"][:-1]).all() and not np.isfinite(result.history["loss"][-1])
        assert result.divergence is not None and (result.divergence.step, result.divergence.stage) == (32, "loss")
    jax.tree.map(np.testing.assert_array_equal, one_by_one.params, many.params)
    until = fdl.train.fit(MODEL, MSE, huge, (blobs[0], blobs[0][:, :2]), steps=31, **settings)
    jax.tree.map(np.testing.assert_array_equal, until.params, many.params)


def test_start_from_given_parameters_and_leave_them_alone(blobs):
    params, state = MODEL.init(KEY, (3,))
    before = jax.tree.map(np.array, params)
    run(blobs, params=params, state=state, epochs=1)
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_regression_has_no_accuracy_and_takes_metric_functions(blobs):
    x = blobs[0]
    data = (x, x[:, :2] * 2)

    def worst(pred, target):
        return jnp.abs(pred - target).max(axis=-1)

    result = run(data, loss=MSE, valid=data, metrics=(worst,))
    assert set(result.history) == {"loss", "valid_loss", "valid_worst"}
    assert set(run(data, loss=MSE, valid=data, epochs=1).history) == {"loss", "valid_loss"}


def test_evaluate_in_batches_equals_at_once(blobs):
    params, state = MODEL.init(KEY, (3,))
    a = fdl.train.evaluate(MODEL, CE, params, state, blobs, batch_size=16)
    b = fdl.train.evaluate(MODEL, CE, params, state, blobs)
    assert a["accuracy"] == b["accuracy"] and np.isclose(a["loss"], b["loss"], rtol=1e-6)


def test_progress_prints_plain_lines_when_not_a_terminal(blobs, capfd):
    run(blobs, progress=True, epochs=2)
    lines = epoch_lines(capfd.readouterr().err)
    assert len(lines) == 2 and "loss" in lines[0] and "steps/s" in lines[1] and "step 8/8" in lines[1]
    run(blobs, progress=False)
    assert epoch_lines(capfd.readouterr().err) == []


def epoch_lines(text):
    """Without what jaxlib 0.10.0 logs of its compilation cache."""
    return [line for line in text.splitlines() if line.strip() and "cpu_aot_loader" not in line]


def test_a_diverging_run_stops_and_says_so(blobs):
    x, y = blobs
    with pytest.warns(RuntimeWarning, match="the loss became nan in epoch 1.*label outside") as seen:
        result = run((x, np.full_like(y, 5)))
    assert len(result.history["loss"]) == 1 and np.isnan(result.history["loss"][0])
    assert "learning rate" not in str(seen[0].message)
    with pytest.warns(RuntimeWarning, match="Lower the learning rate") as seen:
        fdl.train.fit(MODEL, MSE, optax.sgd(1e6), (x, x[:, :2]), epochs=6, batch_size=8, key=KEY, progress=False)
    assert "label" not in str(seen[0].message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": lambda p, t: p}, "plain function.*autodiff"),
        ({"key": None}, "key is missing"),
        ({"key": 0}, "jax.random.key"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"metrics": ("f1",)}, "unknown metric 'f1'"),
        ({"weights": np.full(50, np.nan, np.float32)}, "weights holds NaN"),
        ({"gradient": "forward"}, "gradient is 'forward'"),
    ],
)
def test_bad_settings(blobs, change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        run(blobs, **change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x, y: (np.where(np.arange(50)[:, None] == 17, np.nan, x), y), r"x holds NaN.*first in x\[17\]"),
        (lambda x, y: (x[:0], y[:0]), "no examples"),
        (lambda x, y: (x[:3], y), "same number of examples"),
        (lambda x, y: (x.tolist(), y), "x is list"),
        (lambda x, y: (x,), "wanted a pair"),
        (lambda x, y: (x.astype(np.int32), y), "dense_0: x is int32"),
    ],
)
def test_bad_data(blobs, damage, message):
    with pytest.raises((ValueError, TypeError), match=message):
        run(damage(*blobs))


untyped: Any = fdl.train


def test_an_optimizer_that_is_none(blobs):
    with pytest.raises(TypeError, match="optimizer is str 'adam', wanted an optax"):
        untyped.fit(MODEL, CE, "adam", blobs, key=KEY)


def test_the_loss_of_an_epoch_is_weighted_as_its_examples_are(blobs):
    weights = np.linspace(0, 5, 50).astype(np.float32)
    frozen = fdl.train.fit(
        MODEL, CE, optax.sgd(0.0), blobs, key=KEY, epochs=1, batch_size=16, weights=weights, progress=False
    )
    values = np.asarray(CE(MODEL.apply(frozen.params, frozen.state, jnp.asarray(blobs[0]))[0], jnp.asarray(blobs[1])))
    np.testing.assert_allclose(frozen.history["loss"], [(weights * values).sum() / weights.sum()], rtol=1e-5)


@pytest.mark.parametrize("weights", [np.ones(74), np.ones(36), [1.0] * 50, np.float32(1), np.ones(0)])
def test_weights_that_do_not_fit(blobs, weights):
    with pytest.raises((InputError, InputTypeError), match="train.fit: weights is"):
        run(blobs, weights=weights)


def test_nan_in_the_validation_data_is_refused_and_accuracy_of_nan_is_nan(blobs):
    x, y = blobs
    with pytest.raises(InputError, match=r"train.fit\(valid\): x holds NaN"):
        run(blobs, valid=(np.where(np.arange(50)[:, None] == 3, np.nan, x).astype(np.float32), y))
    params, state = MODEL.init(KEY, (3,))
    for data in ((x * np.float32(np.nan), y), (x, np.full_like(y, 2)), (x, np.full_like(y, -1))):
        assert np.isnan(fdl.train.evaluate(MODEL, CE, params, state, data)["accuracy"])
    with pytest.raises(InputError, match="batch_size is 0"):
        fdl.train.evaluate(MODEL, CE, params, state, blobs, batch_size=0)

"""The parts of the character model: its windows, what it measures, its goals, and a short training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

import fdl
from experiments import Settings
from experiments import gru_text as experiment
from fdl.data.text import Text

PATTERN = Text(np.tile(np.asarray([0, 1, 0, 2], np.int32), 150), ("a", "b", "c"))


@pytest.fixture
def small(monkeypatch):
    for name, value in {"STREAMS": 3, "WINDOW": 7, "HELD_STREAMS": 2, "DROPOUT": 0.0, "RATE": 0.05}.items():
        monkeypatch.setattr(experiment, name, value)
    # optax's Adam mixes dtypes
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def test_gradients_agree_and_a_wrong_one_shows(small, monkeypatch):
    assert experiment.agreement(PATTERN, 0) < 1e-12
    exact = fdl.backprop.value_and_grad

    def wrong(model, loss, gradient):
        right = exact(model, loss, gradient=gradient)

        def gradients(*args):
            value, grads = right(*args)
            return value, {**grads, "table": jax.tree.map(lambda g: g * 1.00001, grads["table"])}

        return gradients if gradient == "manual" else right

    monkeypatch.setattr(fdl.backprop, "value_and_grad", wrong)
    assert experiment.agreement(PATTERN, 0) > 1e-6


def test_training_learns_what_needs_the_character_before(small):
    """a b a c: after b comes a, after c too, but after a what did not come last."""
    train, held = PATTERN.split()
    *_, found = experiment.training(train, held, 8, 5, 0)
    assert len(found.bits) == len(found.seconds) == 6 and found.bits[0] > 1
    assert found.bits[-1] < 0.1 and found.seconds[0] == 0
    assert "abacabac" in experiment.sample(found, PATTERN, 40, 0)
    jax.tree.map(lambda p: np.testing.assert_array_equal(np.isfinite(p), True), found.params)


def test_an_epoch_carries_the_state_from_window_to_window(small):
    """Two steps of it are those of a plain loop; the state at the end of the first window enters the second."""
    model = experiment.network(3, 5)
    params, state = experiment.start(model, jax.random.key(0))
    x, y = (jnp.asarray(ids[:, :14]) for ids in PATTERN.streams(3))
    optimizer = experiment.optimizer_of(2)
    moved, _ = experiment.epoch(model, optimizer, (params, optimizer.init(params)), state, x, y, jax.random.key(1))
    gradients = jax.jit(fdl.backprop.value_and_grad(model, experiment.LOSS))
    kept: Any = optimizer.init(params)
    for k in (0, 1):
        window = (x[:, 7 * k : 7 * k + 7], y[:, 7 * k : 7 * k + 7])
        (_, state), grads = gradients(params, state, *window, jax.random.key(2))
        updates, kept = optimizer.update(grads, kept, params)
        params = jax.tree.map(jnp.add, params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), moved, params)


def test_the_goals_are_judged_on_tiny_shakespeare_alone():
    verdicts = lambda *args: [item.verdict for item in experiment.goals(*args)]
    assert verdicts(2.2, 200.0, True, Settings()) == ["holds", "holds"]
    assert verdicts(2.31, 301.0, True, Settings()) == ["fails", "fails"]
    assert verdicts(2.2, 2000.0, True, Settings(full=True)) == ["holds", "not run"]
    assert verdicts(2.2, 200.0, False, Settings()) == ["not run", "not run"]


def test_the_text_is_found_in_the_folder_or_below_it(tmp_path):
    assert not experiment.text_of(Settings())[2]
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("To be")
    for folder in (tmp_path, tmp_path / "tinyshakespeare"):
        text, _, real = experiment.text_of(Settings(data_dir=folder))
        assert text.decode(text.ids) == "To be" and real

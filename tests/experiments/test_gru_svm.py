"""The parts of the GRU-SVM experiment: the objective, the gradients, what the margin silences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

import fdl
from experiments import gru_svm as experiment

rng = np.random.default_rng(0)
MODEL = fdl.serial(recurrence=fdl.gru(5, return_final=True), output=fdl.dense(10))
EXAMPLES = np.asarray(rng.random((70, 4, 3)), np.float32), rng.integers(0, 10, 70)
TASK = experiment.Task("toy", EXAMPLES, EXAMPLES, 1, 7)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(experiment, "MODEL", MODEL)


def test_the_objective_is_that_of_the_machine():
    """1/2 |w|^2 + C sum max(1 - y f, 0)^2, divided by C times batch times classes."""
    params, state = MODEL.init(jax.random.key(0), (4, 3), jnp.float64)
    x, y = jnp.asarray(EXAMPLES[0][:7], jnp.float64), experiment.signed(EXAMPLES[1][:7]).astype(np.float64)
    assert (np.sort(y, axis=1) == [-1.0] * 9 + [1.0]).all()
    gradients = fdl.backprop.value_and_grad(MODEL, experiment.HINGE, experiment.penalty(7))
    (value, _), _ = gradients(params, state, x, jnp.asarray(y))
    f = np.asarray(experiment.scores(params, x))
    w = np.asarray(params["output"]["w"])
    wanted = 0.5 * (w**2).sum() + experiment.C * (np.maximum(1 - y * f, 0) ** 2).sum()
    np.testing.assert_allclose(value * experiment.C * 7 * 10, wanted)


def test_gradients_agree_and_a_wrong_one_shows(monkeypatch):
    assert experiment.agreement(TASK, 0) < 1e-12
    exact = fdl.backprop.value_and_grad

    def wrong(model, loss, penalty, gradient):
        right = exact(model, loss, penalty if gradient == "autodiff" else None, gradient=gradient)
        return lambda *args: right(*args)

    monkeypatch.setattr(fdl.backprop, "value_and_grad", wrong)
    assert experiment.agreement(TASK, 0) > 1e-6, "the penalty left out shows"


def test_an_error_behind_the_margin_would_show(monkeypatch):
    found: Any
    params, _ = MODEL.init(jax.random.key(0), (4, 3))
    params["output"]["b"] = params["output"]["b"] - 1  # the other nine are right by the margin, nearly
    result = fdl.train.Result(params, {}, {"valid_accuracy": np.asarray([0.96])}, None, 0)
    (found,) = experiment.no_error_behind_the_margin(TASK, result)
    assert found.verdict == "holds"
    monkeypatch.setattr(fdl.backprop, "deltas", lambda *args: {"output": jnp.ones((70, 10))})
    (found,) = experiment.no_error_behind_the_margin(TASK, result)
    assert found.verdict == "fails" and found.measured > 0
    found = experiment.accuracy_claim(TASK, [result])
    assert found.verdict == "fails" and found.measured == 0.96

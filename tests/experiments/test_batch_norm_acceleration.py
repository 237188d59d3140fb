"""The parts of the acceleration experiment: its training against a plain loop, and what it measures on curves known by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

import fdl
from experiments import batch_norm_acceleration as experiment
from experiments.batch_norm_acceleration import Run, Task, Variant

rng = np.random.default_rng(0)
EXAMPLES = np.asarray(rng.random((20, 4, 4, 1)), np.float32), rng.integers(0, 10, 20)
TASK = Task("toy", EXAMPLES, EXAMPLES, (2, 3, 4), 0.1, 4, 1, False)


def of_curves(accuracy: Any, inputs: Any = None) -> Run:
    return Run(np.zeros(1), np.asarray(accuracy), np.asarray(inputs), {"w": np.ones(3)}, {})


def test_training_is_momentum_with_decay_dropout_and_l2(monkeypatch):
    monkeypatch.setattr(experiment, "CHECKS", 2)
    variants = [Variant(rate=2.0, dropout=0.5, l2=0.3, decay=1.0, wider=1.5), Variant()]
    found = experiment.trained(TASK, variants, [3, 7])
    assert found.loss.shape == found.accuracy.shape == (2, 2) and found.inputs.shape == (2, 2, 20, 4)
    assert (np.diff(found.inputs, axis=2) >= 0).all()

    model = experiment.network(True, "relu", TASK.widths, 0.5)
    gradients = jax.jit(fdl.backprop.value_and_grad(model, experiment.LOSS, fdl.regularizers.l2(0.3, half=True)))
    key, (x, labels) = jax.random.key(3), map(jnp.asarray, EXAMPLES)
    params, state = model.init(key, (4, 4, 1))
    for place in (1, 2):
        params[f"layer_{place}"]["w"] *= 1.5
    velocity = jax.tree.map(jnp.zeros_like, params)
    for index in range(4):
        own = jax.random.fold_in(key, index)
        rows = jax.random.randint(own, (experiment.BATCH,), 0, len(x))
        (_, state), grads = gradients(params, state, x[rows], labels[rows], own)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
        rate = 0.2 * np.exp(-experiment.DECAY * index / 4)
        params = jax.tree.map(lambda p, v, rate=rate: p - np.float32(rate) * v, params, velocity)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-5), found.params, params)


def test_variants_of_two_networks_are_not_one_program():
    with pytest.raises(ValueError):
        experiment.trained(TASK, [Variant(), Variant(normalized=False)], [0, 1])


def test_what_is_read_off_a_curve():
    curve = np.repeat([[0.1, 0.5], [0.3, 0.7]], experiment.CHECKS // 2, axis=1)
    run, task = of_curves(curve), TASK._replace(steps=400)
    np.testing.assert_allclose(experiment.final(run), [0.5, 0.7])
    assert experiment.steps_to(task, run, 0.2) == 10
    assert experiment.steps_to(task, run, 0.6) == 10 * (experiment.CHECKS // 2 + 1)
    assert experiment.steps_to(task, run, 0.61) == float("inf")
    assert experiment.finite(run)
    assert not experiment.finite(run._replace(params={"w": np.asarray([1.0, np.inf])}))


def test_the_index_of_covariate_shift_is_the_distance_in_deviations():
    values = np.sort(rng.standard_normal((50, 3)), axis=0)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    inputs = np.stack([values, values + [0.5, -0.5, 9.0], values + [0.5, -0.5, 9.0]])[None]
    task = TASK._replace(steps=1000 * experiment.CHECKS)  # checks are 1,000 steps apart
    np.testing.assert_allclose(experiment.shift_index(task, of_curves([], inputs)), [[0.5, 0.0]])
    np.testing.assert_allclose(experiment.shift_index(task, of_curves([], 7 * inputs)), [[0.5, 0.0]])

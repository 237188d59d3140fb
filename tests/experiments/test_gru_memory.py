"""The parts of the memory experiment: its problems, when a climb ends, the error from step to step, its claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from experiments import gru_memory as experiment
from experiments.gru_memory import ADDING, COPYING, Climb


@pytest.fixture
def plain():
    # as in the command: optax's Adam mixes dtypes
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def test_the_sum_of_the_two_marked_numbers(plain):
    x, target = map(np.asarray, experiment.adding_data(jax.random.key(0), 9))
    assert x.shape == (experiment.BATCH, 9, 2) and target.shape == (experiment.BATCH, 1)
    assert (x[:, :4, 1].sum(axis=1) == 1).all() and (x[:, 4:, 1].sum(axis=1) == 1).all()
    np.testing.assert_allclose((x[..., 0] * x[..., 1]).sum(axis=1), target[:, 0], rtol=1e-6)
    assert ADDING.merit(jnp.asarray(target), jnp.asarray(target)) == 1
    many = np.concatenate([np.asarray(experiment.adding_data(jax.random.key(k), 9)[1]) for k in range(60)])
    assert abs(float(ADDING.merit(jnp.ones_like(many), jnp.asarray(many)))) < 0.1, (
        "the constant answer explains nothing"
    )


def test_what_stood_at_the_beginning_is_asked_for_after_the_sign(plain):
    x, target = experiment.copy_data(jax.random.key(0), 5)
    shown, target = np.asarray(x.argmax(axis=-1)), np.asarray(target)
    s = experiment.SYMBOLS
    assert shown.shape == target.shape == (experiment.BATCH, 5 + 2 * s)
    np.testing.assert_array_equal(shown[:, :s], target[:, -s:])
    assert (shown[:, s + 5] == experiment.ALPHABET + 1).all() and (shown[:, :s] > 0).all()
    assert (target[:, :-s] == 0).all() and (np.delete(shown[:, s:], 5, axis=1) == 0).all()
    right = jax.nn.one_hot(target, experiment.ALPHABET + 1)
    assert COPYING.merit(right, jnp.asarray(target)) == 1 and COPYING.merit(jnp.zeros_like(right), target) == 0


def test_a_climb_tries_two_lengths_and_ends_where_one_is_not_learnt(monkeypatch):
    def played(problem, name, length, steps, keys):
        merit = np.asarray(scores[length])
        return {"w": np.arange(3) + 10 * length}, merit

    monkeypatch.setattr(experiment, "trained", played)
    scores = {5: [0.1, 0.2, 0.3], 6: [1.0, 0.0, 0.95], 7: [0.89, 1.0, 0.1], 8: [1.0, 1.0, 1.0]}
    found = experiment.climb(ADDING, "rnn", (5, 6, 7, 8), 0)
    assert list(found.merits) == [5, 6, 7] and found.longest == 6
    assert {length: int(params["w"]) for length, params in found.params.items()} == {5: 51, 6: 62, 7: 70}


def test_training_learns_to_add_over_four_steps(plain, monkeypatch):
    monkeypatch.setattr(experiment, "UNITS", 12)
    _, merit = experiment.trained(ADDING, "full", 4, 150, jax.vmap(jax.random.key)(jnp.arange(2)))
    assert (np.asarray(merit) > 0.6).all()


@pytest.mark.parametrize("name", ["lstm", "ligru"])
def test_the_error_from_step_to_step_is_that_of_jax_grad(name):
    assert experiment.agreement(name, 0) < 1e-10


def test_a_simple_network_without_curves_passes_its_error_through_one_matrix(monkeypatch):
    """With orthogonal weights and states near 0 nothing is lost; with half of them half is, at every step."""
    monkeypatch.setattr(experiment, "UNITS", 6)
    params = experiment.initial("rnn", 0)
    for gain in (1.0, 0.5):
        small = {"w": 1e-6 * params["w"], "u": gain * params["u"], "b": params["b"]}
        found = experiment.flow("rnn", small, 8, 0)
        np.testing.assert_allclose(found, gain ** np.arange(7, -1, -1), rtol=1e-5)


def test_claims_follow_the_figures():
    def climbs(simple, gated):
        made = lambda merit: Climb({n: np.full(3, merit) for n in ADDING.lengths}, {}, 100 if merit > 0.9 else 0)
        return {"rnn": made(simple), "lstm": made(gated), "full": made(gated)}

    verdicts = lambda items: [item.verdict for item in items]
    assert verdicts(experiment.adding_claims(climbs(0.0, 0.99))) == ["holds"] * 3
    assert verdicts(experiment.adding_claims(climbs(0.99, 0.0))) == ["fails"] * 3
    shrinking, kept = 0.8 ** np.arange(49, -1, -1), np.ones(50)
    before = {"rnn": shrinking, "full": kept}
    adding = climbs(0.0, 0.99)
    assert verdicts(experiment.flow_claims(before, before, adding, 50)) == ["holds"] * 3
    swapped = {"rnn": 1 / shrinking, "full": shrinking}
    assert verdicts(experiment.flow_claims(swapped, swapped, adding, 50)) == ["holds", "fails", "fails"]
    bent = {"rnn": 10.0 ** np.sin(np.arange(50)), "full": kept}
    assert verdicts(experiment.flow_claims(bent, before, adding, 50))[0] == "fails"

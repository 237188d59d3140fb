"""The parts of the explosion experiment: growth by the step, training in one program, what counts as lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from experiments import ligru_explosion as experiment
from experiments.ligru_explosion import KINDS, Growth


@pytest.fixture
def small(monkeypatch):
    for name, value in {"UNITS": 6, "BATCH": 5, "NOISE_STEPS": 12, "RATES": (1e-2, 0.0), "SEEDS": 1}.items():
        monkeypatch.setattr(experiment, name, value)
    # as in the command: optax's Adam mixes dtypes
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def test_only_recurrent_weights_are_enlarged():
    own = {"u": jnp.ones((2, 4)), "w": jnp.ones((3, 4))}
    found = experiment.enlarged({"norm": own, "recurrence": own}, 3.0)
    assert (found["recurrence"]["u"] == 3).all()
    assert all((found[part][leaf] == 1).all() for part, leaf in (("norm", "u"), ("norm", "w"), ("recurrence", "w")))
    assert (experiment.enlarged(own, 2.0)["u"] == 2).all()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_growth_is_that_of_the_layer(small, kind):
    found = experiment.untrained(kind, 2.0, 0)
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.standard_normal((5, 12, experiment.NOISE)))
        layer = experiment.unit(kind)
        params, state = layer.init(jax.random.key(0), x.shape[1:], x.dtype)
        y, _ = layer.apply(experiment.enlarged(params, 2.0), state, x, train=True)
        np.testing.assert_allclose(found.state, np.linalg.norm(y, axis=-1).mean(axis=0), rtol=1e-10)
    assert found.error.shape == (12,) and found.error[-1] == 1


def test_every_run_has_its_own_gain_rate_and_seed(small):
    losses, lengths = experiment.training(KINDS[0], 4, 0)
    assert losses.shape == lengths.shape == (2, 2, 1, 4) and np.isfinite(losses).all()
    # the first loss is that of the start, which has no rate but a gain
    np.testing.assert_allclose(losses[:, 0, :, 0], losses[:, 1, :, 0], rtol=1e-5)
    assert abs(losses[0, 0, 0, 0] - losses[1, 0, 0, 0]) > 1e-6
    assert abs(losses[0, 0, 0, 3] - losses[0, 1, 0, 3]) > 1e-6


def test_what_counts_as_lost():
    runs = np.asarray([[1.0, 2.0], [1.0, 101.0], [np.nan, 1.0], [np.inf, 1.0]])
    np.testing.assert_array_equal(experiment.lost(runs), [False, True, True, True])
    assert experiment.counted(runs) == "3 of 4"


def test_claims_follow_the_figures():
    rising, level = 10.0 ** np.arange(20), np.ones(20)
    verdicts = lambda items: [item.verdict for item in items]
    seen = {
        kind: [Growth(curve, curve[::-1])] * len(experiment.GAINS)
        for kind, curve in zip(KINDS, (rising, rising, level), strict=True)
    }
    assert verdicts(experiment.growth_claims(seen)) == ["holds"] * 4
    seen = dict(zip(KINDS, (seen["tanh"], seen["tanh"], seen["plain"]), strict=True))
    assert verdicts(experiment.growth_claims(seen)) == ["fails"] * 4
    good, bad = np.ones((2, 5, 2, 30)), np.full((2, 5, 2, 30), 1e3)
    runs = {KINDS[0]: (bad, bad), KINDS[1]: (good, good)}
    assert verdicts(experiment.training_claims(runs)) == ["holds"] * 4
    runs = {KINDS[0]: (good, good), KINDS[1]: (bad, bad)}
    assert verdicts(experiment.training_claims(runs)) == ["fails"] * 4

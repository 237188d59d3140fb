"""fit(doctor=n): the run is the same, every n-th step is charted, and what is charted is that step's batch."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.errors import InputError
from fdl.train import run as run_module
from fdl.train.loop import epoch_order
from fdl.train.watching import KEPT, Watch

CE = fdl.losses.softmax_cross_entropy_with_integer_labels
KEY = jax.random.key(5)
rng = np.random.default_rng(1)
Y = (np.arange(50) % 2).astype(np.int32)
X = (rng.normal(size=(50, 3)) + 3 * Y[:, None]).astype(np.float32)
MODEL = fdl.serial(first=fdl.dense(8), bend=fdl.relu(), drop=fdl.dropout(0.1), last=fdl.dense(2))
OPTIMIZER = optax.sgd(0.2, momentum=0.9)
PENALTY = fdl.regularizers.l2(1e-2)


def train(**kwargs: Any) -> Any:
    settings: dict[str, Any] = {
        "key": KEY,
        "steps": 14,
        "batch_size": 16,
        "progress": False,
        "penalty": PENALTY,
    } | kwargs
    return fdl.train.fit(settings.pop("model", MODEL), CE, settings.pop("optimizer", OPTIMIZER), (X, Y), **settings)


@pytest.fixture(scope="module")
def watched():
    return train(doctor=3)


def test_the_run_is_the_same(watched):
    plain = train()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), plain.params, watched.params)
    np.testing.assert_allclose(plain.history["loss"], watched.history["loss"], rtol=1e-6)


def test_every_third_step_is_charted_with_its_own_batch(watched):
    charts = watched.charts
    assert charts.step.tolist() == [0, 3, 6, 9, 12] and charts.names == MODEL.names
    # step 6 by hand: the third batch of the second epoch
    before = train(steps=6)
    order_key, noise_key = jax.random.split(jax.random.split(KEY)[1])
    order, mask = epoch_order(order_key, 1, 50, 16)
    assert mask is not None
    chart = fdl.doctor.examine(
        *(MODEL, CE, before.params, before.state, jnp.asarray(X)[order[2]], jnp.asarray(Y)[order[2]]),
        *(jax.random.fold_in(noise_key, 6), OPTIMIZER, before.opt_state),
        mask=mask[2],
        noise=None,
        spectrum=0,
        leak=False,
    )
    for name in ("loss", "error", "growth", "gradient", "weight", "output_rms"):
        np.testing.assert_allclose(getattr(charts, name)[2], getattr(chart, name), rtol=1e-4, err_msg=name)
    # of the update, and of the gradient of loss and penalty together
    (_, _), grads = fdl.backprop.value_and_grad(MODEL, CE, PENALTY)(
        *(before.params, before.state, jnp.asarray(X)[order[2]], jnp.asarray(Y)[order[2]]),
        *(jax.random.fold_in(noise_key, 6), mask[2]),
    )
    updates: Any = OPTIMIZER.update(grads, before.opt_state, before.params)[0]
    want = [np.linalg.norm(updates["first"]["b"]), np.linalg.norm(updates["first"]["w"])]
    place = [charts.parameters.index(f"first/{leaf}") for leaf in ("b", "w")]
    np.testing.assert_allclose(charts.update[2][place], want, rtol=1e-4)


def test_how_the_steps_are_split_into_calls_changes_no_chart(watched, monkeypatch):
    monkeypatch.setattr(run_module, "_MOMENT", 0.0)
    again = train(doctor=3)
    jax.tree.map(np.testing.assert_array_equal, again.charts, watched.charts)
    jax.tree.map(np.testing.assert_array_equal, again.params, watched.params)


def test_the_history_and_the_findings(watched):
    assert {"error_ratio", "update_ratio", "saturated", "dead"} < set(watched.history)
    assert all(len(values) == 4 for values in watched.history.values())
    charts = watched.charts
    wanted = charts.error[2:3, 0] / charts.error[2:3, -1]  # step 6 alone is in the second epoch; 3 is in the first
    np.testing.assert_allclose(watched.history["error_ratio"][1], wanted[0], rtol=1e-6)
    assert watched.findings and watched.findings[0].code in fdl.doctor.CODES
    assert train().charts is None and train().findings == ()


def test_a_fault_is_found_while_it_trains(capfd):
    silent = fdl.serial(fdl.dense(8), fdl.relu(), fdl.dense(2))
    params, _ = silent.init(KEY, (3,))
    params["dense_0"]["b"] = jnp.full(8, -1e3, jnp.float32)
    result = train(model=silent, params=params, doctor=2, progress=True, penalty=None)
    assert result.findings[0].code == "dead_units"
    assert "dead_units" in capfd.readouterr().err.splitlines()[-1]


def test_many_charts_are_thinned_out():
    watch = Watch(2)
    chart = fdl.doctor.examine(MODEL, CE, *MODEL.init(KEY, (3,)), jnp.asarray(X), jnp.asarray(Y), KEY, spectrum=0)
    for first in range(0, 4000, 1000):
        steps = np.arange(first, first + 1000, 2, dtype=np.int32)
        stacked = jax.tree.map(lambda a: np.broadcast_to(a, (503, *np.shape(a))), chart)
        watch.add(dataclasses.replace(stacked, step=np.pad(steps, (0, 3))), first, first + 1000)
    kept = watch.charts.step
    assert KEPT / 2 < len(kept) <= KEPT and (np.diff(kept) == kept[1] - kept[0]).all() and kept[0] == 0
    watch.forget_from(100)
    assert watch.charts.step.max() < 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"doctor": 0}, "doctor is 0"),
        ({"gradient": "autodiff"}, "doctor=5 was given with gradient='autodiff'"),
        ({"precision": "bfloat16"}, "precision='bfloat16'"),
        ({"accumulate": 2}, "accumulate=2"),
    ],
)
def test_what_does_not_go_together(change, message):
    with pytest.raises(InputError, match=message):
        train(**({"doctor": 5} | change))


def test_charts_from_before_a_resume_are_kept(watched, tmp_path):
    train(doctor=3, steps=7, checkpoint=tmp_path)
    assert fdl.doctor.load(tmp_path).charts.step.tolist() == [0, 3, 6]
    result = train(doctor=3, checkpoint=tmp_path, resume=True)
    assert result.charts.step.tolist() == [0, 3, 6, 9, 12]
    np.testing.assert_allclose(result.charts.error, watched.charts.error, rtol=1e-6)
    assert set(result.history) == set(watched.history)
    (tmp_path / "doctor.npz").write_bytes(b"damaged")
    with pytest.warns(RuntimeWarning, match="the earlier charts are lost"):
        assert train(doctor=3, steps=20, checkpoint=tmp_path, resume=True).charts.step.tolist() == [15, 18]


def test_the_record_is_saved_with_every_checkpoint(tmp_path):
    """So that a run that a signal ends has one."""
    seen = []
    saved = fdl.train.Checkpoint(tmp_path, steps=2)
    train(
        doctor=3, checkpoint=saved, callbacks=(lambda _: seen.append(fdl.doctor.load(tmp_path).charts.step.tolist()),)
    )
    assert seen[:2] == [[0], [0, 3]]

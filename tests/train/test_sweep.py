"""sweep: a member trains as fit does with its settings, whatever trains beside it."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.errors import InputError, InputTypeError
from fdl.train.grid import Takers, groups, members

CE = fdl.losses.softmax_cross_entropy_with_integer_labels
HUBER = fdl.losses.huber
train: Any = fdl.train.sweep
rng = np.random.default_rng(1)
Y = (np.arange(50) % 2).astype(np.int32)
X = (rng.normal(size=(50, 3)) + 3 * Y[:, None]).astype(np.float32)
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "progress": False}


def net(rate, features=5):
    return fdl.serial(fdl.dense(features), fdl.batch_norm(), fdl.tanh(), fdl.dropout(rate), fdl.dense(2))


def fitted(row, **kwargs):
    settings = SETTINGS | {"valid": (X, Y), "key": jax.random.key(row["seed"])} | kwargs
    return fdl.train.fit(net(row["rate"]), CE, optax.sgd(row["learning_rate"], row["momentum"]), (X, Y), **settings)


GRID = {"learning_rate": [0.1, 0.3], "momentum": [0.0, 0.9], "rate": [0.2], "seed": [3, 4]}


@pytest.mark.parametrize("layout", ["vmap", "map"])
def test_a_member_is_the_run_that_fit_would_make(layout):
    sweep = train(net, CE, optax.sgd, (X, Y), valid=(X, Y), grid=GRID, layout=layout, **SETTINGS)
    assert len(sweep) == 8 and sweep.settings == ("learning_rate", "momentum", "rate", "seed")
    for number in (0, 5):
        row, alone, member = sweep.rows()[number], fitted(sweep.rows()[number]), sweep.member(number)
        for a, b in zip(jax.tree.leaves(alone.params), jax.tree.leaves(member.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), alone.state, member.state)
        for name in ("loss", "valid_loss", "valid_accuracy"):
            np.testing.assert_allclose(alone.history[name], member.history[name], rtol=1e-5)
            assert sweep.table[name][number] == member.history[name][-1] == sweep.histories[name][number, -1]
        assert row["steps"] == alone.steps and row["epochs"] == 2 and not row["diverged"]
    distinct = {member.history["loss"][-1] for member in map(sweep.member, range(8))}
    assert len(distinct) == 8


def test_partial_epochs_penalties_accumulation_and_precision_as_in_fit():
    more = {"steps": 7, "accumulate": 2, "precision": "bfloat16", "valid": None}
    grid = {"strength": [0.1, 0.01], "learning_rate": [0.1]}
    sweep = train(net(0.1), CE, optax.sgd, (X, Y), penalty=fdl.regularizers.l2, grid=grid, **(SETTINGS | more))
    row = {"rate": 0.1, "learning_rate": 0.1, "momentum": None, "seed": 0}
    alone = fitted(row, penalty=fdl.regularizers.l2(0.01), **more)
    np.testing.assert_allclose(sweep.member(1).history["loss"], alone.history["loss"], rtol=1e-3)
    assert sweep.member(1).history["loss"].shape == (2,) and sweep.table["steps"].tolist() == [7, 7]


def test_options_of_the_loss_and_the_scale_of_the_start():
    grid = {"delta": [0.1, 5.0], "init_scale": [0.0, 2.0], "learning_rate": [0.0]}
    sweep = train(fdl.serial(fdl.dense(2)), HUBER, optax.sgd, (X, X[:, :2]), grid=grid, **SETTINGS)
    start, _ = fdl.serial(fdl.dense(2)).init(jax.random.split(jax.random.key(0))[0], (3,))
    for number, row in enumerate(sweep.rows()):
        params = jax.tree.map(lambda a, s=row["init_scale"]: a * s if a.ndim > 1 else a, start)
        values = HUBER(fdl.ops.dense(params["dense_0"], jnp.asarray(X)), jnp.asarray(X[:, :2]), delta=row["delta"])
        np.testing.assert_allclose(sweep.table["loss"][number], values.mean(), rtol=1e-5)


def test_a_member_that_diverges_spoils_nothing():
    explosive = optax.sgd
    grid = {"learning_rate": [0.05, 1e30, 0.1], "seed": [0]}
    model, data = fdl.serial(fdl.dense(2)), (X, X[:, :2])
    sweep = train(model, fdl.losses.mean_squared_error, explosive, data, grid=grid, **SETTINGS)
    assert sweep.table["diverged"].tolist() == [False, True, False]
    calm = train(model, fdl.losses.mean_squared_error, explosive, data, grid={"learning_rate": [0.05, 0.1]}, **SETTINGS)
    for a, b in ((0, 0), (2, 1)):
        np.testing.assert_allclose(sweep.member(a).history["loss"], calm.member(b).history["loss"], rtol=1e-6)
    assert sweep.order().tolist()[-1] == 1 and np.isfinite(sweep.best().history["loss"]).all()


def test_what_is_no_floating_number_makes_a_program_of_its_own():
    grid = {"features": [3, 4], "rate": [0.0, 0.1], "learning_rate": [0.1]}
    sweep = train(net, CE, optax.sgd, (X, Y), grid=grid, **(SETTINGS | {"epochs": 1}))
    assert [r["features"] for r in sweep.rows()] == [3, 3, 4, 4]
    assert [sweep.member(i).params["dense_0"]["w"].shape[1] for i in range(4)] == [3, 3, 4, 4]
    rows = members("sweep", {"a": [1, 2], "b": [0.5, 1.5], "seed": [0, 1]})
    assert groups(rows) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups(members("sweep", [{"a": True}, {"a": 1}, {"a": "1"}])) == [[0], [1], [2]]


def test_halving_stops_the_worse_members():
    grid = {"learning_rate": [0.0, 0.001, 0.3, 0.1], "momentum": [0.5], "rate": [0.0]}
    halving = fdl.train.Halving(2)
    sweep = train(net, CE, optax.sgd, (X, Y), valid=(X, Y), grid=grid, halving=halving, **(SETTINGS | {"epochs": 6}))
    assert sorted(sweep.table["epochs"].tolist()) == [2, 2, 4, 6]
    assert set(np.flatnonzero(sweep.table["epochs"] == 2)) == {0, 1}
    best = int(np.flatnonzero(sweep.table["epochs"] == 6)[0])
    assert sweep.order()[0] == best and sweep.histories["loss"].shape == (4, 6)
    assert np.isnan(sweep.histories["loss"][0, 2:]).all()
    row = sweep.rows()[best] | {"seed": 0}
    np.testing.assert_allclose(sweep.member(best).history["loss"], fitted(row, epochs=6).history["loss"], rtol=1e-4)


def test_the_same_sweep_again_compiles_nothing():
    settings = SETTINGS | {"grid": {"learning_rate": [0.1]}, "valid": (X, Y)}
    model = fdl.serial(fdl.dense(3), fdl.tanh(), fdl.dense(2))
    train(model, CE, optax.sgd, (X, Y), **settings)
    with pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("fdl.train.team.make_step", lambda *args: compiled.append(args))
        train(model, CE, optax.sgd, (X, Y), **(settings | {"grid": {"learning_rate": [0.2]}}))
    assert not compiled


def test_the_table_reads_well():
    sweep = train(net(0.0), CE, optax.sgd, (X, Y), grid={"learning_rate": [0.0, 0.3]}, **SETTINGS)
    head, first, second = str(sweep).splitlines()
    assert head.split() == ["learning_rate", "seed", "loss", "epochs", "steps", "diverged"]
    assert first.split()[0] == "0.3" and second.split()[0] == "0" and len({len(head), len(first), len(second)}) == 1
    with pytest.raises(InputError, match="no column 'auc'"):
        sweep.best("auc")


def test_devices_and_padding():
    here = Path(__file__)
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(here.with_name("sweep_on_two_devices.py"))],
        env=os.environ | two | {"PYTHONPATH": str(here.parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and "held" in done.stdout, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"grid": {"learning_rat": [0.1]}},
            "nobody takes the setting 'learning_rat'.*make_optimizer takes .*learning_rate",
        ),
        ({"grid": {"learning_rate": 0.1}}, r"grid\['learning_rate'\] is float 0.1, wanted a list"),
        ({"grid": {"learning_rate": []}}, "is empty"),
        ({"grid": [{"learning_rate": 0.1}, {"momentum": 0.5}]}, r"grid\[1\] has \['momentum', 'seed'\]"),
        ({"grid": {"learning_rate": [0.1], "seed": [0.5]}}, "the seed 0.5 is no whole number"),
        ({"grid": {"learning_rate": [float("nan")]}}, "learning_rate is nan"),
        ({"grid": {"learning_rate": [0.1], "features": [[3]]}}, "features is list, which cannot be hashed"),
        ({"grid": 3}, "grid is int 3"),
        ({"layout": "pmap"}, "layout is 'pmap'"),
        ({"grid": []}, "no members"),
        ({"halving": 3}, "halving is int 3"),
        ({"mesh": 2}, "mesh is int 2"),
        ({"data": (X[:0], Y[:0])}, "no examples"),
    ],
)
def test_bad_settings(change, message):
    settings = {"grid": {"learning_rate": [0.1]}, "data": (X, Y)} | SETTINGS | change
    with pytest.raises((InputError, InputTypeError), match=message):
        train(net(0.0), CE, optax.sgd, settings.pop("data"), **settings)


def test_everybody_gets_what_it_asks_for():
    takers = Takers(net, HUBER, optax.sgd, fdl.regularizers.l2)
    takers.require("sweep", ["rate", "delta", "learning_rate", "strength", "seed", "init_scale"])
    made = takers.make({"rate": 0.1, "delta": 2.0, "learning_rate": 0.1, "strength": 3.0, "seed": 0})
    assert made[0] == net(0.1) and made[1] == HUBER.bind(delta=2.0) and made[3] == fdl.regularizers.l2(3.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        fdl.train.Halving(2).every = 3  # type: ignore[misc]

"""What fit, sweep and evaluate refuse or keep where a mistake would go unnoticed."""

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.errors import InputError, InputTypeError
from fdl.train import identity

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5)).astype(np.float32)
LABELS = RNG.integers(0, 3, 24).astype(np.int32)
MODEL = fdl.serial(fdl.dense(4), fdl.tanh(), fdl.dense(3))
LOSS = fdl.losses.softmax_cross_entropy_with_integer_labels
RATE = {"learning_rate": [0.1]}


def fit(**changed):
    how = {"key": jax.random.key(0), "epochs": 2, "batch_size": 8, "progress": False} | changed
    return fdl.train.fit(
        *(how.pop("model", MODEL), LOSS, how.pop("optimizer", optax.sgd(0.1)), how.pop("data", (X, LABELS))), **how
    )


def sweep(model: Any = MODEL, grid=None, optimizer=optax.sgd, **how):
    how = {"epochs": 1, "batch_size": 8, "progress": False} | how
    return fdl.train.sweep(model, LOSS, optimizer, (X, LABELS), grid=grid or RATE, **how)


def evaluate(loss: Any = LOSS, **how):
    return fdl.train.evaluate(MODEL, loss, *MODEL.init(jax.random.key(0), (5,)), (X, LABELS), **how)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"weights": -np.ones(24, np.float32)}, "negative"),
        ({"data": (X, LABELS.astype(np.int64) + 2**40), "model": MODEL}, "enable jax_enable_x64"),
        ({"data": (X, np.array(["a"] * 24))}, "wanted numbers"),
        ({"callbacks": 3}, "callbacks is int 3"),
        ({"metrics": 3}, "metrics is int 3"),
        ({"precision": ["bfloat16"]}, "precision is"),
    ],
)
def test_fit_refuses_before_the_first_step(changed, told):
    with jax.enable_x64(False), pytest.raises((InputError, InputTypeError), match=told):
        fit(**changed)


def test_one_value_per_example_is_demanded_of_metrics_and_losses():
    def share(pred, target):
        return pred.mean()

    with pytest.raises(InputError, match="share is float"):
        evaluate(metrics=share)
    with pytest.raises(InputError, match="loss is float"):
        evaluate(lambda pred, target: LOSS(pred, target).mean())
    with pytest.raises(InputError, match="two figures are called '<lambda>'"):
        evaluate(metrics=(lambda p, t: p[:, 0], lambda p, t: p[:, 1]))


def test_a_description_is_the_same_in_every_process_and_holds_the_settings():
    code = (
        "import fdl; from fdl.train.identity import described;"
        "print(described(fdl.regularizers.l2(0.5)), described(fdl.serial(fdl.dense(3), fdl.dropout(0.25))))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(
        command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=True
    )
    here = [
        identity.described(fdl.regularizers.l2(0.5)),
        identity.described(fdl.serial(fdl.dense(3), fdl.dropout(0.25))),
    ]
    assert found.stdout.strip() == " ".join(here)
    assert "0x" not in found.stdout and "strength=0.5" in here[0] and "rate=0.25" in here[1]


def test_a_run_is_not_continued_with_another_dropout_rate_or_monitor(tmp_path):
    def run(name, **how):
        pytest.importorskip("orbax.checkpoint")
        return fit(checkpoint=tmp_path / name, **how)

    noisy = [fdl.serial(fdl.dense(4), fdl.dropout(rate), fdl.dense(3)) for rate in (0.1, 0.2)]
    run("rate", model=noisy[0])
    with pytest.raises(InputError, match=r"dropout\(rate=0.1\)"):
        run("rate", model=noisy[1], resume=True)
    run("monitor", valid=(X, LABELS), early_stopping=3)
    with pytest.raises(InputError, match="the highest valid_accuracy"):
        by_accuracy = fdl.train.EarlyStopping(3, monitor="valid_accuracy")
        run("monitor", valid=(X, LABELS), early_stopping=by_accuracy, resume=True)


def test_after_a_rollback_the_best_epoch_is_one_of_the_history():
    def boom(updates, state, params=None):
        return jax.tree.map(lambda u: jnp.where(state == 10, jnp.nan, u), updates), state + 1

    bomb = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), boom)
    with pytest.warns(RuntimeWarning):
        found = fit(
            optimizer=optax.chain(optax.sgd(1.0), bomb),
            **{"epochs": 5, "on_divergence": "rollback", "early_stopping": 9, "valid": (X, LABELS)},
        )
    best = fdl.train.evaluate(MODEL, LOSS, found.params, found.state, (X, LABELS))["loss"]
    assert found.history["valid_loss"][(found.best_epoch or 0) - 1] == pytest.approx(float(best), rel=1e-6)


def test_a_given_state_is_used_without_given_parameters():
    model = fdl.serial(fdl.batch_norm(momentum=0.9), fdl.dense(3))
    _, state = model.init(jax.random.key(1), (5,))
    moved = jax.tree.map(lambda a: a + 100, state)
    found = fit(model=model, state=moved, epochs=1).state["batch_norm_0"]["mean"]
    assert not np.allclose(found, fit(model=model, epochs=1).state["batch_norm_0"]["mean"])


def test_the_charts_of_an_optimizer_that_asks_for_the_loss():
    def update(updates, state, params=None, **more):
        return jax.tree.map(lambda u: -0.1 * u, updates), (more["value"] - more["value_fn"](params)).astype(jnp.float32)

    asking = optax.GradientTransformationExtraArgs(lambda params: jnp.zeros((), jnp.float32), update)
    found = fit(optimizer=asking, doctor=2)
    assert len(found.charts.step) == 3 and found.opt_state == 0


def test_a_whole_number_scales_the_initial_parameters_as_a_float_does():
    by = [sweep(grid=RATE | {"init_scale": [scale]}).table["loss"][0] for scale in (2, 2.0, 1)]
    assert by[0] == by[1] != by[2]


def test_a_sweep_refuses_what_the_factory_refuses_and_the_names_of_its_columns():
    with pytest.raises(InputError, match="rate"):
        sweep(lambda rate: fdl.serial(fdl.dropout(rate), fdl.dense(3)), RATE | {"rate": [1.5]})
    with pytest.raises(InputError, match="'epochs'"):
        sweep(lambda epochs: MODEL, RATE | {"epochs": [1, 2]})


def test_diverged_members_come_last_even_if_the_others_were_stopped():
    table = {"loss": np.array([np.nan, 1.0]), "epochs": np.array([4, 2]), "diverged": np.array([True, False])}
    assert list(fdl.train.Sweep(table, {}, (), 0.0, ()).order()) == [1, 0]


def test_a_sweep_keeps_keys_and_the_64_bits_of_its_caller():
    def noisy(learning_rate):
        keyed = optax.GradientTransformation(
            lambda params: jax.random.key(0), lambda updates, state, params=None: (updates, state)
        )
        return optax.chain(keyed, optax.sgd(learning_rate))

    with jax.enable_x64(False):
        assert sweep(optimizer=noisy).table["steps"][0] == 3
        with jax.enable_x64(True):
            data = (X.astype(np.float64), LABELS)
            how = {"grid": {"learning_rate": [0.1, 0.2]}, "epochs": 1, "progress": False}
            found = fdl.train.sweep(MODEL, LOSS, optax.sgd, data, **how)
            stream = fdl.data.stream(*data, chunk_size=8, block_size=4)
            streamed = fit(data=stream, epochs=1).params["dense_0"]["w"]
    assert found.member(0).params["dense_0"]["w"].dtype == streamed.dtype == np.float64


def test_the_finder_wants_a_function_of_the_rate():
    made: Any = optax.sgd(0.1)
    with pytest.raises(InputTypeError, match="optax.sgd, not optax.sgd"):
        fdl.train.find_learning_rate(MODEL, LOSS, made, (X, LABELS), key=jax.random.key(0))

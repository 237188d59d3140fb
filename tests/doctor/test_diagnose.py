"""Every code with a case in which it must fire and the healthy course beside it, on charts written by hand.

The whole way from a training to the finding is experiments/doctor_cases.py.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.doctor.chart import Chart, unstacked
from fdl.doctor.diagnose import rank
from fdl.doctor.finding import Finding
from fdl.doctor.rules import RULES

NAMES = ("dense_0", "relu_1", "dense_2", "batch_norm_3", "tanh_4", "output")
NAN = float("nan")


def chart(step: int, **planted: Any) -> Chart:
    """A healthy chart of a net of three dense layers but for what is planted."""
    layers, leaves = len(NAMES), 6
    spread = np.asarray([NAN, 1.0] * 3)
    fields = {
        "step": np.int32(step),
        "loss": np.float32(2.4 if step == 0 else 0.5),
        "eval_loss": np.float32(2.4 if step == 0 else 0.55),
        "chance_loss": np.float32(np.log(10)),
        "error": np.linspace(0.5, 0.9, layers),
        "growth": np.ones(layers),
        "input_percentiles": np.tile(np.linspace(-1, 1, 7), (layers, 1)),
        "output_percentiles": np.tile(np.linspace(-1, 1, 7), (layers, 1)),
        "error_percentiles": np.tile(np.linspace(-1, 1, 7), (layers, 1)),
        "output_rms": np.ones(layers),
        "saturated": np.asarray([NAN, 0.5, NAN, NAN, 0.01, NAN]),
        "units": {"relu_1": np.asarray([0, 0, 1, 0]), "tanh_4": np.zeros(4, int)},
        "spectrum": np.ones((layers, 4)),
        "drift": np.asarray([NAN, NAN, NAN, 0.3, NAN, NAN]),
        "statistics_of": np.asarray([NAN, NAN, NAN, 32.0, NAN, NAN]),
        "leak": np.asarray([0.0, 0, 0, 0.5, 0, 0]),
        "first_not_finite": np.int32(0),
        "weight": np.asarray([0.0, 5] * 3),
        "gradient": np.full(leaves, 0.5),
        "update": np.full(leaves, 0.01),
        "noise": np.full(leaves, 1.0),
        "cosine": np.full(leaves, NAN),
        "weight_spread": spread,
        "gradient_spread": spread,
        "total_cosine": NAN,
        "examples": np.float32(32),
        "input_rms": np.float32(0.5),
        "feature_rms": np.float32(0.8),
        "feature": np.int32(3),
        "constant_features": np.int32(0),
        "constant_feature": np.int32(-1),
        "label_share": np.float32(0.2),
        "label_classes": np.int32(10),
        "label_entropy": np.float32(2.2),
        "label_outside": np.int32(0),
        "unit_rows": np.float32(0),
        "outside_unit": np.float32(0.5),
        "names": NAMES,
        "kinds": ("dense", "relu", "dense", "batch_norm", "tanh", "dense"),
        "parameters": tuple(f"{name}/{leaf}" for name in ("dense_0", "dense_2", "output") for leaf in ("b", "w")),
        "outgoing": (("relu_1", ("dense_2",)), ("tanh_4", ("output",))),
        "loss_name": "softmax_cross_entropy_with_integer_labels",
        "takes_logits": True,
        "places": ("", "input", "parameter dense_0/w", "forward relu_1", "loss"),
        "couples": ("batch_norm_3",),
        "features": 64,
    }
    return Chart(**(fields | planted))


HISTORY = {"loss": [1.5, 0.9, 0.6, 0.5], "valid_loss": [1.4, 0.9, 0.7, 0.65]}


def course(history: Any = HISTORY, start: Any = None, **planted: Any):
    """The findings of three charts with something planted in each, and at the start besides."""
    charts = [chart(0, **(planted | (start or {}))), *(chart(step, **planted) for step in (50, 100))]
    return fdl.doctor.diagnose(charts, history)


def at(place: int, value: Any, like: Any) -> np.ndarray:
    out = np.asarray(like, float).copy()
    out[place] = value
    return out


HEALTHY = chart(50)
STUCK = {"loss": [2.3, 2.31, 2.3, 2.3], "valid_loss": [2.3, 2.3, 2.31, 2.3]}
CASES: dict[str, dict[str, Any]] = {
    "vanishing": {"error": np.geomspace(1e-6, 1, 6)},
    "exploding": {"error": np.geomspace(1e5, 1, 6)},
    "saturated": {"saturated": at(4, 0.9, HEALTHY.saturated)},
    "dead_units": {"units": {"relu_1": np.asarray([1, 1, 1, 0]), "tanh_4": np.zeros(4, int)}},
    "dead_weights": {"units": {"relu_1": np.asarray([0, 3, 0, 3]), "tanh_4": np.zeros(4, int)}},
    "zero_init_symmetry": {
        "weight_spread": at(1, 0, HEALTHY.weight_spread),
        "gradient_spread": at(1, 0, HEALTHY.weight_spread),
    },
    "bad_initial_loss": {"start": {"loss": np.float32(20.0)}},
    "learning_rate_too_high": {"history": STUCK, "update": np.full(6, 20.0), "loss": np.float32(2.4)},
    "learning_rate_too_low": {"history": STUCK, "update": np.full(6, 1e-7), "loss": np.float32(2.31)},
    "non_finite": {"first_not_finite": np.int32(3)},
    "input_not_scaled": {"feature_rms": np.float32(300.0)},
    "constant_feature": {"constant_features": np.int32(2), "constant_feature": np.int32(7)},
    "labels_shuffled_or_constant": {"history": STUCK, "loss": np.float32(2.3), "noise": np.full(6, 8.0)},
    "loss_expects_logits": {"unit_rows": np.float32(1), "outside_unit": np.float32(0)},
    "batch_norm_small_batch": {"statistics_of": at(3, 2, HEALTHY.statistics_of)},
    "batch_norm_train_eval_gap": {"eval_loss": np.float32(2.0)},
    "example_leak": {"leak": at(1, 0.3, HEALTHY.leak)},
    "frozen_layer": {"update": at(3, 0, HEALTHY.update)},
    "gradient_noise": {"examples": np.float32(2), "noise": np.full(6, 1.0), "loss": np.float32(2.0)},
    "overfit": {"history": {"loss": [1.0, 0.1, 0.01, 0.001], "valid_loss": [1.2, 1.0, 1.3, 1.6]}},
}


def test_all_codes_have_a_case():
    assert {*CASES, "healthy"} == set(fdl.doctor.CODES)


@pytest.mark.parametrize("code", CASES)
def test_the_planted_fault_is_the_first_finding(code):
    findings = course(**CASES[code])
    assert findings[0].code == code, findings
    assert findings[0].remedy and any(character.isdigit() for character in findings[0].evidence) or code == "non_finite"


def test_a_healthy_course_is_healthy_and_its_coupling_expected():
    first, *notes = course()
    assert (first.code, first.severity) == ("healthy", "none") and "2.4 to 0.5" in first.evidence
    assert [(note.code, note.layer, note.severity) for note in notes] == [("example_leak", "batch_norm_3", "note")]


LESS = {
    "constants that are 0, few examples": {"constant_features": np.int32(2), "examples": np.float32(4)},
    "zero weights that learn": {"weight_spread": at(5, 0, HEALTHY.weight_spread)},
    "half of the relus off": {"saturated": at(1, 0.95, HEALTHY.saturated)},
    "labels of one class in a tiny batch": {
        "label_share": np.float32(1),
        "examples": np.float32(2),
        "noise": np.full(6, 0.1),
    },
    "logits that look like probabilities in part": {"unit_rows": np.float32(0.4), "outside_unit": np.float32(0.1)},
    "no optimizer": {"update": np.full(6, NAN)},
    "statistics at the start": {"start": {"eval_loss": np.float32(9.0)}},
    "noise at the end": {"noise": np.full(6, 50.0)},
}


@pytest.mark.parametrize("name", LESS)
def test_what_is_no_fault(name):
    assert course(**LESS[name])[0].code == "healthy"


def test_what_one_chart_cannot_show_is_not_judged():
    slow = chart(0, update=np.full(6, 1e-9))
    assert fdl.doctor.diagnose(slow)[0].code == "healthy"
    zeros = {"relu_1": np.asarray([3, 3, 3, 3]), "tanh_4": np.zeros(4, int)}
    assert fdl.doctor.diagnose(chart(0, units=zeros))[0].code == "healthy"  # the next step may free them
    still = at(3, 0, HEALTHY.update)
    assert fdl.doctor.diagnose(chart(0, units=zeros, update=still))[0].code == "dead_weights"
    late = chart(500, loss=np.float32(20.0))
    assert fdl.doctor.diagnose(late)[0].code == "healthy"  # a high loss, but not at the start


def test_units_must_be_dead_in_every_chart():
    one, other = ({"relu_1": np.asarray(codes), "tanh_4": np.zeros(4, int)} for codes in ([1, 1, 0, 0], [0, 0, 1, 1]))
    charts = [chart(0, units=one), chart(50, units=other)]
    assert fdl.doctor.diagnose(charts)[0].code == "healthy"


def test_blocked_units_and_their_weights_are_named():
    (found, *_) = course(**CASES["dead_weights"])
    assert found.layer == "relu_1" and "units 1, 3" in found.evidence and "dense_2/w[1, :]" in found.evidence
    assert str(found).startswith("error: dead_weights in relu_1: 2 of 4 units")


def test_a_rate_that_diverges_explains_what_it_broke():
    charts = [chart(0, update=np.full(6, 20.0)), chart(50, first_not_finite=np.int32(2), loss=np.float32(NAN))]
    codes = [finding.code for finding in fdl.doctor.diagnose(charts)]
    assert codes[:2] == ["learning_rate_too_high", "non_finite"]


def test_symptoms_come_after_their_cause_and_notes_last():
    place = {rule.code: at for at, rule in reversed([*enumerate(RULES)])}
    make = lambda code, severity: (place[code], Finding(code, "", severity, "", ""))
    found = [
        make("vanishing", "error"),
        make("dead_units", "warning"),
        make("example_leak", "note"),
        make("overfit", "warning"),
    ]
    ranked = [finding.code for finding in rank(found)]
    # overfitting, too, is no question while units are dead; both symptoms by severity
    assert ranked == ["dead_units", "vanishing", "overfit", "example_leak"]


def test_logits_to_a_loss_of_probabilities():
    finding = course(takes_logits=False, loss_name="categorical_crossentropy")[0]
    assert finding.code == "loss_expects_logits" and "50% of the outputs are outside [0, 1]" in finding.evidence


def test_labels_outside_the_classes():
    finding = course(label_outside=np.int32(4), first_not_finite=np.int32(4))[0]
    assert (finding.code, finding.layer) == ("non_finite", "target")


def test_validation_that_never_falls_below_chance():
    by_heart = {"loss": [1.5, 0.9, 0.4, 0.1], "valid_loss": [2.4, 2.6, 3.0, 4.0]}
    assert course(history=by_heart)[0].code == "labels_shuffled_or_constant"


def test_a_stacked_chart_is_a_list_of_charts():
    charts = [chart(0), chart(50)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *charts)
    apart = unstacked("test", stacked)
    assert [int(one.step) for one in apart] == [0, 50]
    assert fdl.doctor.diagnose(stacked, HISTORY) == fdl.doctor.diagnose(charts, HISTORY)


def test_counterfactuals_say_what_a_remedy_does():
    model = fdl.serial(fdl.dense(8), fdl.relu(), output=fdl.dense(3))
    zeros = fdl.serial(
        fdl.dense(8, w_init=jax.nn.initializers.zeros),
        fdl.relu(),
        output=fdl.dense(3, w_init=jax.nn.initializers.zeros),
    )
    loss = fdl.losses.softmax_cross_entropy_with_integer_labels
    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0)
    case = fdl.doctor.Case(zeros, loss, optax.sgd, 0.3, (x, y), steps=40, batch_size=20)
    params, state = zeros.init(jax.random.key(0), (4,))
    seen = fdl.doctor.examine(
        zeros, loss, params, state, jnp.asarray(x), jnp.asarray(y), case=case, leak=False, spectrum=0
    )
    finding = fdl.doctor.diagnose(seen, counterfactual=True)[0]
    assert finding.code == "zero_init_symmetry" and len(finding.effects) == 2
    assert finding.effects[0].startswith("Glorot initialisation: first error 0 -> ")
    as_it_is, _, drawn = fdl.doctor.what_if(case, ["Glorot initialisation", "He initialisation"])
    assert as_it_is.error == 0 and drawn.error > 0 and drawn.loss < 0.7 * as_it_is.loss

    # a change of the model: what it does is what that model does
    case = dataclasses.replace(case, model=model, steps=5)
    normed = fdl.doctor.what_if(case, ["batch_norm"])[1]
    by_hand = fdl.serial(dense_0=fdl.dense(8), relu_1_norm=fdl.batch_norm(), relu_1=fdl.relu(), output=fdl.dense(3))
    same = fdl.doctor.what_if(dataclasses.replace(case, model=by_hand), [])[0]
    np.testing.assert_allclose([normed.error, normed.loss], [same.error, same.loss], rtol=1e-5)


def test_the_door():
    with pytest.raises(fdl.errors.InputTypeError, match="the chart has no case"):
        fdl.doctor.diagnose(chart(0), counterfactual=True)
    with pytest.raises(fdl.errors.InputError, match="got no charts"):
        fdl.doctor.diagnose([])


@pytest.mark.parametrize("charts", [None, "a name", {}, [None]])
def test_what_is_no_chart_is_refused(charts):
    with pytest.raises(fdl.errors.InputTypeError, match="wanted what fdl.doctor.examine returns"):
        fdl.doctor.diagnose(charts)


def test_charts_of_different_models_and_a_history_that_is_a_list_are_refused():
    wide = {"relu_1": np.zeros(9, int), "tanh_4": np.zeros(4, int)}
    for other in ({"units": wide}, {"loss_name": "hinge"}):
        with pytest.raises(fdl.errors.InputError, match="charts of one model"):
            fdl.doctor.diagnose([chart(0), chart(1, **other)])
    with pytest.raises(fdl.errors.InputTypeError, match="history is list"):
        fdl.doctor.diagnose(chart(0), [1.0])  # pyright: ignore[reportArgumentType]


def test_a_case_is_looked_at_and_may_be_of_a_single_layer():
    loss = fdl.losses.softmax_cross_entropy_with_integer_labels
    x, y = np.eye(4, dtype=np.float32), np.arange(4, dtype=np.int32)
    case = fdl.doctor.Case(fdl.dense(4), loss, optax.sgd, 0.1, (x, y), steps=2)
    assert fdl.doctor.what_if(case, [])[0].error > 0
    wrong = ({"optimizer": optax.sgd(0.1)}, {"data": (x, y[:2])})
    for change, said in zip(wrong, ("a function of the learning rate", "4 examples and 2 targets"), strict=True):
        with pytest.raises((fdl.errors.InputError, fdl.errors.InputTypeError), match=said):
            fdl.doctor.what_if(dataclasses.replace(case, **change), [])
    with pytest.raises(fdl.errors.InputError, match="change is 'sleep'"):
        fdl.doctor.what_if(case, ["sleep"])


def test_a_layer_that_hands_no_error_on_is_named():
    kinds = ("dense", "relu", "dense", "reshape", "tanh", "dense")
    cut = {
        "error": np.asarray([0, 0, 0, 0.5, 0.6, 0.9]),
        "growth": np.asarray([NAN, NAN, NAN, 0, 1, 1]),
        "kinds": kinds,
    }
    found = course(**cut, statistics_of=np.full(6, NAN), leak=np.zeros(6))
    assert [(f.code, f.layer) for f in found[:2]] == [("frozen_layer", "batch_norm_3"), ("vanishing", "dense_0")]


def test_one_hot_rows_are_scaled():
    assert course(input_rms=np.float32(0.007), feature_rms=np.float32(0.2))[0].code == "healthy"
    assert course(input_rms=np.float32(1e-4), feature_rms=np.float32(2e-4))[0].code == "input_not_scaled"


def test_targets_far_away_are_not_the_fault_of_the_output_weights():
    square = {"loss_name": "mean_squared_error", "takes_logits": None, "chance_loss": np.float32(1)}
    far, wide = (course(**square, start={"loss": np.float32(loss)})[0] for loss in (1e6, 20))
    assert far.code == wide.code == "bad_initial_loss"
    assert far.remedy.startswith("standardize the target")
    large = course(**square, start={"loss": np.float32(20), "output_rms": np.full(6, 5.0)})[0]
    assert large.remedy.startswith("start output with smaller weights")


def test_a_batch_at_chance_with_running_statistics_is_not_learned_by_heart():
    stuck = {"loss": [2.2, 2.1, 2.0, 1.9], "valid_loss": [2.3, 2.3, 2.31, 2.3]}
    assert course(history=stuck)[0].code == "labels_shuffled_or_constant"
    lost = course(history=stuck, loss=np.float32(1.9), eval_loss=np.float32(2.3))
    assert lost[0].code == "batch_norm_train_eval_gap"


def test_a_partial_last_batch_is_no_small_batch():
    charts = [chart(step) for step in (0, 5)] + [chart(10, statistics_of=at(3, 1, HEALTHY.statistics_of))]
    assert fdl.doctor.diagnose(charts)[0].code == "healthy"


def test_a_loss_that_is_not_finite_has_a_highest_value_all_the_same():
    charts = [chart(0, update=np.full(6, 20.0)), chart(50, first_not_finite=np.int32(2), loss=np.float32(NAN))]
    assert "nan, at its highest 2.4" in fdl.doctor.diagnose(charts)[0].evidence


def test_dead_relus_cut_the_error_off_and_are_not_called_vanishing():
    x, y = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32), np.arange(32) % 3
    model, loss = (
        fdl.serial(fdl.dense(8), fdl.relu(), fdl.dense(3)),
        fdl.losses.softmax_cross_entropy_with_integer_labels,
    )
    params, state = model.init(jax.random.key(0), (5,))
    dead = params | {"dense_0": params["dense_0"] | {"b": params["dense_0"]["b"] - 50}}
    codes = [found.code for found in fdl.doctor.diagnose(fdl.doctor.examine(model, loss, dead, state, x, y))]
    assert "dead_units" in codes and "vanishing" not in codes

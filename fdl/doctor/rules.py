"""The rules: one function per code, from a course to findings. `RULES` is the table; causes stand before what they cause.

A rule sees what there is, and says nothing about what it cannot see: a lone chart has no learning rate to judge, and a
training without validation data no overfitting. Thresholds are the constants above the rules, each with its evidence;
"doctor_cases" is experiments/doctor_cases.py, where planted faults and healthy trainings are on different sides of each.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from fdl.doctor import rules_of_data as data
from fdl.doctor import rules_of_flow as flow
from fdl.doctor import rules_of_training as training
from fdl.doctor.finding import Course, Finding


class Rule(NamedTuple):
    """code, find(course), and the codes of what this fault brings with it: those are then symptoms, and rank behind it."""

    code: str
    find: Callable[[Course], Iterator[Finding]]
    explains: tuple[str, ...] = ()


_SIZES = ("saturated", "dead_units", "vanishing", "exploding")
_PROGRESS = (
    "learning_rate_too_low",
    "learning_rate_too_high",
    "gradient_noise",
    "labels_shuffled_or_constant",
    "overfit",
)
_START = ("bad_initial_loss",)
_NORM = ("batch_norm_train_eval_gap",)

RULES = (
    Rule("loss_expects_logits", data.loss_expects_logits, ("non_finite", *_SIZES, *_PROGRESS, *_START)),
    Rule("input_not_scaled", data.input_not_scaled, (*_SIZES, *_PROGRESS, *_START, "constant_feature", *_NORM)),
    Rule("example_leak", data.example_leak, (*_PROGRESS, *_START, *_SIZES)),
    Rule("labels_shuffled_or_constant", data.labels_constant, (*_SIZES, *_PROGRESS)),
    Rule(
        "zero_init_symmetry",
        flow.zero_init_symmetry,
        ("dead_weights", "dead_units", *_SIZES, *_PROGRESS, "frozen_layer"),
    ),
    Rule("exploding", flow.exploding_at_start, ("non_finite", *_SIZES, *_PROGRESS, *_START, *_NORM)),
    Rule("learning_rate_too_high", training.learning_rate_too_high, ("non_finite", *_SIZES, *_PROGRESS[2:], *_NORM)),
    Rule("non_finite", flow.non_finite, (*_SIZES, *_PROGRESS, *_START, *_NORM)),
    Rule("dead_weights", flow.dead_weights, ("vanishing", "frozen_layer", *_PROGRESS)),
    Rule("exploding", flow.exploding, ("saturated", *_START, *_PROGRESS, "dead_units")),
    Rule("dead_units", flow.dead_units, ("vanishing", *_PROGRESS)),
    Rule("saturated", flow.saturated, ("vanishing", *_START, *_PROGRESS)),
    Rule("frozen_layer", training.frozen_layer, ("vanishing", *_PROGRESS)),
    Rule("vanishing", flow.vanishing, _PROGRESS),
    Rule("bad_initial_loss", training.bad_initial_loss, _PROGRESS),
    Rule("learning_rate_too_low", training.learning_rate_too_low, _PROGRESS[2:]),
    Rule("batch_norm_small_batch", training.batch_norm_small_batch, (*_NORM, "gradient_noise", "overfit")),
    Rule("batch_norm_train_eval_gap", training.batch_norm_train_eval_gap, ("overfit",)),
    Rule("labels_shuffled_or_constant", training.labels_shuffled, ("overfit", "gradient_noise")),
    Rule("gradient_noise", training.gradient_noise, ("labels_shuffled_or_constant",)),
    Rule("constant_feature", data.constant_feature),
    Rule("overfit", training.overfit),
)
CODES = tuple(dict.fromkeys(rule.code for rule in RULES)) + ("healthy",)

"""Rules about what goes into the model and what is asked of its output."""

from collections.abc import Iterator

import numpy as np

from fdl.doctor.chart import Chart
from fdl.doctor.finding import Course, Finding

# Inputs of unit size are what initialisers assume (LeCun et al. 1998, section 4.3). doctor_cases: the largest feature of
# healthy inputs has an rms of 0.8, of unscaled ones (pixels to 255, an offset of 100) 100 and more.
LARGE_INPUT = 10.0
SMALL_INPUT = 1e-2
# The share of outputs that are probabilities: by chance a row of logits lies in [0, 1] and sums to 1 +- 0.01 next to never.
PROBABILITIES = 0.99
ENOUGH = 16  # examples that say whether something never changes: two alternatives look constant with probability 2^-15
CONSTANT_LABELS = 0.999
LEAK = 1e-10  # of the squared error: the rounding of float32 is below 1e-13

_NORMALIZING = ("batch_norm", "layer_norm", "instance_norm", "group_norm", "rms_norm", "whiten", "embedding")


def loss_expects_logits(course: Course) -> Iterator[Finding]:
    first = course.first
    if first.takes_logits is None or np.isnan(first.outside_unit) or _broken_before(first):
        return
    end = first.names[-1]
    if first.takes_logits and (
        first.unit_rows >= PROBABILITIES or (first.kinds[-1] == "sigmoid" and first.outside_unit == 0)
    ):
        share = first.unit_rows if first.unit_rows >= PROBABILITIES else 1 - first.outside_unit
        evidence = (
            f"{share:.0%} of the outputs are probabilities, and {first.loss_name} makes probabilities of them again"
        )
        yield Finding("loss_expects_logits", end, "error", evidence, f"leave {end} out: the loss takes logits")
    elif first.takes_logits is False and first.outside_unit > 0:
        evidence = (
            f"{first.outside_unit:.0%} of the outputs are outside [0, 1], and {first.loss_name} takes probabilities"
        )
        remedy = "use the loss of logits (from_logits=True, softmax_cross_entropy_with_integer_labels, ...), or end in softmax()"
        yield Finding("loss_expects_logits", end, "error", evidence, remedy)


def _broken_before(chart: Chart) -> bool:
    """Whether the outputs are not finite."""
    return chart.born.partition(" ")[0] in ("input", "parameter", "forward")


def input_not_scaled(course: Course) -> Iterator[Finding]:
    first = course.first
    if first.kinds[0] in _NORMALIZING or not np.isfinite(first.feature_rms):
        return
    remedy = "standardize x: subtract each feature's mean over the training data, divide by its deviation"
    if first.feature_rms > LARGE_INPUT:
        severity = "error" if first.feature_rms > 4 * LARGE_INPUT else "warning"
        evidence = (
            f"feature {int(first.feature)} of x has an rms of {first.feature_rms:.3g}, all of x {first.input_rms:.3g}"
        )
        yield Finding("input_not_scaled", "input", severity, evidence, remedy)
    elif first.feature_rms < SMALL_INPUT:  # of the largest: one-hot rows have few entries, and these are 1
        evidence = f"x has an rms of {first.input_rms:.3g}, its largest feature {first.feature_rms:.3g}"
        yield Finding("input_not_scaled", "input", "error", evidence, remedy)


def constant_feature(course: Course) -> Iterator[Finding]:
    """Blank features, such as the border of a picture, are left alone: they cost nothing and mislead nobody."""
    if course.examples < ENOUGH or any(chart.constant_features == 0 for chart in course.charts):
        return
    number = int(min(chart.constant_features for chart in course.charts))
    which = int(course.last.constant_feature)
    evidence = f"{number} of {course.last.features} features have one value in all {course.examples:.0f} examples, feature {which} first"
    yield Finding(
        "constant_feature",
        "input",
        "warning",
        evidence,
        "a constant feature is a second bias: drop it, or find what stuck",
    )


def labels_constant(course: Course) -> Iterator[Finding]:
    shares = [chart.label_share for chart in course.charts]
    if course.examples >= ENOUGH and all(share >= CONSTANT_LABELS for share in shares):
        evidence = f"all {course.examples:.0f} targets are the same"
        yield Finding("labels_shuffled_or_constant", "target", "error", evidence, "look at how the targets are read")


def example_leak(course: Course) -> Iterator[Finding]:
    shares = np.nanmax(np.stack([np.nan_to_num(chart.leak) for chart in course.charts]), axis=0)
    for name, kind, share in zip(course.last.names, course.last.kinds, shares, strict=True):
        if share <= LEAK:
            continue
        evidence = f"{share:.1%} of the squared error of one example arrives at other examples"
        if name in course.last.couples:
            yield Finding("example_leak", name, "note", f"{evidence}, as {kind} means it to", "")
        else:
            remedy = "examples must not see each other: look for an operation over axis 0"
            yield Finding("example_leak", name, "error", evidence, remedy)

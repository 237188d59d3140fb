"""Rules about how the training goes: steps, noise, batch statistics, validation."""

from collections.abc import Iterator

import numpy as np

from fdl.doctor.finding import Course, Finding
from fdl.layers.activations import ACTIVATIONS

# The loss at the start against chance. doctor_cases: healthy starts have 0.98 to 1.2 times, output weights 20 times too large 3.7.
BAD_START = 2.0
BAD_START_OF_SQUARES = 5.0  # random outputs of unit variance add their own square to the target's variance
# Update to weight per step: 1e-3 is usual (Karpathy). doctor_cases, half of the weights at their liveliest: healthy trainings
# 0.013 to 0.058, rates that are too high above 3; the most mobile weight: healthy above 4e-3, a rate 10,000 times too low 1e-7.
JUMPS = 0.1
CRAWLS = 1e-5
NO_PROGRESS = 0.97  # of the loss at the start is left
WORSE = 1.5  # times the loss at the start
# The variance of a mean of m entries is estimated with a relative error of sqrt(2 / (m - 1)): half of itself at m = 9.
FEW = 9
# The loss of the model in use against that of the batch, and their difference against chance. doctor_cases: healthy trainings
# below 1.4, statistics that are not carried 2.8 to 4.7.
GAP = 2.0
GAP_OF_CHANCE = 0.05
# N ||G||^2 / noise is 1 by chance, on average; of one batch it varies, so that it only speaks together with a loss that does
# not fall. doctor_cases: shuffled labels 1.3, noisy ones 0.9, and healthy trainings that are nearly done 0.8 to 1.4.
CHANCE_SIGNAL = 1.7
SMALL_BATCH = 12
AT_CHANCE = (
    0.95  # of the loss that chance predicts. doctor_cases: shuffled labels 0.98, the slowest healthy training 0.9
)
UNLEARNED = 0.97  # of the loss that chance predicts
# The validation loss against its lowest, and the training loss against the validation loss.
OVERFIT = 1.1
BY_HEART = 0.2


def learning_rate_too_high(course: Course) -> Iterator[Finding]:
    start, jump = course.losses[0], course.largest_jump()
    if not course.trained or not np.isfinite(start):
        return
    later = course.losses[1:]
    end = later[-1]
    ceiling = np.nan_to_num(course.last.chance_loss, nan=start)
    diverged = not np.isfinite(end) and (
        jump > JUMPS or np.nanmax(np.append(later[np.isfinite(later)], 0)) > WORSE * start
    )
    no_better = np.isfinite(end) and (end > WORSE * start or (jump > JUMPS and end > AT_CHANCE * min(start, ceiling)))
    if diverged or no_better:
        moves = "" if np.isnan(jump) else f", and weights move by up to {jump:.2g} of themselves per step"
        evidence = f"the loss goes from {start:.3g} to {end:.3g}, at its highest {np.nanmax(course.losses):.3g}{moves}"
        remedy = "divide the learning rate by 10, warm up, or clip the gradient"
        yield Finding("learning_rate_too_high", "", "error", evidence, remedy)


def learning_rate_too_low(course: Course) -> Iterator[Finding]:
    jump = course.largest_update()
    if not course.trained or np.isnan(jump):
        return
    start, end = course.losses[0], course.losses[-1]
    if 0 < jump < CRAWLS and end > NO_PROGRESS * start:
        evidence = f"weights move by {jump:.2g} of themselves per step, and the loss goes from {start:.4g} to {end:.4g}"
        yield Finding(
            "learning_rate_too_low", "", "error", evidence, f"multiply the learning rate by {1e-3 / jump:.0e}"
        )


def frozen_layer(course: Course) -> Iterator[Finding]:
    """Its gradient, or its update, is exactly 0 in every chart, though an error reaches it and other layers move; or a layer
    without weights hands nothing on of the errors that reach it."""
    charts = course.finite
    if not charts:
        return
    for place, (name, kind) in enumerate(zip(course.first.names, course.first.kinds, strict=True)):
        plain = kind not in ACTIVATIONS and not any(owner.startswith(f"{name}/") for owner in course.first.parameters)
        if plain and all(chart.error[place] > 0 and chart.growth[place] == 0 for chart in charts):
            evidence = f"an error of {charts[-1].error[place]:.2g} arrives at {name} and none leaves it: what is in front does not learn"
            yield Finding(
                "frozen_layer", name, "error", evidence, "look for stop_gradient, or a backward that returns zeros"
            )
    moving = [at for at in course.weights if any(chart.gradient[at] > 0 and chart.update[at] != 0 for chart in charts)]
    for at in course.weights:
        name = course.layer_of(at)
        if name not in course.last.names:
            continue
        place = course.last.names.index(name)
        reached = all(chart.error[place] > 0 and chart.output_rms[place] > 0 for chart in charts)
        if not reached or at in moving or not moving:
            continue
        if all(chart.gradient[at] == 0 for chart in charts):
            what, remedy = "its gradient is 0", "look for stop_gradient, or a backward that returns zeros"
        else:
            gradient = charts[-1].gradient[at]
            what, remedy = f"its gradient is {gradient:.2g} and its update 0", "look at the optimizer's mask"
        evidence = (
            f"{course.first.parameters[at]} does not move: an error of {charts[-1].error[place]:.2g} arrives, {what}"
        )
        yield Finding("frozen_layer", name, "error", evidence, remedy)


def bad_initial_loss(course: Course) -> Iterator[Finding]:
    first = course.first
    bound = BAD_START_OF_SQUARES if first.loss_name == "mean_squared_error" else BAD_START
    if not course.at_start or not first.loss > bound * first.chance_loss:
        return
    end, size = first.names[-1], float(first.output_rms[-1])
    evidence = f"the loss starts at {first.loss:.3g}, chance is {first.chance_loss:.3g}: the outputs (rms {size:.3g}) "
    remedy = f"start {end} with smaller weights (normal(0.01), or 0)"
    if first.loss_name != "mean_squared_error":
        evidence += "are sure of themselves before they know anything"
    elif size**2 < first.loss / 2:
        evidence += "are far from where the targets are"
        remedy = "standardize the target: subtract its mean over the training data, divide by its deviation"
    else:
        evidence += "vary more than the targets"
        remedy += ", or standardize the target"
    yield Finding("bad_initial_loss", end, "warning", evidence, remedy)


def batch_norm_small_batch(course: Course) -> Iterator[Finding]:
    entries = course.median("statistics_of")  # the last batch of an epoch may be a partial one
    places = [place for place, n in enumerate(entries) if n < FEW]
    if places:
        few = entries[places[0]]
        off = np.sqrt(2 / max(few - 1, 1))
        evidence = f"its statistics are of {few:.0f} entries: a variance of so few is off by {off:.0%} of itself"
        remedy = "larger batches; or layer_norm, group_norm, which need no batch"
        yield Finding("batch_norm_small_batch", course.last.names[places[0]], "error", evidence, remedy)


def _lost_in_use(course: Course) -> bool:
    """Whether all that was learned is lost with the running statistics: the batch itself is at chance again."""
    last = course.last
    return bool(last.eval_loss > UNLEARNED * last.chance_loss and last.loss < AT_CHANCE * last.chance_loss)


def batch_norm_train_eval_gap(course: Course) -> Iterator[Finding]:
    """Not before training, when the running statistics have seen nothing."""
    later = [chart for chart in course.finite if chart.step > 0] or course.finite[1:]
    if not later:
        return
    last, chance = later[-1], np.nan_to_num(later[-1].chance_loss, nan=float(later[-1].loss))
    ratio = float(np.median([chart.eval_loss / chart.loss for chart in later]))
    gap = float(np.median([chart.eval_loss - chart.loss for chart in later]))
    lost = _lost_in_use(course)
    if lost or (ratio > GAP and gap > GAP_OF_CHANCE * chance):
        place = int(np.nanargmax(last.drift))
        evidence = (
            f"the same batch has a loss of {last.loss:.3g} by its own statistics and {last.eval_loss:.3g} by the running ones, which "
            f"are {last.drift[place]:.2g} deviations off"
        )
        remedy = (
            "carry the state from step to step, lower the momentum, or batch_norm.population_statistics after training"
        )
        yield Finding("batch_norm_train_eval_gap", last.names[place], "error", evidence, remedy)


def _at_chance(course: Course) -> bool:
    """Whether the training ends where chance would be, though its weights moved."""
    chance = float(course.last.chance_loss)
    if not course.trained or not np.isfinite(course.losses[-1]):
        return False
    late = float(np.mean(course.losses[-max(1, len(course.losses) // 2) :]))
    return late > AT_CHANCE * chance and course.largest_update() > 10 * CRAWLS


def labels_shuffled(course: Course) -> Iterator[Finding]:
    signal, chance = course.signal_to_noise(), float(course.last.chance_loss)
    remedy = "look at whether x and target are in the same order"
    losses, valid = course.curve("loss"), course.curve("valid_loss")
    by_heart = len(valid) > 2 and valid.min() > UNLEARNED * chance and losses[-1] < AT_CHANCE * chance
    if by_heart and not _lost_in_use(course):
        evidence = (
            f"the training loss falls to {losses[-1]:.3g}, the validation loss is never below {valid.min():.3g} (chance: "
            f"{chance:.3g}): the examples are learned by heart"
        )
        yield Finding("labels_shuffled_or_constant", "target", "error", evidence, remedy)
    elif _at_chance(course) and signal < CHANCE_SIGNAL and course.last.examples >= SMALL_BATCH:
        evidence = (
            f"the loss stays at {course.losses[-1]:.3g} (chance: {chance:.3g}) though weights move, and the gradient of "
            f"{course.last.examples:.0f} examples is {signal:.2g} times what chance makes of them"
        )
        yield Finding("labels_shuffled_or_constant", "target", "error", evidence, remedy)


def gradient_noise(course: Course) -> Iterator[Finding]:
    signal, n = course.signal_to_noise(), float(course.last.examples)
    chance = float(course.last.chance_loss)
    if not (course.trained and n < SMALL_BATCH and signal < CHANCE_SIGNAL):
        return
    if not np.median(course.losses) > 0.5 * chance:
        return
    evidence = f"the mean gradient of {n:.0f} examples is {signal:.2g} times what chance alone makes of them"
    yield Finding(
        "gradient_noise", "", "warning", evidence, "larger batches, a smaller learning rate, or averaged parameters"
    )


def overfit(course: Course) -> Iterator[Finding]:
    losses, valid = course.curve("loss"), course.curve("valid_loss")
    if len(losses) == 0 or len(valid) < 3:
        return
    best = int(np.argmin(valid))
    if valid[-1] > OVERFIT * valid[best] and losses[-1] < BY_HEART * valid[-1]:
        evidence = (
            f"the validation loss rises from {valid[best]:.3g} (epoch {best + 1}) to {valid[-1]:.3g}, the training loss falls to "
            f"{losses[-1]:.3g}"
        )
        yield Finding("overfit", "", "warning", evidence, f"stop at epoch {best + 1}; more data, weight decay, dropout")

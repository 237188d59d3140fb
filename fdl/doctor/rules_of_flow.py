"""Rules about values on their way forward and errors on their way back."""

from collections.abc import Iterator

import numpy as np

from fdl.doctor.finding import Course, Finding, some
from fdl.doctor.signals import two_sided
from fdl.layers.activations import ACTIVATIONS

# The error at the first weights against that at the last. A slope of 1/4 per layer (sigmoid, at its steepest) makes 1e-3 in five
# layers. doctor_cases: healthy trainings stay in [0.6, 5].
VANISHED = 1e-3
EXPLODED = 1e3
# Units of a layer that learn nothing. doctor_cases: healthy rectified layers have up to 0.3 of them over five batches.
MANY_DEAD = 0.4
ALL_DEAD = 0.8
# Entries of a sigmoid or tanh with less than 1 % of its slope. doctor_cases: healthy ones have 0.00.
SATURATED = 0.5
ALIKE = 1e-5  # the relative rounding of float32 in sums of some hundred terms


def zero_init_symmetry(course: Course) -> Iterator[Finding]:
    last = course.last
    alike = [at for at in course.weights if last.weight_spread[at] < ALIKE and last.gradient_spread[at] < ALIKE]
    if not alike:
        return
    at = alike[0]
    evidence = (
        f"all units of {course.layer_of(at)} have the same weights (norm {last.weight[at]:.3g}) and the same gradients: they stay "
        "one unit"
    )
    remedy = "draw the weights at random: he_normal for relu, glorot_uniform for tanh and sigmoid; zero is for biases"
    yield Finding("zero_init_symmetry", course.layer_of(at), "error", evidence, remedy)


def non_finite(course: Course) -> Iterator[Finding]:
    for chart in course.charts:
        if int(chart.first_not_finite) == 0:
            if chart.label_outside > 0 and chart.takes_logits is not None:
                yield from _outside(chart)
                return
            continue
        if chart.label_outside > 0:
            yield from _outside(chart)
            return
        direction, _, name = chart.born.partition(" ")
        when = "" if chart.step < 0 else f" in step {int(chart.step)}"
        evidence = f"the first value that is not finite was born in {chart.born}{when}; all before it are finite"
        yield Finding("non_finite", name or direction, "error", evidence, _REMEDIES[direction])
        return


_REMEDIES = {
    "input": "clean x: it holds NaN or infinity",
    "target": "clean the target: it holds NaN or infinity",
    "parameter": "an update made it so: lower the learning rate, or clip the gradient",
    "forward": "look at this layer's formula: a logarithm or a root of 0, a division by 0, an exponential above 88",
    "loss": "look at what the loss is given: a logarithm of 0, a label that is no class",
    "backward": "the layer's value is finite and its slope is not: a root or a norm at 0, a where over both branches",
    "gradient": "the layer's parameter gradient overflows: scale its input, or clip",
}


def _outside(chart) -> Iterator[Finding]:
    evidence = f"{int(chart.label_outside)} of {chart.examples:.0f} labels are outside the classes of the output"
    yield Finding(
        "non_finite", "target", "error", evidence, "make the last layer as wide as there are classes, labels from 0"
    )


def dead_weights(course: Course) -> Iterator[Finding]:
    """With one chart, only where the optimizer does not move the weights either: from 0 they may yet go."""
    for name, behind in course.last.outgoing:
        dead = course.always(name, "every outgoing weight 0")
        if not dead or (len(course.charts) < 2 and not _still(course, behind)):
            continue
        weights = ", ".join(f"{other}/w[{dead[0]}, :]" for other in behind)
        evidence = (
            f"{len(dead)} of {len(course.last.units[name])} units have only outgoing weights of 0 (units {some(dead)}), so that "
            f"no error reaches them; unit {dead[0]} is blocked by {weights}"
        )
        remedy = "draw these weights at random, or take the units out"
        yield Finding("dead_weights", name, "warning" if len(dead) == 1 else "error", evidence, remedy)


def _still(course: Course, layers: tuple[str, ...]) -> bool:
    places = [at for at in course.weights if course.layer_of(at) in layers]
    return bool(places) and all(course.last.update[at] == 0 for at in places)


def dead_units(course: Course) -> Iterator[Finding]:
    for name in course.last.units:
        dead = course.always(name, "never active")
        total = len(course.last.units[name])
        entries = course.examples * course.last.saturated[course.last.names.index(name)]
        if len(dead) < MANY_DEAD * total or entries < 10:
            continue
        place = course.last.names.index(name)
        middle = course.last.input_percentiles[place][3]
        evidence = (
            f"{len(dead)} of {total} units are never active in {course.examples:.0f} examples (units {some(dead)}); the median "
            f"pre-activation is {middle:.3g}"
        )
        remedy = "biases at 0, He initialisation, a smaller learning rate; or leaky_relu, gelu"
        yield Finding("dead_units", name, "error" if len(dead) >= ALL_DEAD * total else "warning", evidence, remedy)


def saturated(course: Course) -> Iterator[Finding]:
    shares = course.median("saturated")
    worst = None
    for place, (name, kind) in enumerate(zip(course.last.names, course.last.kinds, strict=True)):
        if kind not in ACTIVATIONS or not two_sided(ACTIVATIONS[kind].facts()) or not shares[place] > SATURATED:
            continue
        if worst is None or shares[place] > shares[worst]:
            worst = place
            found = (name, kind)
    if worst is None:
        return
    low, high = course.last.input_percentiles[worst][[1, 5]]
    evidence = (
        f"{shares[worst]:.0%} of the {found[1]}s have less than 1 % of their slope; nine in ten of their pre-activations lie in "
        f"[{low:.3g}, {high:.3g}]"
    )
    remedy = "smaller weights (Glorot initialisation), batch_norm() in front, or scaled inputs"
    yield Finding("saturated", found[0], "error" if shares[worst] > 0.8 else "warning", evidence, remedy)


def _profile(course: Course) -> tuple[np.ndarray, list[str]]:
    """The error at the output of every layer with weights, from the first to the last: (sizes, names)."""
    return course.median("error")[course.weighted], [course.last.names[place] for place in course.weighted]


def vanishing(course: Course) -> Iterator[Finding]:
    errors, names = _profile(course)
    if len(errors) < 2 or not np.all(np.isfinite(errors)) or errors[-1] == 0:
        return
    at = int(np.argmin(errors[:-1]))
    ratio = errors[at] / errors[-1]
    if ratio == 0 and any(
        len(course.always(name, "never active")) == len(units) for name, units in course.last.units.items()
    ):
        return  # cut off, not shrunk: `dead_units` says by which layer
    if ratio < VANISHED:
        per_layer = f", a factor of {ratio ** (1 / (len(errors) - 1 - at)):.2g} per layer" if ratio > 0 else ""
        evidence = (
            f"the error shrinks from {errors[-1]:.2g} at {names[-1]} to {errors[at]:.2g} at {names[at]}{per_layer}"
        )
        remedy = "relu or gelu with He initialisation, batch_norm() before the activations, or residual blocks"
        yield Finding("vanishing", names[at], "error", evidence, remedy)


def exploding_at_start(course: Course) -> Iterator[Finding]:
    """Before the first step: no learning rate did that."""
    if course.at_start and course.finite and course.finite[0] is course.first:
        yield from _exploding(Course([course.first], None))


def exploding(course: Course) -> Iterator[Finding]:
    if not any(True for _ in exploding_at_start(course)):
        yield from _exploding(course)


def _exploding(course: Course) -> Iterator[Finding]:
    errors, names = _profile(course)
    growth = course.median("growth")
    remedy = "smaller weights (Glorot, He, orthogonal), normalization, residual blocks; clip the gradient"
    finite = np.isfinite(errors)
    if len(errors) > 1 and finite.all() and errors[-1] > 0 and errors.max() / errors[-1] > EXPLODED:
        at = int(np.argmax(errors))
        jump = course.largest_update()
        jumps = f"; weights move by {jump:.2g} of themselves per step" if jump > 0.1 else ""
        evidence = f"the error grows from {errors[-1]:.2g} at {names[-1]} to {errors[at]:.2g} at {names[at]}{jumps}"
        yield Finding("exploding", names[at], "error", evidence, remedy)
        return
    places = [place for place in course.weighted if growth[place] > EXPLODED]
    if places:
        name = course.last.names[places[0]]
        yield Finding(
            "exploding", name, "error", f"{name} makes the error {growth[places[0]]:.2g} times as large", remedy
        )

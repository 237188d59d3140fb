"""`diagnose`: charts in, ranked findings out."""

from typing import Any

from fdl.doctor.chart import Chart, unstacked
from fdl.doctor.counterfactual import Case, with_effects
from fdl.doctor.finding import SEVERITIES, Course, Finding
from fdl.doctor.rules import RULES
from fdl.errors import refuse_type, shown


def diagnose(
    charts: Any, history: dict[str, Any] | None = None, *, counterfactual: Case | bool | None = None
) -> list[Finding]:
    """The findings, the most likely cause first; `healthy` alone, or before notes, if nothing is wrong.

    charts: one of `examine`, a list in the order of time, or a stacked one from `scan`. history: of `fit`. With one chart, what
    shows only over time is not judged: learning rates, overfitting, shuffled labels.
    counterfactual: a `Case`, or True for the one that `examine` was given; short trainings with other initialisations, rates,
    activations and normalization then say in numbers what each remedy would do (`Finding.effects`).

    Ranking: what another finding explains (a rate too high kills units) comes after it; then by severity; then causes first.

        >>> model = fdl.serial(fdl.dense(2), fdl.softmax())
        >>> loss = fdl.losses.softmax_cross_entropy_with_integer_labels  # which takes the logits
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> x, y = jnp.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]), jnp.int32([0, 1, 0, 1])
        >>> findings = fdl.doctor.diagnose(fdl.doctor.examine(model, loss, params, state, x, y))
        >>> [finding.code for finding in findings]
        ['loss_expects_logits']
    """
    seen = unstacked("doctor.diagnose", charts)
    if not (history is None or isinstance(history, dict)):
        refuse_type(
            "doctor.diagnose", f"history is {shown(history)}, wanted Result.history: {{name: one number per epoch}}"
        )
    case = _case(seen[0], counterfactual)
    course = Course(seen, history)
    ranked = rank([(place, finding) for place, rule in enumerate(RULES) for finding in rule.find(course)])
    if all(finding.severity == "note" for finding in ranked):
        ranked = [_healthy(course), *ranked]
    return ranked if case is None else with_effects(ranked, case)


def _case(chart: Chart, counterfactual: Case | bool | None) -> Case | None:
    case = chart.case if counterfactual is True else counterfactual or None
    if isinstance(case, Case) or not counterfactual:
        return case
    refuse_type(
        "doctor.diagnose",
        f"counterfactual is {shown(counterfactual)} and the chart has no case, wanted what a training needs: "
        "fdl.doctor.Case(model, loss, optax.sgd, 0.1, (x, target)), here or as examine(..., case=)",
    )


def rank(found: list[tuple[int, Finding]]) -> list[Finding]:
    """(place of the rule, finding) in the order of `diagnose`."""
    causes = [(place, finding) for place, finding in found if finding.severity != "note"]

    def key(one: tuple[int, Finding]) -> tuple:
        place, finding = one
        symptom = any(finding.code in RULES[before].explains for before, _ in causes if before < place)
        return finding.severity == "note", symptom, SEVERITIES.index(finding.severity), place

    return [finding for _, finding in sorted(found, key=key)]


def _healthy(course: Course) -> Finding:
    start, end = course.losses[0], course.losses[-1]
    moved = f"the loss goes from {start:.3g} to {end:.3g}; " if course.trained else f"the loss is {end:.3g}; "
    errors = course.median("error")[course.weighted]
    flow = (
        f"errors between {errors.min():.2g} and {errors.max():.2g} in {len(errors)} layers with weights"
        if len(errors)
        else ""
    )
    return Finding("healthy", "", "none", moved + flow, "")

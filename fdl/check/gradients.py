"""Is a backward pass right? `gradients` answers with a report, `assert_gradients` with an exception."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check.evaluate import native_precision
from fdl.check.modes import MODES
from fdl.check.primal import primal_of
from fdl.check.report import Report
from fdl.check.subject import Differentiated, argument_names, layout_of, signed
from fdl.check.trial import Trial, report_of
from fdl.errors import is_array, refuse, refuse_type, require_key, shown
from fdl.layer import Layer
from fdl.op import Op


class GradientError(AssertionError):
    """A gradient that was not shown to be right; `report` says why.

    >>> wrong = fdl.Op(lambda x: x**2, lambda x: (x * x, x), lambda x, dy: (-2 * x * dy,), name="square")
    >>> try:
    ...     fdl.check.assert_gradients(wrong, jnp.float32([3]), modes="quick")
    ... except fdl.check.GradientError as error:
    ...     print(error.report.verdict)
    wrong
    """

    def __init__(self, report: Report):
        super().__init__(str(report))
        self.report = report


def gradients(
    candidate: Callable,
    *args: Any,
    reference: Callable | None = None,
    options: Mapping[str, Any] | None = None,
    modes: str = "default",
    key: Any = 0,
) -> Report:
    """Compares the gradients of `candidate` at `args` with those of `reference`, entry by entry, without a tolerance to set.

    candidate: an Op, or any function that JAX can differentiate (what its custom_vjp returns is what is judged).
    args: arrays, or pytrees of arrays, modules too. Passed on and listed: integers, booleans, keys, None, empty arrays, and
    leaves that are no arrays, such as the activation or the rate (a Python float) that a module holds.
    reference: a plain function of the same arguments. For an Op, its equation; with none, complex steps or central differences
    decide, and where the candidate has a custom_vjp, JAX's own derivative of what it computes.
    options: keyword options, passed to both.
    modes: "quick" (eager, or jit where that is many operations; one cotangent), "default" (eager, jit, vmap; several cotangents)
    or "all" (the table in `fdl/check/modes.py`: scan, checkpoint, shard_map, other dtypes, second derivatives, ...).
    key: an int or a PRNG key, for the random cotangents.

    The verdict is "right", "wrong" or "undecided": a mode could compare nothing, a gradient is lost in rounding, or the
    reference has no second derivatives where the candidate has. What has nothing to be judged by is named beside "right"
    (`Report.not_judged`). A mode in which the candidate raises is a failure of that mode: in "all" a custom_vjp that cannot be
    differentiated twice fails, as its reference can; "default" does not ask. At a kink any slope between those on either side
    is accepted.
    Errors: InputError and InputTypeError for what cannot be checked, and whatever the reference raises.

        >>> fdl.check.gradients(fdl.ops.tanh, jnp.float32([0.5, -2]), modes="quick").verdict
        'right'
    """
    where = "check.gradients"
    _require_functions(where, candidate, reference)
    require_modes(where, modes)
    if not args:
        refuse(where, "got no arguments; pass them after the candidate: gradients(op, x, w)")
    settings, arrays = _options(where, _bound_arrays(candidate), options)
    layout = layout_of(where, names_of(candidate, reference, args), args)
    if not layout.active:
        refuse(where, f"nothing to differentiate in {', '.join(layout.not_differentiated)}; pass a floating array")
    active, leaves = layout.split(args)
    judged = Differentiated(candidate, layout, settings)
    plain = reference.equation if isinstance(reference, Op) else reference
    if plain is None and isinstance(candidate, Op):
        plain = candidate.equation
    fixed, seed = (leaves, arrays), seed_of(where, key)
    tried = lambda against, numerically: Trial(
        against, {"": judged}, layout, active, fixed, modes=modes, seed=seed, numerically=numerically
    )
    if plain is not None:
        trial = tried(Differentiated(plain, layout, settings), False)
        return report_of(_name(candidate), _name_of_reference(candidate, reference), [trial])
    primal = primal_of(judged, native_precision(active), active, fixed)
    trial = tried(primal or judged, True)
    if trial.refuted:
        trial = tried(judged, True)
        trial.notes.append(f"JAX's own derivative of the computation is not what {trial.evidence} find: left out")
        primal = None
    against = trial.evidence if primal is None else f"JAX's own derivative of it and {trial.evidence}"
    return report_of(_name(candidate), against, [trial])


def assert_gradients(candidate: Callable, *args: Any, **settings: Any) -> Report:
    """`gradients`, but anything other than "right" raises GradientError. Returns the report.

    >>> fdl.check.assert_gradients(fdl.ops.tanh, jnp.float32([0.5, -2]), modes="quick").ok
    True
    """
    report = gradients(candidate, *args, **settings)
    if not report.ok:
        raise GradientError(report)
    return report


def names_of(candidate: Callable, reference: Callable | None, args: tuple) -> tuple[str, ...]:
    """What the arguments are called in reports."""
    return argument_names(signed(candidate), len(args), None if reference is None else signed(reference))


def require_modes(where: str, modes: Any) -> None:
    if not isinstance(modes, str) or modes not in MODES:
        refuse(where, f"modes is {modes!r}, wanted one of {', '.join(map(repr, MODES))}")


def seed_of(where: str, key: Any) -> list[int]:
    """The seed of numpy's generator, from an int or a PRNG key."""
    if type(key) is int:
        if key < 0:
            refuse(where, f"key is {key}, wanted an int from 0 on or a PRNG key")
        return [key]
    require_key(where, key, "pass an int, or jax.random.key(0)")
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return [int(word) for word in np.asarray(data).ravel()]


def _require_functions(where: str, candidate: Any, reference: Any) -> None:
    if isinstance(candidate, Layer):
        refuse_type(where, f"candidate is the layer {candidate!r}; fdl.check.layer(model, x) checks a whole layer")
    if not callable(candidate):
        refuse_type(where, f"candidate is {shown(candidate)}, wanted an Op or a function")
    if reference is not None and not callable(reference):
        refuse_type(where, f"reference is {shown(reference)}, wanted a plain function of the same arguments, or None")


def _bound_arrays(candidate: Any) -> dict[str, Any]:
    return {n: kept.value for n, kept in candidate.options if is_array(kept.value)} if isinstance(candidate, Op) else {}


def _options(where: str, bound: dict[str, Any], options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(static options, array options). Arrays are cast with the arguments, so that float64 reaches all of a computation."""
    if options is not None and not isinstance(options, Mapping):
        refuse_type(where, f"options is {shown(options)}, wanted a dict of keyword options such as {{'axis': -1}}")
    options = bound | dict(options or {})
    leaves = {name: jax.tree.leaves(value) for name, value in options.items()}
    arrays = {name: value for name, value in options.items() if leaves[name] and all(map(is_array, leaves[name]))}
    return {name: value for name, value in options.items() if name not in arrays}, arrays


def _name(function: Any) -> str:
    if isinstance(function, Op):
        return function.name
    name = getattr(function, "__name__", type(function).__name__)
    return "the candidate" if name == "<lambda>" else name


def _name_of_reference(candidate: Any, reference: Any) -> str:
    if reference is None:
        return "its equation"
    if isinstance(reference, Op):
        return f"the equation of {reference.name}"
    name = getattr(reference, "__name__", type(reference).__name__)
    return "the reference" if name == "<lambda>" else f"the reference {name}"

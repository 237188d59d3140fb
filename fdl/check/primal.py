"""The computation of a function without the derivatives that were written for it: what JAX's own rules make of it.

A custom_vjp brings its reference along. Its primal is a program that JAX can differentiate, so a backward written by hand is
held against that entry by entry, to rounding, where a step would see a fault in the sum over a direction alone. Rules of
JAX's own functions (relu, softmax, logsumexp) stay. There is no such reference where JAX has no derivative either: of a
`while` whose length hangs on numbers, of a kernel, of a callback.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import source_info_util

from fdl.check.evaluate import Precision
from fdl.check.interpreter import Interpreter, call_of, opened
from fdl.check.paths import _JAX
from fdl.check.subject import Differentiated, Result, is_constant, signed, without_constants

_ONE_BY_ONE = "custom_derivatives.py"
_RULES = {"custom_vjp_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


def primal_of(candidate: Differentiated, precision: Precision, active: list, fixed: Any) -> Differentiated | None:
    """The candidate's computation as a reference; None if it has no derivatives of its own, or JAX has none of it."""
    with precision.scope():
        try:
            if not _has_rules(_traced(candidate, active, fixed)):
                return None
            primal = plain_of(candidate, precision, active, fixed)
            jax.eval_shape(lambda active: _pulled(primal, active, fixed), active)
        except Exception:  # it cannot be traced, or not be differentiated; what is said about that, the candidate says
            return None
    return primal


def plain_of(candidate: Differentiated, precision: Precision, active: list, fixed: Any) -> Differentiated:
    """The candidate without derivatives written by hand. Raises what tracing raises, and ValueError if some would stay."""
    with precision.scope():
        if not _has_rules(_traced(candidate, active, fixed)):
            return candidate
        plain = without_rules(candidate.function)
        primal = Differentiated(plain, candidate.layout, candidate.settings, candidate.with_aux)
        if _has_rules(_traced(primal, active, fixed)):
            raise ValueError("a derivative written by hand inside of a loop without an end")
    return primal


def _traced(subject: Differentiated, active: list, fixed: Any) -> Any:
    return jax.make_jaxpr(lambda active: subject.outputs(active, fixed)[0])(active)


def without_rules(function: Callable) -> Callable:
    """The function with JAX's own derivative in place of those that were written by hand."""

    @functools.wraps(signed(function))
    def plain(*args: Any, **options: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, options))
        place = [k for k, x in enumerate(leaves) if not is_constant(x)]

        def run(arrays: list) -> Any:
            given = dict(zip(place, arrays, strict=True))
            args, options = jax.tree.unflatten(structure, [given.get(k, x) for k, x in enumerate(leaves)])
            return without_constants(function(*args, **options))

        arrays = [leaves[k] for k in place]
        jaxpr, out = jax.make_jaxpr(run, return_shape=True)(arrays)
        return jax.tree.unflatten(jax.tree.structure(out), _Inlining().evaluate(jaxpr, (), arrays))

    return plain


class _Inlining(Interpreter):
    """Evaluates the primal in place of a hand-written rule. Every equation keeps the line that it came from."""

    def apply(self, equation: Any, path: tuple[int, ...], args: list) -> list:
        if _is_hand_written(equation):
            return self.evaluate(call_of(equation, _RULES), path, args)
        if equation.primitive.name == "cond" and _has_rules(equation.params["branches"]):
            inside = [
                lambda *args, branch=branch: self.evaluate(branch, path, args) for branch in equation.params["branches"]
            ]
            return jax.lax.switch(args[0], inside, *args[1:])
        with source_info_util.user_context(equation.source_info.traceback, name_stack=equation.source_info.name_stack):
            return super().apply(equation, path, args)


def _is_hand_written(equation: Any) -> bool:
    """Whether an equation has a derivative of its own that is not one of JAX's functions'."""
    inner = call_of(equation, _RULES)
    if inner is None or equation.primitive.name == "custom_vjp_call":
        return inner is not None
    file = _file_of(equation.params.get("jvp_jaxpr_fun"))
    # rules given one by one all come from one helper of JAX's
    return not (_file_of(opened(inner)[0]) if file.endswith(_ONE_BY_ONE) else file).startswith(_JAX)


def _file_of(traced: Any) -> str:
    """Where the function was written."""
    return str(getattr(getattr(traced, "debug_info", None), "func_filename", None) or "")


def _has_rules(jaxprs: Any) -> bool:
    """Whether a hand-written rule is anywhere in it."""
    for jaxpr in jax.tree.leaves(jaxprs, is_leaf=_is_jaxpr):
        for equation in opened(jaxpr)[0].eqns if _is_jaxpr(jaxpr) else ():
            if _is_hand_written(equation) or _has_rules(list(equation.params.values())):
                return True
    return False


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def _pulled(primal: Differentiated, active: list, fixed: Any) -> Result:
    w = [jnp.zeros(out.shape, out.dtype) for out in jax.eval_shape(lambda a: primal.outputs(a, fixed)[0], active)]
    return primal(active, fixed, w)

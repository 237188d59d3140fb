"""The complex step: the derivative of an analytic function without a difference.

    <w, f(x + i h v)> = <w, f(x)> + i h <v, dx> + O(h^2)

Whether a function is analytic is read from its jaxpr, traced at complex arguments: everything that they reach has to be an
operation with a complex derivative, applied where no number decides what is computed. So abs, max, sort and comparisons of
the arguments rule it out, and `where` with a mask that was given does not.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from fdl.check.evaluate import Point, Precision
from fdl.check.interpreter import CALLS, call_of, opened
from fdl.check.rounding import unit_roundoff
from fdl.check.subject import Differentiated

_H = 2.0**-60  # of the argument: its square is lost beside 1, and its powers do not underflow
_SAME = 1e3  # times the rounding error: the real part has to be the value
_ANALYTIC = frozenset(
    """add add_any sub mul div neg square integer_pow pow exp exp2 log log1p expm1 sin cos tan sinh cosh tanh asin acos atan
    asinh acosh atanh sqrt rsqrt logistic dot_general conv_general_dilated reduce_sum reduce_prod cumsum cumprod
    reduce_window_sum scatter-add scatter_add scatter scatter-mul scatter_mul gather dynamic_slice dynamic_update_slice slice
    pad concatenate reshape broadcast_in_dim transpose squeeze expand_dims rev copy copy_p name optimization_barrier
    stop_gradient""".split()
)
_INLINED = CALLS | {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "custom_vmap_call": "call"}


@dataclasses.dataclass(frozen=True, eq=False)
class ComplexStep:
    """<v, dx> of one argument leaf, by its place, for a direction v; nan if the real part is not the value."""

    run: Callable[[list], list]
    point: Point
    values: list[np.ndarray]
    scales: list[np.ndarray]

    def __call__(self, place: int, v: np.ndarray) -> float:
        active = [x.astype(np.complex128) for x in self.point.active]
        active[place] = active[place] + 1j * _H * v
        outs, total = self.run(active), 0.0
        for w, out, value, scale in zip(self.point.w, outs, self.values, self.scales, strict=False):
            allowed = _SAME * unit_roundoff(np.float64) * scale
            with np.errstate(all="ignore"):
                if not np.all(np.abs(out.real - value) <= allowed):
                    return float("nan")
            total += float(np.sum(w * out.imag)) / _H
        return total


def complex_step(
    candidate: Differentiated, precision: Precision, point: Point, values: list[np.ndarray], scales: list[np.ndarray]
) -> ComplexStep | None:
    """The complex step of a function at a point, with its values there and their rounding scales; None if not analytic."""
    if not precision.wide:
        return None
    with precision.scope(), jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of imaginary parts that are dropped: such a function is not analytic
        _, fixed, _ = precision.operands(point)
        outputs = lambda active: candidate.outputs(active, fixed)[0]
        active = [jnp.asarray(x.astype(np.complex128)) for x in point.active]
        try:
            jaxpr = jax.make_jaxpr(outputs)(active)
            if not _is_analytic(jaxpr, [True] * len(active))[0]:
                return None
            compiled = jax.jit(lambda active: jax.extend.core.jaxpr_as_fun(jaxpr)(*active))
            compiled(active)
        except Exception:  # it refuses complex numbers
            return None

    def run(active: list) -> list:
        with precision.scope():
            return [np.asarray(out) for out in compiled([jnp.asarray(x) for x in active])]

    return ComplexStep(run, point, values, scales)


def _is_analytic(jaxpr: Any, reached: list[bool]) -> tuple[bool, list[bool]]:
    """(whether everything the arguments reach is analytic, which results they reach)."""
    jaxpr, _ = opened(jaxpr)
    known = dict(zip(jaxpr.invars, reached, strict=True))

    def read(atom: Any) -> bool:
        return not hasattr(atom, "val") and known.get(atom, False)

    for equation in jaxpr.eqns:
        ins = [read(atom) for atom in equation.invars]
        outs = [False] * len(equation.outvars)
        if any(ins):
            analytic, outs = _through(equation, ins)
            if not analytic:
                return False, []
        known.update(zip(equation.outvars, outs, strict=True))
    return True, [read(atom) for atom in jaxpr.outvars]


def _through(equation: Any, ins: list[bool]) -> tuple[bool, list[bool]]:
    name, params = equation.primitive.name, equation.params
    everything = [True] * len(equation.outvars)
    if (inner := call_of(equation, _INLINED)) is not None:
        return _is_analytic(inner, ins)
    if name == "scan":
        # a carry may be reached at any step: all of it is taken to be
        return _is_analytic(params["jaxpr"], _all_floating(params["jaxpr"]))[0], everything
    if name == "while":
        condition, body = params["cond_jaxpr"], params["body_jaxpr"]
        decided_by = ins[: params["cond_nconsts"]] + [
            _floating(x) for x in opened(condition)[0].invars[params["cond_nconsts"] :]
        ]
        return not any(_reached(condition, decided_by)) and _is_analytic(body, _all_floating(body))[0], everything
    if name == "cond":
        return not ins[0] and all(_is_analytic(branch, ins[1:])[0] for branch in params["branches"]), everything
    if name == "select_n":
        return not ins[0], everything
    if name == "convert_element_type":
        return bool(jnp.issubdtype(params["new_dtype"], jnp.complexfloating)), everything
    return name in _ANALYTIC, everything


def _reached(jaxpr: Any, reached: list[bool]) -> list[bool]:
    """Which results the arguments reach, analytic or not."""
    jaxpr, _ = opened(jaxpr)
    known = dict(zip(jaxpr.invars, reached, strict=True))
    for equation in jaxpr.eqns:
        hit = any(not hasattr(atom, "val") and known.get(atom, False) for atom in equation.invars)
        known.update((v, hit) for v in equation.outvars)
    return [not hasattr(atom, "val") and known.get(atom, False) for atom in jaxpr.outvars]


def _all_floating(jaxpr: Any) -> list[bool]:
    return [_floating(v) for v in opened(jaxpr)[0].invars]


def _floating(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.complexfloating)

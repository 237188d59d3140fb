"""Functions that draw random numbers: the same for the same arguments, and the same in every precision?

What draws from NumPy, from a counter or in a callback returns something else in every call, and has no gradient to be held to.
A function that draws from a key returns the same in every call; but in float64 JAX draws other numbers than in float32, unless
the function says in which dtype, so that what comes out in one precision is no truth for the other.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from fdl.check.compare import largest
from fdl.check.evaluate import WIDE, Evaluation, Point, Precision
from fdl.check.interpreter import opened
from fdl.check.rounding import unit_roundoff
from fdl.check.subject import Subject

_CALLBACKS = ("pure_callback", "io_callback")
_DRAWS = ("random_bits", "threefry2x32")
_MORE_THAN_ORDER = 1e3  # units of roundoff, by which sums in another order do not differ


class Traces:
    """What subjects do at one point, in one precision or the other; traced once. Raises what tracing raises."""

    def __init__(self, point: Point):
        self.point = point
        self._steps: dict[tuple[Subject, Precision], list[tuple[str, Any]]] = {}

    def steps(self, subject: Subject, precision: Precision) -> list[tuple[str, Any]]:
        """Every constant and every equation, those inside of others too."""
        if (subject, precision) not in self._steps:
            self._steps[subject, precision] = _steps(_traced(subject, precision, self.point))
        return self._steps[subject, precision]

    def equations(self, subject: Subject, precision: Precision) -> int:
        """How many equations; 0 for a function that cannot be traced."""
        try:
            return len(self.steps(subject, precision))
        except Exception:
            return 0


def differs_when_repeated(subject: Subject, precision: Precision, traces: Traces) -> str:
    """What a subject returns differently in two calls with the same arguments; empty if nothing."""
    point = traces.point
    try:
        first, again = traces.steps(subject, precision), _steps(_traced(subject, precision, point))
        if _alike(first, again) and not any(name in _CALLBACKS for name, _ in first):
            return ""
    except Exception:  # a function that looks at numbers can be run, not traced
        pass
    run = Evaluation(subject, precision, compiled=False)
    try:
        first, second = run(point), run(point)
    except Exception:  # the modes say so
        return ""
    values = len(first.arrays) - len(point.active)
    for kind, pairs in (("values", slice(values)), ("gradients", slice(values, None))):
        triples = zip(first.arrays[pairs], second.arrays[pairs], first.dtypes[pairs], strict=False)
        if any(_apart(x, y, dtype) for x, y, dtype in triples):
            return kind
    return ""


def draws_by_precision(subject: Subject, native: Precision, traces: Traces) -> bool:
    """Whether a subject draws other random numbers in float64 than in the precision of its arguments."""
    try:
        narrow, wide = (
            [what for name, what in traces.steps(subject, precision) if name in _DRAWS] for precision in (native, WIDE)
        )
    except Exception:
        return False
    return narrow != wide


def _traced(subject: Subject, precision: Precision, point: Point) -> Any:
    with precision.scope():
        return jax.make_jaxpr(lambda *operands: subject(*operands)._replace(others=[]))(*precision.operands(point))


def _steps(jaxpr: Any) -> list[tuple[str, Any]]:
    """Every constant and every equation of a program: its name, and its literals or how many random bits it draws."""
    return list(_listed(jaxpr))


def _listed(jaxpr: Any) -> Iterator[tuple[str, Any]]:
    jaxpr, consts = opened(jaxpr)
    for const in consts:
        yield "constant", const
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in _DRAWS:
            yield name, [(out.aval.shape, str(out.aval.dtype)) for out in equation.outvars]
        else:
            yield name, [atom.val for atom in equation.invars if hasattr(atom, "val")]
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield from _listed(value)


def _alike(first: list[tuple[str, Any]], second: list[tuple[str, Any]]) -> bool:
    if [name for name, _ in first] != [name for name, _ in second]:
        return False
    return all(_same(x, y) for (_, x), (_, y) in zip(first, second, strict=True))


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, list):
        return len(x) == len(y) and all(map(_same, x, y))
    try:
        return np.array_equal(np.asarray(x).view(np.uint8), np.asarray(y).view(np.uint8))
    except (TypeError, ValueError):  # a key, a tuple, a dtype that has no bytes
        return str(x) == str(y)


def _apart(x: np.ndarray, y: np.ndarray, dtype: Any) -> bool:
    if x.shape != y.shape:
        return True
    size = largest(x)
    with np.errstate(all="ignore"):
        close = np.abs(x - y) <= _MORE_THAN_ORDER * unit_roundoff(dtype) * size
    return not np.all(close | (x == y) | (np.isnan(x) & np.isnan(y)))

"""Would a test notice? Faults planted in a hand-written backward, one at a time, and which of them a test kills.

    report = fdl.check.mutants(op, *args)                             # killed by fdl.check.gradients?
    report = fdl.check.mutants(op, *args, test=my_test)               # my_test(op) raises or returns False: killed
    report.score   report.survivors   print(report)

The backward is traced to a jaxpr, and of every equation in it, in inlined calls and loop bodies too, a result is

    dropped (0)    negated    scaled (times 0.9)    transposed (square matrices)    made of swapped operands (a - b, a / b)

A mutant whose cotangents are those of the original at the arguments and at perturbed ones, for several random cotangents in
float64, is equivalent there: the equation guards a case that these arguments do not reach, and no test with them could tell.
All mutants of a backward are one compiled program, which takes the number of the fault: nothing is compiled for a mutant.
Source: DeMillo, Lipton & Sayward 1978.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from fdl.check.evaluate import quick_to_compile
from fdl.check.gradients import gradients, seed_of
from fdl.check.interpreter import Interpreter, Place
from fdl.errors import refuse_type, shown
from fdl.op import Op

_SWAPPED = ("sub", "div", "pow", "atan2", "rem")
_SWAP = "made of swapped operands"
_DRAWS = 2
_SAME = 1e-12

CHANGES: dict[str, Callable] = {
    "dropped": jnp.zeros_like,
    "negated": lambda x: -x,
    "scaled by 0.9": lambda x: x * jnp.asarray(0.9, x.dtype),
    "transposed": lambda x: x.T,
}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A fault. op: with this fault in its backward. killed: None if it is equivalent and no test was asked."""

    op: Op
    change: str
    equation: str
    equivalent: bool
    killed: bool | None

    def __str__(self) -> str:
        fate = "equivalent" if self.equivalent else "killed" if self.killed else "SURVIVED"
        return f"{fate}: {self.equation} {self.change}"


@dataclasses.dataclass(frozen=True)
class Mutation:
    """All mutants of a backward, and what became of them.

    >>> mutation = fdl.check.mutants(fdl.ops.tanh, jnp.float32([0.5, -2]))
    >>> len(mutation.killed) == len(mutation.mutants), mutation.survivors
    (True, ())
    """

    name: str
    mutants: tuple[Mutant, ...]

    @property
    def killed(self) -> tuple[Mutant, ...]:
        return tuple(mutant for mutant in self.mutants if mutant.killed)

    @property
    def survivors(self) -> tuple[Mutant, ...]:
        return tuple(mutant for mutant in self.mutants if mutant.killed is False)

    @property
    def equivalent(self) -> tuple[Mutant, ...]:
        return tuple(mutant for mutant in self.mutants if mutant.equivalent)

    @property
    def score(self) -> float:
        """The share of the mutants that are not equivalent which the test killed; NaN if there are none."""
        judged = len(self.killed) + len(self.survivors)
        return len(self.killed) / judged if judged else float("nan")

    def __str__(self) -> str:
        judged = len(self.killed) + len(self.survivors)
        lines = [f"{self.name}: {len(self.killed)} of {judged} mutants killed, {len(self.equivalent)} equivalent here"]
        return "\n".join([*lines, *(f"  {mutant}" for mutant in self.survivors)])


def mutants(
    op: Op,
    *args: Any,
    test: Callable[[Op], Any] | None = None,
    options: Mapping[str, Any] | None = None,
    key: Any = 0,
) -> Mutation:
    """Plants every fault in the backward of `op` at `args`, and asks `test` about each that is not equivalent.

    test: takes an Op; it kills a mutant by raising or by returning False. By default `fdl.check.gradients` against the
    op's equation, which kills by the verdict "wrong". Tiny arguments suffice.
    Errors: InputTypeError if op is no Op; whatever the test raises for the op itself, which it has to pass.

        >>> mutation = fdl.check.mutants(fdl.ops.tanh, jnp.float32([0.5, -2]))
        >>> mutation.score
        1.0
    """
    if not isinstance(op, Op):
        refuse_type("check.mutants", f"op is {shown(op)}, wanted an fdl.Op: its backward is what is changed")
    op = op.bind(**dict(options or {}))
    asked = test or _by_gradients(op, args)
    if asked(op) is False:
        refuse_type("check.mutants", f"the test refuses {op.name} as it is; it can say nothing about its mutants")
    random = np.random.default_rng(seed_of("check.mutants", key))
    with jax.enable_x64(True):
        points = [_point(op, args, random, moved) for moved in (False, *[True] * _DRAWS)]
        faults = _faults(op, *points[0])
    planted = _Planted(op, tuple((place, change) for place, change, _ in faults))
    with jax.enable_x64(True):
        originals = [_numbers(planted.backward(None, *point)) for point in points]
    found = []
    for number, (_, change, equation) in enumerate(faults):
        mutant = Op(op._equation, op._forward, planted.of(number), op.name, op.options)
        with jax.enable_x64(True):
            pairs = zip(points, originals, strict=True)
            equivalent = all(_alike(_numbers(planted.backward(number, *point)), own) for point, own in pairs)
        found.append(Mutant(mutant, change, equation, equivalent, None if equivalent else _kills(asked, mutant)))
    return Mutation(op.name, tuple(found))


def _by_gradients(op: Op, args: tuple) -> Callable[[Op], bool]:
    return lambda mutant: gradients(mutant, *args, reference=op.equation, modes="quick").verdict != "wrong"


def _kills(test: Callable, mutant: Op) -> bool:
    try:
        return test(mutant) is False
    except Exception:
        return True


def _point(op: Op, args: tuple, random: np.random.Generator, moved: bool) -> tuple[Any, Any]:
    """(residuals, cotangent) in float64 at the arguments, or near them."""

    def wide(x):
        if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        x = jnp.asarray(x, jnp.float64)
        # smaller: a label or a probability stays one
        return x * (1 - 0.01 * np.abs(random.standard_normal(x.shape))) if moved else x

    out, residuals = op.forward(*jax.tree.map(wide, args))
    draw = lambda x: jnp.asarray(random.standard_normal(x.shape), x.dtype) if _floating(x) else x
    return residuals, jax.tree.map(draw, out)


def _floating(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def _numbers(cotangents: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(cotangents) if _floating(x)]


def _alike(got: list[np.ndarray], own: list[np.ndarray]) -> bool:
    return all(
        np.allclose(a, b, rtol=0, atol=_SAME * np.abs(b[np.isfinite(b)]).max(initial=0), equal_nan=True)
        for a, b in zip(got, own, strict=True)
    )


# ---- the faults ----


def _faults(op: Op, residuals: Any, dout: Any) -> list[tuple[Place, str, str]]:
    """(where, what, how it is called) of everything that can be planted."""
    jaxpr = jax.make_jaxpr(op.backward)(residuals, dout)
    found: list[tuple[Place, str, str]] = []

    class Listing(Interpreter):
        def hook(self, path, kind, values, equation):
            if kind == "out":
                for number, x in enumerate(values):
                    if _floating(x) and x.size:
                        square = x.ndim == 2 and x.shape[0] == x.shape[1] > 1
                        called = f"{equation.primitive.name} {list(x.shape)} at {'.'.join(map(str, path))}"
                        found.extend(
                            ((path, kind, number), change, called)
                            for change in CHANGES
                            if change != "transposed" or square
                        )
            elif equation.primitive.name in _SWAPPED and values[0].shape == values[1].shape:
                called = f"{equation.primitive.name} {list(values[0].shape)} at {'.'.join(map(str, path))}"
                found.append(((path, kind, 0), _SWAP, called))
            return values

    # as shapes: every equation is visited once, those in loops too
    jax.eval_shape(lambda *leaves: Listing().evaluate(jaxpr, (), leaves), *jax.tree.leaves((residuals, dout)))
    return list(dict.fromkeys(found))


class _Planted:
    """The backward of an op with all the faults in it, of which at most one is switched on."""

    def __init__(self, op: Op, faults: tuple[tuple[Place, str], ...]):
        self.op, self.faults = op, faults
        self._at: dict[Place, dict[str, int]] = {}
        for number, (place, change) in enumerate(faults):
            self._at.setdefault(place, {})[change] = number
        self._compiled = jax.jit(self._switched, compiler_options=quick_to_compile())

    def of(self, number: int) -> Callable:
        """The backward with one fault, as an Op takes it."""

        def mutated(residuals, dout, **options):
            # inside another program the fault alone, or a check would compile all the others again and again
            if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((residuals, dout, options))):
                return self._with(_One(*self.faults[number]), residuals, dout)
            return self.backward(number, residuals, dout)

        return mutated

    def backward(self, number: int | None, residuals: Any, dout: Any) -> Any:
        switches = np.zeros(len(self.faults), bool)
        if number is not None:
            switches[number] = True
        return self._compiled(switches, residuals, dout)

    def _switched(self, switches: Any, residuals: Any, dout: Any) -> Any:
        return self._with(_Any(self._at, switches), residuals, dout)

    def _with(self, mutating: Interpreter, residuals: Any, dout: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(self.op.backward, return_shape=True)(residuals, dout)
        outs = mutating.evaluate(jaxpr, (), jax.tree.leaves((residuals, dout)))
        return jax.tree.unflatten(jax.tree.structure(shape), outs)


class _One(Interpreter):
    """One fault."""

    def __init__(self, place: Place, change: str):
        (self.path, self.kind, self.number), self.change = place, change

    def hook(self, path: tuple[int, ...], kind: str, values: list, equation: Any) -> list:
        if (path, kind) != (self.path, self.kind):
            return values
        if kind == "in":
            return [values[1], values[0], *values[2:]]
        return [CHANGES[self.change](x) if i == self.number and _floating(x) else x for i, x in enumerate(values)]


class _Any(Interpreter):
    """Every fault, behind its switch. at: {place: {change: number of the switch}}."""

    def __init__(self, at: Mapping[Place, Mapping[str, int]], switches: Any):
        self.at, self.switches = at, switches

    def hook(self, path: tuple[int, ...], kind: str, values: list, equation: Any) -> list:
        if kind == "in":
            if (number := self.at.get((path, kind, 0), {}).get(_SWAP)) is None:
                return values
            a, b = values[0], values[1]
            on = self.switches[number]
            return [jax.lax.select(on, b, a), jax.lax.select(on, a, b), *values[2:]]
        return [self._out(self.at.get((path, kind, i), {}), x) for i, x in enumerate(values)]

    def _out(self, changes: Mapping[str, int], x: Any) -> Any:
        changed = x
        for change, number in changes.items():
            if _floating(x):
                changed = jax.lax.select(self.switches[number], CHANGES[change](x), changed)
        return changed

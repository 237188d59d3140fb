"""Evaluating a jaxpr equation by equation, with a say in what each of them takes and gives."""

from collections.abc import Mapping
from typing import Any

import jax

Place = tuple[tuple[int, ...], str, int]  # the path of an equation into nested jaxprs, what of it, and which

# The primitives that are calls, and the parameter that holds what they call. Those of custom derivatives are left out: inlined,
# they would lose their rules.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


def call_of(equation: Any, calls: Mapping[str, str] = CALLS) -> Any:
    """The jaxpr that an equation calls; None if it is no call."""
    return equation.params.get(calls.get(equation.primitive.name))


def opened(jaxpr: Any) -> tuple[Any, Any]:
    """(jaxpr, consts) of a jaxpr that is closed or not."""
    return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "consts") else (jaxpr, ())


def bound(equation: Any, args: list) -> list:
    """What an equation returns."""
    outs = equation.primitive.bind(*args, **equation.primitive.get_bind_params(equation.params))
    return list(outs) if equation.primitive.multiple_results else [outs]


class Interpreter:
    """Evaluates a jaxpr. `hook` may change what goes into an equation ("in"), what comes out of it ("out"), and what a loop
    takes over from the step before ("carry"); calls are inlined and the bodies of loops entered."""

    calls: Mapping[str, str] = CALLS

    def hook(self, path: tuple[int, ...], kind: str, values: list, equation: Any) -> list:
        return values

    def evaluate(self, jaxpr: Any, path: tuple[int, ...], args: Any) -> list:
        jaxpr, consts = opened(jaxpr)
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(atom):
            return atom.val if hasattr(atom, "val") else values[atom]

        for place, equation in enumerate(jaxpr.eqns):
            here = (*path, place)
            ins = self.hook(here, "in", [read(atom) for atom in equation.invars], equation)
            outs = self.hook(here, "out", self.apply(equation, here, ins), equation)
            values.update(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def apply(self, equation: Any, path: tuple[int, ...], args: list) -> list:
        inner = call_of(equation, self.calls)
        if inner is not None:
            return self.evaluate(inner, path, args)
        if equation.primitive.name == "scan":
            return self._scan(equation, path, args)
        return bound(equation, args)

    def _scan(self, equation: Any, path: tuple[int, ...], args: list) -> list:
        params = equation.params
        consts, carries = params["num_consts"], params["num_carry"]
        fixed, carry, xs = args[:consts], args[consts : consts + carries], args[consts + carries :]

        def body(carry, x):
            carry = self.hook(path, "carry", carry, equation)
            outs = self.evaluate(params["jaxpr"], path, [*fixed, *carry, *x])
            return outs[:carries], outs[carries:]

        carry, ys = jax.lax.scan(body, carry, xs, length=params["length"], reverse=params["reverse"])
        return [*carry, *ys]

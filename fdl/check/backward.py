"""The gradient of a reference as JAX derives it, as a program that is replayed with faults in it.

A value is called by its variable or by what it is made of, an operation by the expression that it is the derivative of (see
`fdl.check.paths`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fdl.check.evaluate import Point, Precision
from fdl.check.paths import Sources, spans_of
from fdl.check.replay import Edits, Operation, Program
from fdl.check.subject import Differentiated

# what the candidate returned is: what is replayed; the right gradient + a (right - replayed); a times what is replayed
EXACT, PART, WHOLE = "exact", "part", "whole"
TRIVIAL = frozenset(
    "reshape broadcast_in_dim convert_element_type squeeze expand_dims neg copy copy_p take carry".split()
)
_SIGNS = {"add": " + ", "add_any": " + ", "sub": " - ", "mul": " * ", "div": " / ", "neg": "-", "dot_general": " @ "}


@dataclasses.dataclass(frozen=True, eq=False)
class Fault:
    """A change of the backward pass. `words` of a PART end where its coefficient is to be told."""

    words: str
    kind: str
    rank: int  # the lowest is the simplest
    edits: Callable[[list], Edits]  # from the values of all slots
    program: Program


class Backward:
    """The gradient of a reference as a program, and the faults that can be planted in it."""

    def __init__(self, reference: Differentiated, precision: Precision, points: Sequence[Point]):
        with precision.scope(), jax.softmax_custom_jvp(True):  # the rule that everybody writes by hand
            operands = [precision.operands(point) for point in points]
            flat, structure = jax.tree.flatten(operands[0])
            run = lambda *leaves: reference(*jax.tree.unflatten(structure, leaves))
            self.jaxpr = jax.make_jaxpr(run)(*flat)
        self.precision, self.layout = precision, reference.layout
        self.cotangents = len(jax.tree.leaves(operands[0][2]))
        self._arguments = [jax.tree.leaves(own) for own in operands]
        self.program = Program(self.jaxpr, self.cotangents)
        self._called: dict[int, str] = {}
        self._runs: dict[tuple[int, int], list] = {}
        count = len(reference.layout.active)
        outputs = self.program.outputs
        self.gradients, self.forward = outputs[-count:], self.program.ancestors(outputs[:-count])
        self._sources = Sources()
        self.names = self._named()

    @functools.cached_property
    def from_the_other_end(self) -> Program:
        """The program with the loops of its backward part in the opposite direction."""
        return Program(self.jaxpr, self.cotangents, backwards=True)

    def returned(self, fault: Fault | None, draw: int, place: int) -> np.ndarray:
        """The gradient of active leaf `place` at a point, with a fault."""
        program = fault.program if fault is not None else self.program
        with self.precision.scope():
            values = self.values(program, draw)
            slot = program.outputs[place - len(self.gradients)]
            if fault is None:
                return np.asarray(values[slot])
            wanted = np.asarray(values[slot])
            found = program.replay(values, fault.edits(values)).get(slot)
        if found is None:
            return wanted
        return np.broadcast_to(np.asarray(found, np.float64), wanted.shape)

    def values(self, program: Program, draw: int) -> list:
        key = (id(program), draw)
        if key not in self._runs:
            self._runs[key] = program.run(self._arguments[draw])
        return self._runs[key]

    # ---- names ----

    def _named(self) -> dict[int, str]:
        """{slot: name} of the arguments and of the values of the forward pass."""
        program, names = self.program, {}
        fixed = [leaf.path for leaf in self.layout.leaves if not leaf.active and not leaf.constant]
        for slot, name in zip(program.arguments, [*self.layout.active, *fixed], strict=False):
            names[slot] = name
        for k, slot in enumerate(program.arguments[-self.cotangents :]):
            names[slot] = "the cotangent" if self.cotangents == 1 else f"cotangent {k}"
        own = [op for place, op in enumerate(program.operations) if place in self.forward and op.equation is not None]
        spans = [spans_of(op.equation) for op in own]
        for op, ran, following in zip(own, spans, [*spans[1:], ()], strict=True):
            for number, slot in enumerate(op.outs):
                if found := self._sources.value(ran, following, number, len(op.outs)):
                    names[slot] = found[0]
        return names

    def name(self, slot: int) -> str:
        """What a value is called: by its own name, or by what it is made of."""
        if slot not in self._called:
            self._called[slot] = f"`{self.expression(slot, 3)}`"
        return self._called[slot]

    def expression(self, slot: int, depth: int, inside: bool = False) -> str:
        program = self.program
        if slot in self.names:
            return self.names[slot]
        if slot in program.constants:
            value = np.asarray(program.constants[slot])
            return f"{value:.4g}" if value.ndim == 0 and value.dtype.kind == "f" else "constants"
        op = program.operations[program.makers[slot]]
        if op.kind == "carry":
            last = max(
                (own for own in program.operations if own.path == op.path), key=lambda own: abs(own.step - op.step)
            )
            return f"{self.expression(last.ins[0], depth, inside)} of the step before"
        if op.kind in TRIVIAL and op.kind != "neg":
            return self.expression(op.ins[0], depth, inside)
        if op.kind == "stack":
            return self.expression(op.ins[-1], depth, inside)
        if depth == 0:
            return "..."
        if op.kind == "select_n" and program.operations[program.makers.get(op.ins[0], 0)].kind == "lt":
            return self.expression(op.ins[1], depth, inside)  # an index, where a negative one counts from the end
        sign = _SIGNS.get(op.kind)
        of = [self.expression(x, depth - 1, sign is not None) for x in op.ins]
        if op.kind == "integer_pow":
            return f"{of[0]}**{op.params['y']}"
        if sign is None:
            return f"{op.kind}({', '.join(of)})"
        text = sign.join(of) if len(of) > 1 else f"{sign}{of[0]}"
        return f"({text})" if inside else text

    @property
    def literals(self) -> dict[str, dict[float, str]]:
        """{"mul" or "div": {number that the reference multiplies or divides by: where}}"""
        program, found = self.program, {"mul": {}, "div": {}}
        for place in sorted(self.forward):
            op = program.operations[place]
            for k, slot in enumerate(op.ins if op.kind in found else ()):
                value = program.constants.get(slot)
                if (
                    value is not None
                    and np.ndim(value) == 0
                    and abs(float(value)) not in (0.0, 1.0)
                    and k >= (op.kind == "div")
                ):
                    found[op.kind].setdefault(float(value), self.text(op))
        return found

    def text(self, op: Operation) -> str:
        spans = spans_of(op.equation) if op.equation is not None else ()
        text = self._sources.text(spans[-1]) if spans else ""
        return f"`{text}`" if text else "the function"

    # ---- what there is ----

    def is_backward(self, place: int) -> bool:
        return any(slot in self.program.backward for slot in self.program.operations[place].outs)

    def groups(self, places: Any) -> list[list[int]]:
        """Operations by the equation they came from."""
        groups: dict[tuple, list[int]] = {}
        for i in places:
            groups.setdefault(self.program.operations[i].path, []).append(i)
        return list(groups.values())

    def rank(self, slot: int) -> int:
        return np.ndim(self.values(self.program, 0)[slot])

    def all_values(self) -> list[tuple[int, ...]]:
        """Every value that is there before the cotangents are, those with a name first; of a loop, step by step."""
        program, slots = self.program, {}
        for slot in program.arguments:
            slots[slot] = [slot]
        for op in program.operations:
            for number, slot in enumerate(op.outs):
                if slot not in program.backward:
                    slots.setdefault((op.path, number), []).append(slot)
        own = [tuple(value) for value in slots.values() if value[0] not in program.backward]
        return sorted(own, key=lambda value: value[0] not in self.names)

"""What a wrong residual would make of a gradient: a value of the forward pass that the backward pass takes for another."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fdl.check.backward import EXACT, Backward, Fault
from fdl.check.replay import turned_product, with_operands

Value = tuple[int, ...]  # the slots of a value; of one in a loop, step by step
Residuals = dict[Value, list[list[tuple[int, int]]]]  # for each slot, (operation, operand) where the derivative uses it


# ---- residuals ----


def residuals(backward: Backward, derived: set[int]) -> Residuals:
    """{value that does not depend on the cotangents: for each slot, (operation, operand) where the derivative uses it}."""
    program, found = backward.program, {}
    slots: dict[Any, list[int]] = {}
    for op in program.operations:
        for number, slot in enumerate(op.outs):
            slots.setdefault((op.path, number), []).append(slot)
    for slot in [*program.arguments, *program.constants]:
        slots[slot] = [slot]
    for own in slots.values():
        if own[0] in program.backward:
            continue
        uses = [
            [
                (i, k)
                for i in program.users.get(slot, ())
                if i in derived
                for k, x in enumerate(program.operations[i].ins)
                if x == slot
            ]
            for slot in own
        ]
        if any(uses):
            found[tuple(own)] = uses
    return found


def _replaced(
    backward: Backward, words: str, rank: int, uses: list[list[tuple[int, int]]], by: Callable[[list, int], Any]
) -> Fault:
    """by(values of all slots, step) stands in for a value in its uses."""

    def edits(values):
        made: dict[int, dict[int, Any]] = {}
        for step, own in enumerate(uses):
            other = by(values, step) if own else None
            for i, k in own:
                made.setdefault(i, {})[k] = other
        return {i: functools.partial(with_operands, backward.program.operations[i], new) for i, new in made.items()}

    return Fault(words, EXACT, rank, edits, backward.program)


def _each_use(
    backward: Backward, uses: list[list[tuple[int, int]]]
) -> Iterator[tuple[str, list[list[tuple[int, int]]]]]:
    """All uses of a value together, and each by itself."""
    yield "", uses
    kinds = dict.fromkeys((backward.program.operations[i].path, k) for own in uses for i, k in own)
    if len(kinds) > 1:
        for path, k in kinds:
            chosen = [[(i, q) for i, q in own if (backward.program.operations[i].path, q) == (path, k)] for own in uses]
            i = next(i for own in chosen for i, _ in own)
            yield f" in the derivative of {backward.text(backward.program.operations[i])}", chosen


def turned(backward: Backward, residuals: Residuals) -> Iterator[Fault]:
    """A value changed by itself."""
    values = backward.values(backward.program, 0)
    for value, uses in residuals.items():
        x, name = values[value[0]], backward.name(value[0])
        if not isinstance(x, np.ndarray):
            continue
        maker = (
            backward.program.operations[backward.program.makers[value[0]]]
            if value[0] in backward.program.makers
            else None
        )
        if maker is not None and maker.kind == "dot_general":
            yield from _turned_factors(backward, value, uses)
        for how, turn, rank in _turns(x):
            for where, own in _each_use(backward, uses):
                by = lambda values, step, value=value, turn=turn: turn(values[value[step]])
                words = f"{{d}} takes {name} {how}{where}"
                yield _replaced(backward, words, rank + (1 if where else 0), own, by)


def _turned_factors(backward: Backward, value: Value, uses: list) -> Iterator[Fault]:
    """A product of the forward pass with one factor transposed."""
    operations, makers = backward.program.operations, backward.program.makers
    for turned in ((1, 0, 0), (0, 1, 0)):

        def by(values, step, turned=turned):
            op = operations[makers[value[step]]]
            return turned_product(turned, op, [values[slot] for slot in op.ins])

        factor = backward.name(operations[makers[value[0]]].ins[turned.index(1)])
        yield _replaced(backward, f"{{d}} takes {backward.name(value[0])} with {factor} transposed", 2, uses, by)


def others(backward: Backward, residuals: Residuals) -> Iterator[Fault]:
    """Another value in the place of one."""
    values, program = backward.values(backward.program, 0), backward.program
    pool = [value for value in backward.all_values() if _is_floating(values[value[0]])]
    for value, uses in residuals.items():
        x, name = values[value[0]], backward.name(value[0])
        if not _is_floating(x):
            continue
        for other in pool:
            y = values[other[0]]
            if other == value or y.shape != x.shape or len(other) not in (1, len(value)) or y.ndim == 0:
                continue
            if backward.name(other[0]) == name:
                continue
            for where, own in _each_use(backward, uses):
                if any(step and program.makers.get(other[0], -1) > i for step in uses for i, _ in step):
                    continue
                by = lambda values, step, other=other: values[other[step if len(other) > 1 else 0]]
                words = f"{{d}} takes {backward.name(other[0])} in place of {name}{where}"
                yield _replaced(backward, words, 4 + (other[0] not in backward.names) + bool(where), own, by)


def swapped(backward: Backward, residuals: Residuals) -> Iterator[Fault]:
    values = backward.values(backward.program, 0)
    kept = [
        value for value in residuals if len(value) == 1 and np.ndim(values[value[0]]) and _is_floating(values[value[0]])
    ]
    for a, one in enumerate(kept):
        for other in kept[a + 1 :]:
            if np.shape(values[one[0]]) != np.shape(values[other[0]]):
                continue
            pair = {one[0]: other[0], other[0]: one[0]}
            words = f"{{d}} takes {backward.name(one[0])} and {backward.name(other[0])} in place of each other"

            def edits(values, pair=pair):
                made: dict[int, dict[int, Any]] = {}
                for slot, instead in pair.items():
                    for own in residuals[(slot,)]:
                        for i, k in own:
                            made.setdefault(i, {})[k] = values[instead]
                return {
                    i: functools.partial(with_operands, backward.program.operations[i], new) for i, new in made.items()
                }

            yield Fault(words, EXACT, 6, edits, backward.program)


# ---- factors of the gradient as a whole ----


def factors(backward: Backward, place: int) -> Iterator[tuple[str, Callable[[int], np.ndarray]]]:
    """(words, factor at a draw): a value of the forward pass too often, too rarely, or in the place of another one."""
    program, slot = backward.program, backward.gradients[place]
    shape = np.shape(backward.values(program, 0)[slot])
    known = []
    for value in backward.all_values():
        x = backward.values(program, 0)[value[0]]
        if len(value) == 1 and _is_floating(x) and x.ndim == len(shape) and x.size > 1 and _fits(x.shape, shape):
            known.append((backward.name(value[0]), lambda k, slot=value[0]: backward.values(program, k)[slot]))
    for name, x in known:
        yield f"{{d}} is multiplied by {name} once too often", x
        yield f"{{d}} is divided by {name} once too often", lambda k, x=x: 1 / x(k)
    for name, x in known:
        for other, y in known:
            if name != other:
                yield f"{{d}} has {name} in place of {other} as a factor", lambda k, x=x, y=y: x(k) / y(k)


def _fits(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return all(a in (1, b) for a, b in zip(own, shape, strict=True))


def _turns(x: np.ndarray) -> Iterator[tuple[str, Callable, int]]:
    """(how, the change, rank) of what may go wrong with a value by itself."""
    if x.dtype == np.bool_:
        yield "inverted", np.logical_not, 0
        yield "as if it were True everywhere", np.ones_like, 0
        yield "as if it were False everywhere", np.zeros_like, 1
    elif x.dtype.kind in "iu":
        if x.ndim == 0:
            return
        for by in (1, -1):
            yield f"off by {by:+d}", lambda x, by=by: x + by, 1
        for axis in range(x.ndim):
            if x.shape[axis] > 1:
                order = lambda x, axis=axis: np.broadcast_to(_counting(x, axis), x.shape) % (np.max(x) + 1)
                yield f"as if it were 0, 1, 2, ... along axis {axis}", order, 1
                yield f"inverted as a permutation along axis {axis}", lambda x, axis=axis: np.argsort(x, axis), 1
                yield f"in reverse order along axis {axis}", lambda x, axis=axis: np.flip(x, axis), 2
    elif _is_floating(x):
        yield "with the wrong sign", np.negative, 2
        yield "squared", np.square, 3
        yield "without its square: its root", np.sqrt, 3
        for axis in range(x.ndim):
            if x.shape[axis] < 2:
                continue
            for later in range(axis + 1, x.ndim):
                if x.shape[axis] == x.shape[later]:
                    swap = lambda x, axis=axis, later=later: np.swapaxes(x, axis, later)
                    yield f"transposed (axes {axis} and {later})", swap, 1
            yield f"in reverse order along axis {axis}", lambda x, axis=axis: np.flip(x, axis), 2
            for by in (1, -1):
                roll = lambda x, axis=axis, by=by: np.roll(x, by, axis)
                yield f"moved by {by:+d} along axis {axis}, around the end", roll, 2


def _counting(x: np.ndarray, axis: int) -> np.ndarray:
    return np.arange(x.shape[axis]).reshape([-1 if a == axis else 1 for a in range(x.ndim)])


def _is_floating(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"

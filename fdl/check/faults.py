"""What one wrong operation in the backward pass would make of a gradient.

The reference's own gradient, as JAX derives it, is the right backward pass. It is replayed with one thing changed (see
`fdl.check.replay`), everywhere it occurs in a loop, and sometimes in its first or its last step alone:

    a part        a summand of a cotangent dropped, negated, doubled, averaged: any multiple of it
    a factor      an operation left out: the factor of a product, a mask, a permutation, a flip
    a sum         over other axes, over nothing, over the first or the last entry alone, each entry its own
    a residual    what the backward pass keeps of the forward pass: another value in its place, transposed, flipped, a step
                  early or late, squared, its root, 1; a mask inverted or all True; indices off by one, in order, inverted
    time          a loop of the backward pass from the wrong end, or cut into pieces

Names are those of `fdl.check.paths`: a value is called by its variable, an operation by the expression it is the derivative of.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fdl.check.backward import EXACT, PART, TRIVIAL, WHOLE, Backward, Fault
from fdl.check.replay import Operation, evaluate, turned_product
from fdl.check.residuals import others, residuals, swapped, turned

_PRODUCTS = frozenset(("mul", "div", "dot_general", "integer_pow"))


def faults(backward: Backward, place: int) -> Iterator[Iterable[Fault]]:
    """Faults that can reach the gradient of active leaf `place`, the simplest kinds first."""
    needed = backward.program.ancestors([backward.gradients[place]])
    groups = backward.groups(i for i in sorted(needed) if backward.is_backward(i))
    known = residuals(backward, needed - backward.forward)
    yield itertools.chain(_parts(backward, groups, needed), _left_out(backward, groups))
    yield itertools.chain(
        _other_sums(backward, groups), _other_products(backward, groups), _other_scatters(backward, groups)
    )
    yield turned(backward, known)
    yield _time(backward, groups)
    yield others(backward, known)
    yield swapped(backward, known)


def _fault(backward: Backward, words: str, kind: str, rank: int, group: Sequence[int], edit: Callable) -> Fault:
    """The same edit of every operation of a group; edit(operation, operands) is its result."""
    edits = {i: functools.partial(edit, backward.program.operations[i]) for i in group}
    return Fault(words, kind, rank, lambda _: edits, backward.program)


def _parts(backward: Backward, groups: list[list[int]], needed: set[int]) -> Iterator[Fault]:
    """A use of a cotangent whose other uses, or whose fellow summands, stay."""
    program = backward.program
    for group in groups:
        op = program.operations[group[0]]
        carried = [k for k, slot in enumerate(op.ins) if slot in program.backward]
        for k in carried:
            uses = [i for i in program.users[op.ins[k]] if i in needed]
            if len(carried) < 2 and len(uses) < 2 and op.kind != "carry":
                continue
            words = _of_part(backward, op, k)
            yield _fault(backward, words, PART, 0, group, functools.partial(_without, k))
            if len(group) > 1:
                first = program.operations[group[0]].step < program.operations[group[-1]].step
                ends = {"first": group[0 if first else -1], "last": group[-1 if first else 0]}
                for which, i in ends.items():
                    words = f"{_of_part(backward, op, k)} in the {which} step"
                    yield _fault(backward, words, PART, 2, [i], functools.partial(_without, k))


def _of_part(backward: Backward, op: Operation, k: int) -> str:
    program = backward.program
    if op.kind == "carry":
        return "carry of the backward loop from step to step"
    maker = program.makers.get(op.ins[k])
    if maker is None:
        return f"use of {backward.name(op.ins[k])} in the derivative of {backward.text(op)}"
    made = program.operations[maker]
    while made.kind in TRIVIAL and made.ins[0] in program.makers:
        made = program.operations[program.makers[made.ins[0]]]
    factors = [backward.name(slot) for slot in made.ins if slot not in program.backward]
    through = f" with the factor {' and '.join(factors[:2])}" if factors and made.kind in _PRODUCTS else ""
    return f"part of the derivative of {backward.text(made)}{through}"


def _left_out(backward: Backward, groups: list[list[int]]) -> Iterator[Fault]:
    """An operation that gives back the cotangent as it came."""
    program = backward.program
    for group in groups:
        op = program.operations[group[0]]
        carried = [k for k, slot in enumerate(op.ins) if slot in program.backward]
        if len(carried) != 1 or op.kind in TRIVIAL:
            continue
        factors, text = [backward.name(slot) for k, slot in enumerate(op.ins) if k not in carried], backward.text(op)
        if op.kind in ("mul", "dot_general"):
            words = f"the factor {factors[0]} is missing in the derivative of {text}"
        elif op.kind == "div":
            words = f"the division by {factors[0]} is missing in the derivative of {text}"
        elif op.kind == "select_n":
            words = f"the mask {factors[0]} is missing in the derivative of {text}"
        else:
            words = f"the derivative of {text} is left out"
        words = f"{words} in {{d}}"
        yield _fault(backward, words, EXACT, 1, group, functools.partial(_as_it_came, carried[0]))
        if op.kind in _PRODUCTS:
            factor = factors[0] if factors else ""
            words = f"a constant stands in place of the factor {factor} in the derivative of {text} in {{d}}"
            yield _fault(backward, words, WHOLE, 3, group, functools.partial(_as_it_came, carried[0]))


def _other_sums(backward: Backward, groups: list[list[int]]) -> Iterator[Fault]:
    for group in groups:
        op = backward.program.operations[group[0]]
        if op.kind == "cumsum":
            words = f"the cumulative sum of {backward.text(op)} runs in the wrong direction in {{d}}"
            yield _fault(
                backward, words, EXACT, 1, group, lambda op, ins: evaluate(op, ins, reverse=not op.params["reverse"])[0]
            )
        if op.kind != "reduce_sum":
            continue
        axes, rank = tuple(op.params["axes"]), backward.rank(op.ins[0])
        where = f"the sum over axis {', '.join(map(str, axes))} in the derivative of {backward.text(op)}"
        yield _fault(
            backward,
            f"{where} is missing in {{d}}: every entry counts for itself",
            EXACT,
            1,
            group,
            lambda op, ins: ins[0],
        )
        for sign in (1, -1):
            one = lambda op, ins, sign=sign: np.full_like(evaluate(op, ins)[0], sign)
            yield _fault(
                backward, f"{where} is taken as {sign} in {{d}}: its cotangents are ignored", EXACT, 3, group, one
            )
        for index, called in ((0, "first"), (-1, "last")):
            take = lambda op, ins, axes=axes, index=index: _only(ins[0], axes, index)
            yield _fault(
                backward, f"{where} is missing in {{d}}: only the {called} entry counts", EXACT, 2, group, take
            )
        for axis in range(rank):
            for along in {(axis,), tuple(sorted({*axes, axis}))} - {axes}:
                words = f"{where} runs over axis {', '.join(map(str, along))} in {{d}}"
                total = lambda op, ins, along=along: np.sum(ins[0], axis=along, keepdims=True)
                yield _fault(backward, words, EXACT, 2, group, total)


def _other_products(backward: Backward, groups: list[list[int]]) -> Iterator[Fault]:
    for group in groups:
        op = backward.program.operations[group[0]]
        if op.kind == "dot_general":
            names = [backward.name(slot) for slot in op.ins if slot not in backward.program.backward]
            factor = f" with {names[0]}" if names else ""
            for turned in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)):
                how = "is transposed or in the wrong order"
                words = f"the product{factor} in the derivative of {backward.text(op)} {how} in {{d}}"
                yield _fault(backward, words, EXACT, 1 + sum(turned), group, functools.partial(turned_product, turned))
        elif op.kind == "conv_general_dilated":
            for shift in (-1, 1):
                how = f"is padded by one too {'few' if shift < 0 else 'many'} at the start"
                words = f"the convolution in the derivative of {backward.text(op)} {how} in {{d}}"
                yield _fault(backward, words, EXACT, 1, group, functools.partial(_shifted_padding, shift))


def _other_scatters(backward: Backward, groups: list[list[int]]) -> Iterator[Fault]:
    for group in groups:
        op = backward.program.operations[group[0]]
        if op.kind in ("scatter-add", "scatter_add"):
            for how, run in _SCATTERS.items():
                words = f"of equal indices in the derivative of {backward.text(op)} {how} in {{d}}"
                yield _fault(backward, words, EXACT, 1, group, run)
            for axis in range(backward.rank(op.outs[0])):
                for by in (1, -1):
                    words = f"the derivative of {backward.text(op)} lands at index {by:+d} along axis {axis} in {{d}}"
                    move = lambda op, ins, by=by, axis=axis: np.roll(evaluate(op, ins)[0], by, axis)
                    yield _fault(backward, words, EXACT, 2, group, move)


# ---- time ----


def _time(backward: Backward, groups: list[list[int]]) -> Iterator[Fault]:
    program = backward.program
    carries = [group for group in groups if program.operations[group[0]].kind == "carry"]
    for group in carries:
        places = [i for i in group if not program.operations[i].params["first"]]  # nothing is carried into the first
        for every in range(2, min(len(group), 9)):
            for start in range(every):
                chosen = [i for i in places if program.operations[i].step % every == start]
                if len(chosen) > 1:
                    how = f"is cut at every {_ordinal(every)} step"
                    words = f"what the backward loop carries {how} in {{d}}: truncated in time"
                    yield _fault(backward, words, EXACT, 1, chosen, functools.partial(_without, 0))
    if not carries:
        return
    other = backward.from_the_other_end
    takes: dict[tuple, list[int]] = {}
    for i, op in enumerate(other.operations):
        if op.kind == "take" and op.ins[0] not in other.backward:
            takes.setdefault(op.path, []).append(i)
    words = "the backward loop runs through time in the wrong direction in {d}"
    for by in (0, 1, -1, 2, -2):
        for group in takes.values():
            edits = {i: functools.partial(_taken, other.operations[i], by) for i in group}
            yield Fault(words, EXACT, 1 + abs(by), lambda _, edits=edits: edits, other)
    kept = [i for i, op in enumerate(program.operations) if op.kind == "take" and i not in backward.forward]
    for group in backward.groups(i for i in kept if program.operations[i].ins[0] not in program.backward):
        for by, which in ((1, "after"), (-1, "before")):
            edits = {i: functools.partial(_taken, program.operations[i], by) for i in group}
            name = backward.name(program.operations[group[0]].ins[0])
            yield Fault(f"{{d}} takes {name} of the step {which}", EXACT, 2, lambda _, edits=edits: edits, program)


# ---- edits ----


def _without(k: int, op: Operation, ins: list) -> Any:
    return evaluate(op, [np.zeros_like(x) if place == k else x for place, x in enumerate(ins)])[0]


def _as_it_came(k: int, op: Operation, ins: list) -> Any:
    """Its operand for the result, where the shape of the result allows it."""
    own, x = evaluate(op, ins)[0], ins[k]
    if np.shape(own) == np.shape(x):
        return x
    raise ValueError("another shape")


def _taken(op: Operation, by: int, ins: list) -> Any:
    at = op.params["at"] + by
    return ins[0][at] if 0 <= at < len(ins[0]) else np.zeros_like(ins[0][0])


def _only(x: np.ndarray, axes: tuple[int, ...], index: int) -> np.ndarray:
    for axis in axes:
        x = np.take(x, [index], axis)
    return np.squeeze(x, axes)


def _shifted_padding(shift: int, op: Operation, ins: list) -> Any:
    padding = tuple((low + shift, high - shift) for low, high in op.params["padding"])
    return evaluate(op, ins, padding=padding)[0]


def _scattered(how: Callable, op: Operation, ins: list) -> Any:
    numbers, p = op.params["dimension_numbers"], op.params
    return np.asarray(how(*ins, numbers, indices_are_sorted=False, unique_indices=False, mode=p["mode"]))


def _scattered_mean(op: Operation, ins: list) -> Any:
    total = evaluate(op, ins)[0]
    count = evaluate(op, [np.zeros_like(ins[0]), ins[1], np.ones_like(ins[2])])[0]
    return total / np.maximum(count, 1)


_SCATTERS: dict[str, Callable] = {
    "only the last counts: it overwrites the others": functools.partial(_scattered, jax.lax.scatter),
    "only the largest counts": functools.partial(_scattered, jax.lax.scatter_max),
    "only the smallest counts": functools.partial(_scattered, jax.lax.scatter_min),
    "the mean counts, not the sum": _scattered_mean,
}


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third"}.get(n, f"{n}th")

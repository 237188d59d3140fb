"""A gradient replayed in NumPy, operation by operation, so that thousands of variants of it can be tried in a second.

`Program` is a jaxpr taken apart into a flat list of operations on numbered slots. Calls are inlined and loops unrolled, so that
a variant is an edit of some operations; everything they reach is computed again, and nothing else. The operations that came
from one equation, one for each step of a loop, have the same `path`. What NumPy has no word for is run by JAX.

Shapes are as flexible as NumPy's: a sum that is edited to keep its axes goes through the reshapes behind it unchanged, and
meets the other operands by broadcasting.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check.interpreter import CALLS, call_of, opened
from fdl.errors import is_array

_CALLS = {
    **CALLS,
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}  # nothing is differentiated any more
_UNROLLED = 1500  # operations of an unrolled loop; a longer one is a single operation

Edit = Callable[[list], Any]  # from the operands to the result
Edits = Mapping[int, Edit]  # by operation


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """`kind` is the name of a primitive; "take", "stack" and "carry" stand for what a loop does with its arrays."""

    kind: str
    params: dict[str, Any]
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    path: tuple  # of the equation
    step: int  # of the loop around it
    equation: Any = None


class Program:
    """arguments: the slots of the jaxpr's arguments. `late` of them are the cotangents: what depends on them is backward.

    backwards: loops that are part of the backward run from the other end.
    """

    def __init__(self, jaxpr: Any, cotangents: int, *, backwards: bool = False):
        self.operations: list[Operation] = []
        self.constants: dict[int, Any] = {}
        self.backward: set[int] = set()  # slots that depend on the cotangents
        self.known: dict[Any, int] = {}  # variables outside of loops
        self.slots = 0
        self._backwards = backwards
        count = len(opened(jaxpr)[0].invars)
        self.arguments = [self._slot() for _ in range(count)]
        self.backward |= set(self.arguments[count - cotangents :])
        self.outputs = self._flatten(jaxpr, self.arguments, (), 0)
        self.makers = {slot: place for place, op in enumerate(self.operations) for slot in op.outs}
        self.users: dict[int, list[int]] = {}
        for place, op in enumerate(self.operations):
            for slot in dict.fromkeys(op.ins):
                self.users.setdefault(slot, []).append(place)

    def run(self, arguments: Sequence[Any]) -> list:
        """The values of all slots."""
        values: list[Any] = [None] * self.slots
        for slot, value in [*self.constants.items(), *zip(self.arguments, arguments, strict=True)]:
            values[slot] = _plain(value)
        with np.errstate(all="ignore"):
            for op in self.operations:
                outs = evaluate(op, [values[slot] for slot in op.ins])
                for slot, value in zip(op.outs, outs, strict=True):
                    values[slot] = value
        return values

    def replay(self, values: list, edits: Edits) -> dict[int, Any]:
        """The slots that are different after the edits."""
        changed: dict[int, Any] = {}
        with np.errstate(all="ignore"):
            for place in range(min(edits), len(self.operations)):
                op, edit = self.operations[place], edits.get(place)
                if edit is None and not any(slot in changed for slot in op.ins):
                    continue
                ins = [changed.get(slot, values[slot]) for slot in op.ins]
                outs = [edit(ins)] if edit is not None else evaluate(op, ins)
                changed.update(zip(op.outs, outs, strict=True))
        return changed

    def ancestors(self, slots: Sequence[int]) -> set[int]:
        """The operations that the slots depend on."""
        wanted, found = set(slots), set()
        for place in range(len(self.operations) - 1, -1, -1):
            if any(slot in wanted for slot in self.operations[place].outs):
                found.add(place)
                wanted.update(self.operations[place].ins)
        return found

    # ---- taking apart ----

    def _slot(self) -> int:
        self.slots += 1
        return self.slots - 1

    def _constant(self, value: Any) -> int:
        slot = self._slot()
        self.constants[slot] = value
        return slot

    def _add(
        self, kind: str, params: dict, ins: Sequence[int], outs: int, path: tuple, step: int, equation: Any = None
    ):
        slots = tuple(self._slot() for _ in range(outs))
        self.operations.append(Operation(kind, params, tuple(ins), slots, path, step, equation))
        if any(slot in self.backward for slot in ins):
            self.backward.update(slots)
        return slots

    def _flatten(self, jaxpr: Any, arguments: Sequence[int], path: tuple, step: int) -> list[int]:
        jaxpr, consts = opened(jaxpr)
        slots = dict(zip(jaxpr.invars, arguments, strict=True))
        slots.update((variable, self._constant(value)) for variable, value in zip(jaxpr.constvars, consts, strict=True))

        def read(atom):
            return self._constant(atom.val) if hasattr(atom, "val") else slots[atom]

        for place, equation in enumerate(jaxpr.eqns):
            here, ins = (*path, place), [read(atom) for atom in equation.invars]
            inner = call_of(equation, _CALLS)
            if inner is not None:
                outs = self._flatten(inner, ins, here, step)
            elif equation.primitive.name == "scan" and _length(equation) <= _UNROLLED:
                outs = self._unroll(equation, ins, here)
            else:
                count = len(equation.outvars)
                outs = self._add(equation.primitive.name, equation.params, ins, count, here, step, equation)
            slots.update(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _unroll(self, equation: Any, ins: list[int], path: tuple) -> list[int]:
        params = equation.params
        consts, carries, length = params["num_consts"], params["num_carry"], params["length"]
        fixed, carry, xs = ins[:consts], ins[consts : consts + carries], ins[consts + carries :]
        from_end = params["reverse"]
        if self._backwards and any(slot in self.backward for slot in ins):
            from_end = not from_end
        ys: dict[int, list[int]] = {}
        for count, step in enumerate(reversed(range(length)) if from_end else range(length)):
            carry = [
                self._add("carry", {"first": count == 0}, [slot], 1, (*path, "carry", k), step)[0]
                for k, slot in enumerate(carry)
            ]
            now = [self._add("take", {"at": step}, [slot], 1, (*path, "take", k), step)[0] for k, slot in enumerate(xs)]
            outs = self._flatten(params["jaxpr"], [*fixed, *carry, *now], path, step)
            carry, ys[step] = outs[:carries], outs[carries:]
        count = len(ys[0]) if length else 0
        stacked = [
            self._add("stack", {}, [ys[step][k] for step in range(length)], 1, (*path, "stack", k), 0)[0]
            for k in range(count)
        ]
        return [*carry, *stacked]


def _length(equation: Any) -> int:
    return equation.params["length"] * len(opened(equation.params["jaxpr"])[0].eqns) or _UNROLLED + 1


# ---- operations ----


def evaluate(op: Operation, ins: list, **changed: Any) -> list:
    """The results of an operation; `changed` are parameters to be used in place of its own."""
    params = {**op.params, **changed} if changed else op.params
    if op.kind in _SHAPING and np.shape(ins[0]) != op.equation.invars[0].aval.shape:
        return [ins[0]]  # it kept axes that this operation would remove or add: broadcasting does the same
    if op.kind in _NUMPY and not (op.kind in _FLOATING and np.asarray(ins[0]).dtype.kind in "iu"):
        return [_NUMPY[op.kind](params, *ins)]
    primitive = op.equation.primitive
    outs = primitive.bind(*ins, **primitive.get_bind_params(params))
    return [_plain(x) for x in (outs if primitive.multiple_results else [outs])]


def with_operands(op: Operation, new: dict[int, Any], ins: list) -> Any:
    same = lambda y, x: y.astype(x.dtype) if isinstance(y, np.ndarray) and y.dtype.kind == x.dtype.kind else y
    outs = evaluate(op, [same(new[place], x) if place in new else x for place, x in enumerate(ins)])
    if len(outs) != 1:
        raise ValueError("several results")
    return outs[0]


def turned_product(turned: tuple[int, int, int], op: Operation, ins: list) -> Any:
    swap = lambda x: np.swapaxes(x, -1, -2)
    a, b = (swap(x) if turn else x for x, turn in zip(ins, turned, strict=False))
    out = evaluate(op, [a, b])[0]
    return swap(out) if turned[2] else out


def _plain(x: Any) -> Any:
    return x if is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)


def _broadcast(p: dict, x: np.ndarray) -> np.ndarray:
    sizes = [1] * len(p["shape"])
    for d, size in zip(p["broadcast_dimensions"], x.shape, strict=True):
        sizes[d] = size
    return np.broadcast_to(x.reshape(sizes), p["shape"])


def _dot(p: dict, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (ca, cb), (ba, bb) = p["dimension_numbers"]
    fa = [d for d in range(a.ndim) if d not in (*ca, *ba)]
    fb = [d for d in range(b.ndim) if d not in (*cb, *bb)]
    shape = [*(a.shape[d] for d in ba), *(a.shape[d] for d in fa), *(b.shape[d] for d in fb)]
    batch, inner = (int(np.prod([a.shape[d] for d in dims], dtype=int)) for dims in (ba, ca))
    left = a.transpose([*ba, *fa, *ca]).reshape(batch, -1, inner)
    right = b.transpose([*bb, *cb, *fb]).reshape(batch, inner, -1)
    return np.matmul(left, right).reshape(shape)


def _places(
    indices: np.ndarray, numbers: Any, shape: tuple, sizes: Sequence[int]
) -> tuple[list[np.ndarray], np.ndarray]:
    """(the coordinates of what slices at `indices` cover, which of them lie inside), batch axes first, then the slices' own.

    numbers: (axes of the operand that an index is for, (axes of operand and indices that go together), axes without a window).
    """
    starts, (batch, own_batch), collapsed = numbers
    outer = indices.shape[:-1]
    window = [d for d in range(len(shape)) if d not in (*collapsed, *batch)]
    inner = tuple(sizes[d] for d in window)
    coordinates, inside = [], np.ones(outer + (1,) * len(inner), bool)
    for d in range(len(shape)):
        at = np.zeros(outer, int)
        if d in starts:
            at = indices[..., starts.index(d)].astype(int)
            inside = inside & ((at >= 0) & (at <= shape[d] - sizes[d])).reshape(outer + (1,) * len(inner))
        if d in batch:
            axis = own_batch[batch.index(d)]
            at = np.arange(shape[d]).reshape([-1 if a == axis else 1 for a in range(len(outer))]) + at
        at = at.reshape(outer + (1,) * len(inner))
        if d in window:
            place = window.index(d)
            at = at + np.arange(sizes[d]).reshape([-1 if a == place else 1 for a in range(len(inner))])
        coordinates.append(np.broadcast_to(at, outer + inner))
    return coordinates, np.broadcast_to(inside, outer + inner)


def _bounded(coordinates: list[np.ndarray], shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.clip(at, 0, size - 1) for at, size in zip(coordinates, shape, strict=True))


def _gather(p: dict, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    n, sizes = p["dimension_numbers"], p["slice_sizes"]
    numbers = (n.start_index_map, (n.operand_batching_dims, n.start_indices_batching_dims), n.collapsed_slice_dims)
    coordinates, inside = _places(_clipped(p, indices, n.start_index_map, x.shape, sizes), numbers, x.shape, sizes)
    out = np.where(inside, x[_bounded(coordinates, x.shape)], np.nan if x.dtype.kind == "f" else 0)
    outer = iter(range(indices.ndim - 1))
    inner = iter(range(indices.ndim - 1, out.ndim))
    return out.astype(x.dtype).transpose([next(inner if d in n.offset_dims else outer) for d in range(out.ndim)])


def _scatter_add(p: dict, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    n = p["dimension_numbers"]
    batch, inserted = n.operand_batching_dims, n.inserted_window_dims
    own = iter(n.update_window_dims)
    sizes = [1 if d in (*inserted, *batch) else updates.shape[next(own)] for d in range(x.ndim)]
    numbers = (n.scatter_dims_to_operand_dims, (batch, n.scatter_indices_batching_dims), inserted)
    indices = _clipped(p, indices, n.scatter_dims_to_operand_dims, x.shape, sizes)
    coordinates, inside = _places(indices, numbers, x.shape, sizes)
    outer = [d for d in range(updates.ndim) if d not in n.update_window_dims]
    out = x.copy()
    np.add.at(
        out, _bounded(coordinates, x.shape), np.where(inside, updates.transpose([*outer, *n.update_window_dims]), 0)
    )
    return out


def _clipped(p: dict, indices: np.ndarray, starts: Sequence[int], shape: tuple, sizes: Sequence[int]) -> np.ndarray:
    """The indices, moved inside where the mode says so."""
    if "CLIP" not in str(p["mode"]):
        return indices
    return np.clip(indices, 0, [shape[d] - sizes[d] for d in starts])


def _cumsum(p: dict, x: np.ndarray) -> np.ndarray:
    axis = p["axis"]
    return np.flip(np.cumsum(np.flip(x, axis), axis), axis) if p["reverse"] else np.cumsum(x, axis)


def _slice(p: dict, x: np.ndarray) -> np.ndarray:
    steps = p["strides"] or (1,) * x.ndim
    return x[tuple(slice(*bounds) for bounds in zip(p["start_indices"], p["limit_indices"], steps, strict=True))]


def _select(p: dict, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    if which.dtype == np.bool_ and len(cases) == 2:
        return np.where(which, cases[1], cases[0])
    return np.choose(which, cases)


def _keeping(function: Callable) -> Callable:
    return lambda p, x: function(x, axis=tuple(p["axes"]))


def _logistic(p: dict, x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


_ONE_BY_ONE = {
    "neg": np.negative,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "sqrt": np.sqrt,
    "cbrt": np.cbrt,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "square": np.square,
    "is_finite": np.isfinite,
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
    "atan2": np.arctan2,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_SHAPING = frozenset(("reshape", "broadcast_in_dim", "squeeze", "expand_dims", "reduce_sum"))
_FLOATING = frozenset(("div", "pow", "integer_pow", "sign", "abs"))  # for integers JAX has rules of its own


def _lifted(function: Callable) -> Callable:
    return lambda p, *xs: function(*xs)


_NUMPY: dict[str, Callable] = {
    **{kind: _lifted(function) for kind, function in _ONE_BY_ONE.items()},
    "rsqrt": lambda p, x: 1 / np.sqrt(x),
    "logistic": _logistic,
    "integer_pow": lambda p, x: x ** float(p["y"]),
    "copy": lambda p, x: x,
    "copy_p": lambda p, x: x,
    "stop_gradient": lambda p, x: x,
    "carry": lambda p, x: x,
    "name": lambda p, x: x,
    "take": lambda p, x: x[p["at"]],
    "stack": lambda p, *xs: np.stack(np.broadcast_arrays(*xs)),
    "convert_element_type": lambda p, x: x.astype(p["new_dtype"]),
    "reshape": lambda p, x: x.reshape(p["new_sizes"]),
    "broadcast_in_dim": _broadcast,
    "squeeze": lambda p, x: np.squeeze(x, tuple(p["dimensions"])),
    "expand_dims": lambda p, x: np.expand_dims(x, tuple(p["dimensions"])),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
    "rev": lambda p, x: np.flip(x, tuple(p["dimensions"])),
    "concatenate": lambda p, *xs: np.concatenate(xs, p["dimension"]),
    "slice": _slice,
    "select_n": _select,
    "reduce_sum": _keeping(np.sum),
    "reduce_max": _keeping(np.max),
    "reduce_min": _keeping(np.min),
    "reduce_prod": _keeping(np.prod),
    "gather": _gather,
    "scatter-add": _scatter_add,
    "scatter_add": _scatter_add,
    "cumsum": _cumsum,
    "dot_general": _dot,
}

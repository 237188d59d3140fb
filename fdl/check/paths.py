"""What each intermediate value of a function contributes to its gradient, and what the value is called.

The gradient is a sum over paths from the output back to an argument. With a gate at the value m, which lets m through on the
way forward and multiplies its cotangent by s on the way back,

    contribution of the paths through m = gradient(s = 1) - gradient(s = 0)

so stopping the gradient at m removes exactly what flows through it. A bypass is the other kind of site: y = f(x) goes forward
as it is, and on the way back x gets s f'(x) dy + (1 - s) dy, so shutting it leaves the factor f'(x) out, or the mask of a relu
or of a `where`. `Gated` is the gradient with a gate at every site: one
program, whatever number of gates is shut. The function is a jaxpr, evaluated here with calls to jitted functions inlined and
the bodies of loops entered; a gate inside a loop is shut in every step.

A site is the result of an equation of the jaxpr (a node), one of several uses of a value (an edge: `x` has a direct path and
one through the mean in x - mean(x)), or what a loop carries from step to step. Its name, best first:

    `jax.ad_checkpoint.checkpoint_name`; the variable that the expression is assigned to, in the file of the function and then
    in those of jax.nn and jax.scipy; the text of the expression. Edges and carries: the name of the value, and where it goes.

Expressions are found through the traceback that JAX keeps with each equation: every frame has the columns of the call that
was running. An expression's value is the last of the equations that ran inside it.
"""

import ast
import dataclasses
import linecache
import os
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.check.interpreter import Interpreter, Place, call_of, opened
from fdl.check.subject import Differentiated, Result

_SLOPE_ONE = frozenset(
    """add add_any sub neg copy copy_p convert_element_type reduce_precision stop_gradient name optimization_barrier scan
    while cond""".split()
)
_LONGEST = 48  # characters of an expression
_JAX = os.path.dirname(jax.__file__) + os.sep
_READABLE = tuple(_JAX + os.path.join("_src", part) + os.sep for part in ("nn", "scipy"))
_FDL = os.path.dirname(os.path.dirname(__file__)) + os.sep
_MACHINERY = (_FDL + "check" + os.sep, _FDL + "op.py")  # calls functions that are asked about, and is none

_MARKED, _VARIABLE, _VARIABLE_INSIDE, _EXPRESSION, _EXPRESSION_INSIDE, _EDGE, _BYPASS = range(7)


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a gradient can be stopped."""

    place: Place
    name: str
    rank: int  # how good the name is; 0 is best
    size: int  # entries of the value
    line: int = 0

    @property
    def is_bypass(self) -> bool:
        return self.place[1] == "bypass"


# ---- the gradient with gates ----


@dataclasses.dataclass(frozen=True, eq=False)
class Gated:
    """The reference with gates, as a subject. `w` is (cotangents, s), with one s for each of `places`."""

    reference: Differentiated
    places: tuple[Place, ...]

    def __call__(self, active: list, fixed: Any, w: Any) -> Result:
        w, s = w
        gates = {place: s[k] for k, place in enumerate(self.places)}

        def outputs(active):
            jaxpr = _traced(self.reference, active, fixed)
            return _Gates(gates).evaluate(jaxpr, (), jax.tree.leaves((active, fixed)))

        floats, pull = jax.vjp(outputs, active)
        (gradients,) = pull([cotangent.astype(out.dtype) for cotangent, out in zip(w, floats, strict=True)])
        return Result([], [], gradients)


def sites(reference: Differentiated, active: list, fixed: Any) -> list[Site]:
    """Everything in the reference at which a gate can be put and that has a name: best names first, then small values.

    A mean and the same mean broadcast contribute the same; it is the mean that has the name one looks for.
    """
    jaxpr = _traced(reference, active, fixed)
    names = list(reference.layout.active)
    return sorted(_Sites().of(jaxpr.jaxpr, names), key=lambda site: (site.rank, site.size))


def _traced(reference: Differentiated, active: list, fixed: Any) -> Any:
    return jax.make_jaxpr(lambda active, fixed: reference.outputs(active, fixed)[0])(active, fixed)


@jax.custom_vjp
def _gate(x, s):
    return x


@jax.custom_vjp
def _bypass(y, x, s):
    return y


_bypass.defvjp(lambda y, x, s: (y, s), lambda s, dy: (dy, dy * (1 - s).astype(dy.dtype), jnp.zeros_like(s)))
_gate.defvjp(lambda x, s: (x, s), lambda s, dx: (dx * s.astype(dx.dtype), jnp.zeros_like(s)))


class _Gates(Interpreter):
    def __init__(self, gates: dict[Place, Any]):
        self.gates = gates

    def hook(self, path: tuple[int, ...], kind: str, values: list, equation: Any) -> list:
        gates = [self.gates.get((path, kind, place)) for place in range(len(values))]
        return [x if gate is None else _gate(x, gate) for x, gate in zip(values, gates, strict=True)]

    def apply(self, equation: Any, path: tuple[int, ...], args: list) -> list:
        outs = super().apply(equation, path, self.hook(path, "bypass", args, equation))
        for place, x in enumerate(args):
            if (path, "bypass", place) in self.gates:
                outs = [_bypass(outs[0], x, self.gates[path, "bypass", place])]
        return outs


# ---- what is there, and what it is called ----


@dataclasses.dataclass(frozen=True)
class Span:
    """An expression in a source file."""

    file: str
    start: tuple[int, int]
    end: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """An equation, where it is, and the expressions it ran in, from the outermost call inwards."""

    path: tuple[int, ...]
    equation: Any
    spans: tuple[Span, ...]


class _Sites:
    def __init__(self):
        self._sources = Sources()
        self._found: list[Site] = []
        self._uses: list[tuple[_Step, int, Any]] = []  # uses of values that are used more than once
        self._names: dict[Any, str] = {}  # of variables of the jaxpr

    def of(self, jaxpr: Any, arguments: list[str]) -> list[Site]:
        self._names.update(zip(jaxpr.invars, arguments, strict=False))
        steps = list(self._steps(jaxpr, (), ()))
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            self._add_nodes(step, following.spans if following else ())
        for step in steps:
            self._add_bypasses(step)
        for step, place, variable in self._uses:
            if variable in self._names:
                where, line = self._text(step)
                inside = step.spans and step.spans[-1].file.startswith(_JAX)
                name = f"`{self._names[variable]}`" + (f" in `{where}`" if where else "")
                name += self._called_from(step) if inside else ""
                self._found.append(Site((step.path, "in", place), name, _EDGE, variable.aval.size, line))
        return self._found

    def _steps(self, jaxpr: Any, path: tuple[int, ...], outer: tuple[Span, ...]) -> Iterator[_Step]:
        """The equations in the order in which they run; those of a call or a loop before the call or the loop."""
        jaxpr, _ = opened(jaxpr)
        uses: dict[Any, int] = {}
        for equation in jaxpr.eqns:
            for atom in {atom for atom in equation.invars if not hasattr(atom, "val")}:
                uses[atom] = uses.get(atom, 0) + 1
        for place, equation in enumerate(jaxpr.eqns):
            step = _Step((*path, place), equation, outer + spans_of(equation))
            yield from self._inside(step)
            yield step
            for number, atom in enumerate(equation.invars):
                if _is_floating(atom) and uses.get(atom, 0) > 1:
                    self._uses.append((step, number, atom))

    def _inside(self, step: _Step) -> Iterator[_Step]:
        name, params = step.equation.primitive.name, step.equation.params
        if (call := call_of(step.equation)) is not None:
            inner, _ = opened(call)
            for own, atom in zip(inner.invars, step.equation.invars, strict=True):
                if not hasattr(atom, "val") and atom in self._names:
                    self._names[own] = self._names[atom]
            yield from self._steps(inner, step.path, step.spans)
        elif name == "scan":
            inner, _ = opened(params["jaxpr"])
            consts, carries = params["num_consts"], params["num_carry"]
            for own, atom in zip(inner.invars[:consts], step.equation.invars[:consts], strict=True):
                if not hasattr(atom, "val") and atom in self._names:
                    self._names[own] = self._names[atom]
            for number, (own, called) in enumerate(zip(inner.invars, _argument_names(inner), strict=False)):
                if called:
                    self._names.setdefault(own, called)
                if consts <= number < consts + carries and _is_floating(own):
                    known = f"`{called}`" if called else "what the loop carries"
                    name = f"{known} of the step before"
                    self._found.append(Site((step.path, "carry", number - consts), name, _EDGE, own.aval.size))
            yield from self._steps(inner, step.path, step.spans)

    def _add_nodes(self, step: _Step, following: tuple[Span, ...]) -> None:
        """The name of what an equation returns, if it is the value of an expression."""
        outs, params = step.equation.outvars, step.equation.params
        if step.equation.primitive.name == "name":
            self._add(step, 0, params["name"], _MARKED, 0)
            return
        for number in range(len(outs)):
            if found := self._sources.value(step.spans, following, number, len(outs)):
                self._add(step, number, *found)

    def _add_bypasses(self, step: _Step) -> None:
        """The inputs of an operation on entries whose derivative is not 1 by itself."""
        equation, name = step.equation, step.equation.primitive.name
        if name in _SLOPE_ONE or len(equation.outvars) != 1 or not _is_floating(equation.outvars[0]):
            return
        out = equation.outvars[0]
        alike = [
            place
            for place, atom in enumerate(equation.invars)
            if _is_floating(atom) and (atom.aval.shape, atom.aval.dtype) == (out.aval.shape, out.aval.dtype)
        ]
        text, line = self._text(step)
        text = text or self._names.get(out, "")
        for place in alike if text else []:
            known = self._names.get(equation.invars[place])
            operand = f"`{known}`" if known else f"operand {place + 1}"
            by = f" by {operand}" if len(alike) > 1 or known else ""
            self._found.append(Site((step.path, "bypass", place), f"`{text}`{by}", _BYPASS, out.aval.size, line))

    def _add(self, step: _Step, number: int, name: str, rank: int, line: int) -> None:
        variable = step.equation.outvars[number]
        if _is_floating(variable):
            self._names[variable] = name
            inside = self._called_from(step) if rank in (_VARIABLE_INSIDE, _EXPRESSION_INSIDE) else ""
            self._found.append(Site((step.path, "out", number), f"`{name}`{inside}", rank, variable.aval.size, line))

    def _called_from(self, step: _Step) -> str:
        """The caller's expression inside of which a step of JAX's own ran."""
        own = next((span for span in reversed(step.spans) if not span.file.startswith(_JAX)), None)
        if own is None or not (text := self._sources.text(own)):
            return ""
        return f" inside `{text}` at {os.path.basename(own.file)}:{own.start[0]}"

    def _text(self, step: _Step) -> tuple[str, int]:
        """The text of the innermost expression, and its line."""
        return (self._sources.text(step.spans[-1]), step.spans[-1].start[0]) if step.spans else ("", 0)


def _is_floating(atom: Any) -> bool:
    dtype = getattr(atom.aval, "dtype", None)
    return not hasattr(atom, "val") and dtype is not None and jnp.issubdtype(dtype, jnp.floating)


def _argument_names(jaxpr: Any) -> tuple[str, ...]:
    """What the function that the jaxpr was traced from calls its arguments; empty where that is not known."""
    return tuple(getattr(getattr(jaxpr, "debug_info", None), "arg_names", None) or ())


class Frame(NamedTuple):
    """A function that ran when an equation was recorded, and the call in it that was running."""

    code: CodeType
    span: Span


def frames_of(equation: Any) -> list[Frame]:
    """What was running when the equation was recorded, from the outermost call inwards.

    What lies outside of the innermost tracing is left out: a jitted function is traced once and remembers its first caller.
    """
    traceback: Any = getattr(getattr(equation, "source_info", None), "traceback", None)
    frames = []
    if not hasattr(traceback, "raw_frames") or not hasattr(traceback, "code_addr2location"):
        return []
    for code, at in zip(*traceback.raw_frames(), strict=True):
        if code.co_name.startswith("trace_to_jaxpr"):
            break
        start, start_column, end, end_column = traceback.code_addr2location(code, at)
        frames.append(Frame(code, Span(code.co_filename, (start, start_column), (end, end_column))))
    return frames[::-1]


def spans_of(equation: Any) -> tuple[Span, ...]:
    """The expressions that were running when the equation was recorded, in files whose names mean something."""
    return tuple(frame.span for frame in frames_of(equation) if _is_readable(frame.code.co_filename))


def _is_readable(file: str) -> bool:
    return not file.startswith(_MACHINERY) and (not file.startswith(_JAX) or file.startswith(_READABLE))


class Sources:
    """The source files, parsed once."""

    def __init__(self):
        self._lines: dict[str, list[str]] = {}
        self._targets: dict[str, dict[tuple, tuple[str, ...]]] = {}

    def value(
        self, spans: tuple[Span, ...], following: tuple[Span, ...], number: int, count: int
    ) -> tuple[str, int, int] | None:
        """(name, rank, line) of output `number` of `count` of an equation that ran in `spans`, the next one in `following`."""
        ended = [span for d, span in enumerate(spans) if following[: d + 1] != spans[: d + 1]]
        known = [found for span in ended if (found := self._of_expression(span, number, count))]
        return min(known, key=lambda found: found[1], default=None)

    def _of_expression(self, span: Span, number: int, count: int) -> tuple[str, int, int] | None:
        """(name, rank, line) of the value of an expression, for output `number` of `count`."""
        inside = span.file.startswith(_JAX)
        targets = self._assigned(span.file).get((span.start, span.end), ())
        if len(targets) == count and targets[number]:
            return targets[number], _VARIABLE_INSIDE if inside else _VARIABLE, span.start[0]
        text = self.text(span) if count == 1 else ""
        return (text, _EXPRESSION_INSIDE if inside else _EXPRESSION, span.start[0]) if text else None

    def text(self, span: Span) -> str:
        """The expression on one line, shortened."""
        lines = self._read(span.file)[span.start[0] - 1 : span.end[0]]
        if not lines:
            return ""
        # columns count bytes
        last = lines[-1].encode()[: span.end[1]].decode(errors="ignore")
        lines = [*lines[:-1], last]
        lines[0] = lines[0].encode()[span.start[1] :].decode(errors="ignore")
        text = " ".join(" ".join(lines).split())
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

    def _read(self, file: str) -> list[str]:
        if file not in self._lines:
            self._lines[file] = linecache.getlines(file)
        return self._lines[file]

    def _assigned(self, file: str) -> dict[tuple, tuple[str, ...]]:
        """{where an expression starts and ends: the names it is assigned to}."""
        if file not in self._targets:
            try:
                tree = ast.parse("".join(self._read(file)))
            except (SyntaxError, ValueError):
                tree = ast.Module([], [])
            found = (pair for node in ast.walk(tree) for pair in _assignments(node))
            self._targets[file] = {_extent(value): names for value, names in found}
        return self._targets[file]


def _assignments(node: ast.AST) -> Iterator[tuple[ast.expr, tuple[str, ...]]]:
    """(value, names) of an assignment; the name of what is no plain variable is empty."""
    if isinstance(node, ast.Assign):
        target, value = node.targets[-1], node.value
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        target, value = node.target, node.value
    else:
        return
    flat = list(_flat(target))
    names = tuple(x.id if isinstance(x, ast.Name) else "" for x in flat)
    if isinstance(value, ast.Tuple) and len(value.elts) == len(names):
        yield from ((part, (name,)) for part, name in zip(value.elts, names, strict=True))
    else:
        yield value, names


def _flat(target: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _flat(part)
    else:
        yield target


def _extent(node: ast.expr) -> tuple:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)

"""Where a number stops being finite: the first equation whose result, or whose cotangent on the way back, is not finite.

    origin = nan_origin(function, x)         None if value and gradient are finite
    print(origin)                            `jnp.log(p)` at loss.py:12, where p = 0

The line is the caller's; where it calls a library, what it is inside of is added: `jnp.linalg.norm(x)` at loss.py:12, where
x = 0, inside jax.numpy.linalg.norm, in `ufuncs.sqrt(...)` at linalg.py:7.

The function is traced and its equations are evaluated one after the other, forward; if all that comes out is finite, then
backward, each with its own derivative. The equation at fault is the first that turns finite numbers into one that is not; a
call, a branch or a custom_vjp is then entered, and of a loop the step at which it happens. Infinities that were given (a mask
of -inf) are no fault: what is named then is the equation that makes NaN of them.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from fdl.check.interpreter import bound, call_of, opened
from fdl.check.paths import Sources, Span, _argument_names, _Sites, spans_of
from fdl.check.places import where_of
from fdl.check.subject import Differentiated, argument_names, layout_of, signed
from fdl.errors import refuse

_OPERANDS = 3  # that are shown


@dataclasses.dataclass(frozen=True)
class Origin:
    """The first equation, or the argument, that is not finite.

    expression, file and line are the caller's, `detail` those of the library function `inside` which it is.

        >>> origin = fdl.check.nan_origin(lambda x: jnp.sqrt(x - 1).sum(), jnp.float32([0.5, 2]))
        >>> origin.primitive, origin.backward
        ('sqrt', False)
    """

    expression: str  # its source text; of an argument, its path
    primitive: str  # empty for an argument
    file: str
    line: int
    operands: tuple[tuple[str, float], ...]  # what went in, at the first entry that is not finite
    value: float  # what came out
    backward: bool  # on the way back
    steps: tuple[int, ...] = ()  # of the loops it is in
    inside: str = ""  # "jax.numpy.linalg.norm"
    detail: str = ""  # "`ufuncs.sqrt(...)` at linalg.py:7"

    def __str__(self) -> str:
        if not self.primitive:
            return f"the argument {self.expression}, which holds {self.value}"
        at = f" at {os.path.basename(self.file)}:{self.line}" if self.file else ""
        where = " and ".join(f"{name} = {value:.6g}" for name, value in self.operands)
        step = "".join(f", in step {step}" for step in self.steps)
        back = ", on the way back" if self.backward else ""
        inside = f", inside {self.inside}" if self.inside else ""
        detail = f", in {self.detail}" if self.detail else ""
        shown = f"`{self.expression or self.primitive}`{at}{f', where {where}' if where else ''}"
        return f"{shown}{step}{back}{inside}{detail}"


def nan_origin(function: Callable, *args: Any, options: Mapping[str, Any] | None = None) -> Origin | None:
    """The first equation of `function(*args)`, or of the gradient of the sum of its outputs, that is not finite.

    None if everything that comes out is finite. args: arrays or pytrees of arrays; options: keyword options. For an Op, what
    is looked at is its hand-written forward and backward pass.
    Errors: InputError and InputTypeError for arguments that are no arrays, and whatever the function raises.

        >>> print(fdl.check.nan_origin(lambda x: jnp.sqrt(x - 1).sum(), jnp.float32([0.5, 2])).primitive)
        sqrt
        >>> print(fdl.check.nan_origin(jnp.tanh, jnp.float32([0.5])))
        None
    """
    where = "check.nan_origin"
    if not args:
        refuse(where, "got no arguments; pass them after the function: nan_origin(function, x, w)")
    layout = layout_of(where, argument_names(signed(function), len(args)), args)
    active, leaves = layout.split(args)
    return origin_of(Differentiated(function, layout, dict(options or {})), active, (leaves, {}))


def origin_of(subject: Differentiated, active: list, fixed: Any, w: Sequence[Any] | None = None) -> Origin | None:
    """The same for a subject and given cotangents."""
    names = subject.layout.active
    run = lambda active: subject.outputs(active, fixed)[0]
    jaxpr = jax.make_jaxpr(run)(active)
    search = _Search(jaxpr, names)
    args = [jnp.asarray(x) for x in active]
    outs, found = search.forward(jaxpr, args, ())
    if found is None and all(map(_is_finite, outs)):
        cotangents = [jnp.ones_like(out) for out in outs] if w is None else _like(w, outs)
        _, found = search.backward(jaxpr, args, cotangents, [True] * len(args), ())
    return found or next((_argument(*pair) for pair in zip(names, args, strict=True) if not _is_finite(pair[1])), None)


def _like(w: Sequence[Any], outs: Sequence[Any]) -> list:
    return [jnp.asarray(np.asarray(x)).astype(out.dtype) for x, out in zip(w, outs, strict=True)]


def _argument(path: str, x: Any) -> Origin:
    bad = np.asarray(x).astype(np.float64)
    return Origin(path, "", "", 0, (), float(bad[~np.isfinite(bad)][0]), False)


# ---- the search ----


@dataclasses.dataclass(eq=False)
class _Run:
    """A jaxpr evaluated: the value of every variable, and which equation made it."""

    jaxpr: Any
    values: dict[Any, Any]
    made_by: dict[Any, Any]

    def read(self, atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else self.values[atom]

    def ins(self, equation: Any) -> list:
        return [self.read(atom) for atom in equation.invars]

    def outs(self) -> list:
        return [self.read(atom) for atom in self.jaxpr.outvars]


def _evaluated(jaxpr: Any, args: Sequence[Any]) -> _Run:
    jaxpr, consts = opened(jaxpr)
    run = _Run(jaxpr, dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)), {})
    for equation in jaxpr.eqns:
        outs = bound(equation, run.ins(equation))
        run.values.update(zip(equation.outvars, outs, strict=True))
        run.made_by.update((variable, equation) for variable in equation.outvars)
    return run


class _Search:
    def __init__(self, jaxpr: Any, names: Sequence[str]):
        self._sources = Sources()
        self._names: dict[Any, str] = {}
        self._entered: list[tuple[_Run, Any]] = []  # the calls and loops, from the outermost inwards
        self._learn(jaxpr, names)

    def _learn(self, jaxpr: Any, names: Sequence[str]) -> None:
        """What the variables of a jaxpr are called in its source."""
        sites = _Sites()
        sites.of(opened(jaxpr)[0], list(names))
        self._names.update(sites._names)

    def _learn_called(self, jaxpr: Any, operands: Sequence[Any]) -> None:
        """What the variables of a called jaxpr are called: its arguments as in the call, or else as in the function."""
        jaxpr, _ = opened(jaxpr)
        if any(self._names.get(v) for v in jaxpr.invars):
            return
        outside = ["" if hasattr(atom, "val") else self._names.get(atom, "") for atom in operands]
        inside = _argument_names(jaxpr) or [""] * len(outside)
        self._learn(jaxpr, [name or other for name, other in zip(outside, inside, strict=False)])

    # ---- forward ----

    def forward(self, jaxpr: Any, args: Sequence[Any], steps: tuple[int, ...]) -> tuple[list, Origin | None]:
        """(what comes out, the equation from which it is not finite)."""
        run = _evaluated(jaxpr, args)
        equation = _birth(run)
        return run.outs(), None if equation is None else self._enter(run, equation, steps)

    def _enter(self, run: _Run, equation: Any, steps: tuple[int, ...]) -> Origin:
        """The origin inside a call or a loop, or the equation itself."""
        self._entered.append((run, equation))
        found = self._inside(run, equation, steps) or self._origin(run, equation, steps)
        self._entered.pop()
        return found

    def _inside(self, run: _Run, equation: Any, steps: tuple[int, ...]) -> Origin | None:
        ins, name, params = run.ins(equation), equation.primitive.name, equation.params
        found = None
        if (inner := _called(equation, ins)) is not None:
            self._learn_called(inner, equation.invars[1:] if name == "cond" else equation.invars)
            _, found = self.forward(inner, ins[1:] if name == "cond" else ins, steps)
        elif name == "scan":
            for step, operands in enumerate(_steps_of(equation, ins)):
                outs = _compiled_call(params["jaxpr"], operands)
                if not all(map(_is_finite, outs)):
                    _, found = self.forward(params["jaxpr"], operands, (*steps, _index(params, step)))
                    if found is not None:
                        break
        elif name == "while":
            found = self._in_while(params, ins, steps)
        return found

    def _in_while(self, params: Any, ins: list, steps: tuple[int, ...]) -> Origin | None:
        of_condition, of_body = params["cond_nconsts"], params["body_nconsts"]
        of_both = of_condition + of_body
        carry, step = ins[of_both:], 0
        while bool(_compiled_call(params["cond_jaxpr"], [*ins[:of_condition], *carry])[0]):
            operands = [*ins[of_condition:of_both], *carry]
            carry = _compiled_call(params["body_jaxpr"], operands)
            if not all(map(_is_finite, carry)):
                _, found = self.forward(params["body_jaxpr"], operands, (*steps, step))
                if found is not None:
                    return found
            step += 1
        return None

    # ---- backward ----

    def backward(
        self, jaxpr: Any, args: Sequence[Any], cotangents: Sequence[Any], wanted: Sequence[bool], steps: tuple[int, ...]
    ) -> tuple[list, Origin | None]:
        """(the cotangents of the arguments, the equation from which they are not finite), from finite cotangents.

        wanted: the arguments that have one.
        """
        run = _evaluated(jaxpr, args)
        inner = run.jaxpr
        active = {v for v, own in zip(inner.invars, wanted, strict=True) if own and _is_floating(v)}
        for equation in inner.eqns:
            if any(not hasattr(atom, "val") and atom in active for atom in equation.invars):
                active |= {v for v in equation.outvars if _is_floating(v)}
        flowing: dict[Any, Any] = {}
        for atom, cotangent in zip(inner.outvars, cotangents, strict=True):
            if not hasattr(atom, "val") and atom in active:
                _add(flowing, atom, cotangent)
        for equation in reversed(inner.eqns):
            given = [flowing.get(v) for v in equation.outvars]
            if all(x is None for x in given):
                continue
            place = [k for k, atom in enumerate(equation.invars) if not hasattr(atom, "val") and atom in active]
            ins = run.ins(equation)
            pulled = _pulled_back(equation, ins, place, given)
            if not all(map(_is_finite, pulled)):
                return [], self._enter_back(run, equation, place, given, pulled, steps)
            for k, x in zip(place, pulled, strict=True):
                _add(flowing, equation.invars[k], x)
        return [flowing.get(v) for v in inner.invars], None

    def _enter_back(
        self, run: _Run, equation: Any, place: list[int], given: list, pulled: list, steps: tuple[int, ...]
    ) -> Origin:
        self._entered.append((run, equation))
        found = self._inside_back(run, equation, place, given, steps)
        found = found or self._origin(run, equation, steps, pulled=dict(zip(place, pulled, strict=True)))
        self._entered.pop()
        return found

    def _inside_back(
        self, run: _Run, equation: Any, place: list[int], given: list, steps: tuple[int, ...]
    ) -> Origin | None:
        ins, name, params = run.ins(equation), equation.primitive.name, equation.params
        outs = [run.values[v] for v in equation.outvars]
        given = [jnp.zeros_like(y) if x is None and _floats(y) else x for x, y in zip(given, outs, strict=True)]
        found = None
        if name == "custom_vjp_call":
            found = self._in_custom_vjp(equation, ins, given, steps)
        elif name != "custom_jvp_call" and (inner := _called(equation, ins)) is not None:
            offset = 1 if name == "cond" else 0
            self._learn_called(inner, equation.invars[offset:])
            wanted = [k + offset in place for k in range(len(ins) - offset)]
            _, found = self.backward(inner, ins[offset:], given, wanted, steps)
        elif name == "scan":
            found = self._back_through_scan(params, equation, ins, place, given, steps)
        return found

    def _back_through_scan(
        self, params: Any, equation: Any, ins: list, place: list[int], given: list, steps: tuple[int, ...]
    ) -> Origin | None:
        consts, carries = params["num_consts"], params["num_carry"]
        operands = list(_steps_of(equation, ins))
        dcarry, dys = list(given[:carries]), given[carries:]
        wanted = [k in place or (consts <= k < consts + carries and _floats(ins[k])) for k in range(len(ins))]
        body = params["jaxpr"]
        pull = jax.jit(lambda args, cotangents: _body_pulled(body, args, cotangents, wanted))
        for step in reversed(range(len(operands))):
            at = _index(params, step)
            cotangents = [*dcarry, *(None if dy is None else dy[at] for dy in dys)]
            back = pull(operands[step], cotangents)
            if not all(x is None or _is_finite(x) for x in back):
                return self.backward(body, operands[step], cotangents, wanted, (*steps, at))[1]
            dcarry = [
                x if y is None or not _floats(y) else (jnp.zeros_like(y) if x is None else x)
                for x, y in zip(back[consts : consts + carries], operands[step][consts : consts + carries], strict=True)
            ]
        return None

    def _in_custom_vjp(self, equation: Any, ins: list, given: list, steps: tuple[int, ...]) -> Origin | None:
        """Inside a hand-written rule: its forward pass, and then its backward pass."""
        _, forward, backward = equation.primitive.get_bind_params(equation.params)["subfuns"]
        constants = equation.params["num_consts"]
        count = len(equation.outvars)

        def run(*args):
            pairs = [entry for k, x in enumerate(args) for entry in (x, k >= constants)]
            return forward.call_wrapped(*pairs)

        traced = jax.make_jaxpr(run)(*ins)
        names = [self._names.get(a, "") if not hasattr(a, "val") else "" for a in equation.invars]
        self._learn(traced, names)
        outs, found = self.forward(traced, ins, steps)
        computed = iter(outs[: len(outs) - count])
        _, _, forwarded = equation.params["out_trees"]()  # residuals that are arguments are not returned
        residuals = [next(computed) if place is None else ins[constants:][place] for place in forwarded]
        if found is not None and any(not _is_finite(x) for x in residuals):
            return found
        floats = [jnp.zeros((), jax.dtypes.float0) if x is None else x for x in given]
        pull = lambda residuals, *cotangents: [
            x for x in backward.call_wrapped(*residuals, *cotangents) if hasattr(x, "dtype")
        ]
        traced = jax.make_jaxpr(pull)(residuals, *floats)
        self._learn(traced, ())
        _, found = self.forward(traced, [*residuals, *floats], steps)
        return None if found is None else dataclasses.replace(found, backward=True)

    # ---- in words ----

    def _origin(self, run: _Run, equation: Any, steps: tuple[int, ...], pulled: dict[int, Any] | None = None) -> Origin:
        results = list((pulled or dict(enumerate(run.values[v] for v in equation.outvars))).values())
        bad = next(np.asarray(x).astype(np.float64) for x in results if not _is_finite(x))
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(bad))[0])
        where = where_of([entered for _, entered in self._entered])
        span = where.shown
        text = self._sources.text(span) if span else ""
        # a library's values may have no names: then what the caller gave it is shown
        inner = (self._operands(*entered, bad.shape, index, text) for entered in reversed(self._entered))
        operands = next(filter(None, inner), ())
        detail = self._detail(where.library) if where.own and where.inside and where.library else ""
        file, line = (span.file, span.start[0]) if span else ("", 0)
        value, backward = float(bad[index]), pulled is not None
        name = equation.primitive.name
        return Origin(text, name, file, line, operands, value, backward, steps, where.inside, detail)

    def _operands(
        self, run: _Run, equation: Any, shape: tuple[int, ...], index: tuple[int, ...], text: str
    ) -> tuple[tuple[str, float], ...]:
        """The names of what an equation takes and the values at the entry: of arrays of that shape, numbers and zeros."""
        shown = {}
        for atom in equation.invars:
            if hasattr(atom, "val") or not _is_floating(atom):
                continue
            x = np.asarray(run.values[atom]).astype(np.float64)
            if x.shape == shape or x.ndim == 0:
                shown[self._called(run, atom)] = float(x[index] if x.ndim else x)
            elif x.size and not x.any():
                shown[self._called(run, atom)] = 0.0
        return tuple((name, value) for name, value in shown.items() if name and name != text)[:_OPERANDS]

    def _detail(self, span: Span) -> str:
        at = f"{os.path.basename(span.file)}:{span.start[0]}"
        return f"`{text}` at {at}" if (text := self._sources.text(span)) else at

    def _called(self, run: _Run, atom: Any) -> str:
        """The name of a variable, or the expression it is the value of."""
        if self._names.get(atom):
            return self._names[atom]
        spans = spans_of(run.made_by[atom]) if atom in run.made_by else ()
        return self._sources.text(spans[-1]) if spans else ""


def _birth(run: _Run) -> Any:
    """The first equation that turns finite numbers into some that are not, on the way to an output that is not finite.

    Where infinities were given and none was made: the first that makes NaN.
    """
    reached, waiting = set(), [a for a in run.jaxpr.outvars if not hasattr(a, "val") and not _is_finite(run.values[a])]
    while waiting:
        equation = run.made_by.get(waiting.pop())
        if equation is None or id(equation) in reached:
            continue
        reached.add(id(equation))
        bad = [a for a in equation.invars if not hasattr(a, "val") and not _is_finite(run.values[a])]
        waiting += bad
    on_the_way = [equation for equation in run.jaxpr.eqns if id(equation) in reached]
    made = [equation for equation in on_the_way if all(map(_is_finite, run.ins(equation)))]
    of_nothing = [e for e in on_the_way if not _has_nan(run.ins(e)) and _has_nan([run.values[v] for v in e.outvars])]
    return next(iter([*made, *of_nothing]), None)


def _called(equation: Any, ins: list) -> Any:
    """The jaxpr that an equation runs once; None for an operation or a loop."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return params["branches"][int(np.clip(int(ins[0]), 0, len(params["branches"]) - 1))]
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return params["call_jaxpr"]
    if name == "custom_vmap_call":
        return params["call"]
    return call_of(equation)


def _steps_of(equation: Any, ins: list) -> Any:
    """What the body of a scan is called with, step by step in the order in which they run."""
    params = equation.params
    consts, carries = params["num_consts"], params["num_carry"]
    fixed, carry, xs = ins[:consts], ins[consts : consts + carries], ins[consts + carries :]
    for step in range(params["length"]):
        at = _index(params, step)
        operands = [*fixed, *carry, *(x[at] for x in xs)]
        yield operands
        carry = _compiled_call(params["jaxpr"], operands)[:carries]


def _index(params: Any, step: int) -> int:
    return params["length"] - 1 - step if params["reverse"] else step


def _compiled_call(jaxpr: Any, args: Sequence[Any]) -> list:
    """What a jaxpr returns, compiled."""
    return list(_jitted(jaxpr)(*args))


@functools.lru_cache(maxsize=64)
def _jitted(jaxpr: Any) -> Callable:
    return jax.jit(jax.extend.core.jaxpr_as_fun(jaxpr))


def _body_pulled(body: Any, args: list, cotangents: list, wanted: list[bool]) -> list:
    """The cotangents of the wanted arguments of a jaxpr; None for the others."""
    place = [k for k, own in enumerate(wanted) if own]
    return _spread(len(args), place, _pull(jax.extend.core.jaxpr_as_fun(body), args, place, cotangents))


def _spread(count: int, place: list[int], items: list) -> list:
    known = dict(zip(place, items, strict=True))
    return [known.get(k) for k in range(count)]


def _pulled_back(equation: Any, ins: list, place: list[int], given: list) -> list:
    """The cotangents of some operands of an equation."""
    return _pull(lambda *args: bound(equation, list(args)), ins, place, given)


def _pull(run: Callable, ins: list, place: list[int], given: list) -> list:
    def of_active(*active):
        args = list(ins)
        for k, x in zip(place, active, strict=True):
            args[k] = x
        return [y for y in run(*args) if _floats(y)]

    outs, pull = jax.vjp(of_active, *(ins[k] for k in place))
    floats = [x for x in given if x is None or _floats(x)]
    floats = floats if len(floats) == len(outs) else [x for x in given if x is not None]
    return list(pull([jnp.zeros_like(y) if x is None else x for x, y in zip(floats, outs, strict=True)]))


def _add(flowing: dict[Any, Any], variable: Any, x: Any) -> None:
    flowing[variable] = x if variable not in flowing else flowing[variable] + x


def _is_floating(atom: Any) -> bool:
    dtype = getattr(atom.aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


def _floats(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def _is_finite(x: Any) -> bool:
    return not _floats(x) or bool(jnp.all(jnp.isfinite(x)))


def _has_nan(xs: Sequence[Any]) -> bool:
    return any(_floats(x) and bool(jnp.any(jnp.isnan(x))) for x in xs)

"""A failing check as a pytest file that stands alone: imports, arguments as literals, one assertion.

What can be imported is imported from where it lives. Functions that cannot (local ones, lambdas, those of a script) are carried
as text, with the globals and closure variables they use. What cannot be written down is named at the top of the file and left
as `...`: the file is then not standalone.
"""

import ast
import dataclasses
import functools
import inspect
import keyword
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check.subject import is_constant
from fdl.layer import Bound, Layer
from fdl.op import Op

_CONSTANT = 8  # longer arrays of one value are written as jnp.full


@dataclasses.dataclass(frozen=True)
class Call:
    """The check that the file repeats. entry: of the output, the one that counts: (leaf, index); None: all of it.

    alone: (quantity, leaf), the only one that has to be right; None: everything has to be.
    """

    candidate: Callable
    reference: Callable | None
    names: tuple[str, ...]
    args: tuple
    options: Mapping[str, Any]
    modes: str
    key: Any
    entry: tuple[int, tuple[int, ...]] | None = None
    alone: tuple[str, str] | None = None


def written(call: Call, title: str, story: Sequence[str]) -> tuple[str, bool]:
    """(the text of the file, whether it stands alone)."""
    writer = _Writer()
    writer.module("fdl")
    if call.entry is not None:
        writer.imports.add(f"from fdl.check.shrink import {writer.fresh('entry')}")
    candidate = writer.function(call.candidate, "candidate")
    reference = None if call.reference is None else writer.function(call.reference, "reference")
    if call.entry is not None:
        wrap = f"entry({{}}, {call.entry[0]}, {call.entry[1]})"
        if reference is None and isinstance(call.candidate, Op):
            reference = f"{candidate}.equation"
        candidate = wrap.format(candidate)
        reference = reference and wrap.format(reference)
    lines, names = [], []
    for name, arg in zip(call.names, call.args, strict=True):
        names.append(writer.fresh(name))
        lines.append(f"{names[-1]} = {writer.tree(arg)}")
    settings = [f"reference={reference}"] if reference else []
    of_layer = isinstance(call.candidate, Layer)
    if call.options and of_layer:
        settings += [f"{name}={writer.tree(value)}" for name, value in call.options.items()]
    elif call.options:
        settings.append(f"options={writer.tree(dict(call.options))}")
    settings += [f'modes="{call.modes}"', f"key={writer.tree(call.key)}"]
    passed = [f"    {part}," for part in (candidate, *names, *settings)]
    if call.alone is None and not of_layer:
        lines += ["fdl.check.assert_gradients(", *passed, ")"]
    else:
        verb = "layer" if of_layer else "gradients"
        lines += [f"report = fdl.check.{verb}(", *passed, ")", *_assertion(call.alone)]
    return writer.text(title, story, lines), not writer.missing


def _assertion(alone: tuple[str, str] | None) -> list[str]:
    if alone is None:
        return ["assert report.ok, report"]
    if alone[0] == "error":
        return ['assert report.comparisons and all(f.quantity != "error" for f in report.failures), report']
    verdicts = "verdicts = {(leaf.quantity, leaf.leaf): leaf.verdict for leaf in report.leaves}"
    return [verdicts, f'assert verdicts[{alone[0]!r}, {alone[1]!r}] == "right", report']


class _Writer:
    """Collects what the file needs: imports, definitions, and what could not be written down."""

    def __init__(self):
        self.imports: set[str] = set()
        self.definitions: list[str] = []
        self.missing: list[str] = []
        self._named: dict[str, Any] = {}  # every name of the file, and what it stands for

    def text(self, title: str, story: Sequence[str], body: list[str]) -> str:
        own = sorted(
            {line.split()[1].partition(".")[0] for line in self.imports} - {"fdl", "functools", "jax", "numpy"}
        )
        where = f" where {' and '.join(own)} can be imported" if own else ""
        told = [*story, f"Run it{where}: python -m pytest FILE.py"]
        told += [f"To fill in: {what}." for what in self.missing]
        doc = (
            "\n\n".join(textwrap.fill(part, 116) for part in (title, *told)).replace("\\", "\\\\").replace('"""', "'''")
        )
        parts = [f'"""{doc}\n"""', "\n".join(sorted(self.imports, key=lambda line: (line.split()[1], line)))]
        parts += self.definitions
        test = "\n".join(["def test_gradients():", *(f"    {line}" for line in body)])
        return "\n\n".join(parts[:2]) + "".join(f"\n\n\n{part}" for part in (*parts[2:], test)) + "\n"

    def fresh(self, name: str, value: Any = None) -> str:
        """The name, or one like it that is still free."""
        name = re.sub(r"\W+", "_", name).strip("_") or "function"
        while name in self._named or keyword.iskeyword(name):
            name += "_"
        self._named[name] = value
        return name

    def module(self, name: str, alias: str = "") -> None:
        top = alias or name.partition(".")[0]
        self.imports.add(f"import {name} as {alias}" if alias and alias != name else f"import {name}")
        self._named.setdefault(top, sys.modules.get(name if alias else top))

    def lacking(self, name: str, what: str) -> str:
        self.missing.append(f"{name}, {what}")
        return "..."

    # ---- functions ----

    def function(self, function: Any, name: str) -> str:
        """An expression for the function; what it takes is imported or defined."""
        if place := importable(function):
            self.module(place[0])
            return ".".join(place)
        known = next((own for own, value in self._named.items() if value is function), None)
        if known is not None:
            return known
        if isinstance(function, Op):
            return self._op(function, name)
        if isinstance(function, jax.custom_vjp):
            return self._custom_vjp(function, name)
        if isinstance(function, Layer):
            return self._layer(function, name)
        if isinstance(function, Bound):
            self.module("fdl.layer")
            bound = [f"{key}={self.tree(kept.value)}" for key, kept in function.settings]
            return f"fdl.layer.bind({', '.join([self.function(function.function, name), *bound])})"
        if isinstance(function, functools.partial):
            parts = [self.function(function.func, name), *map(self.tree, function.args)]
            parts += [f"{key}={self.tree(value)}" for key, value in function.keywords.items()]
            self.module("functools")
            return f"functools.partial({', '.join(parts)})"
        if isinstance(function, FunctionType):
            return self._carried(function, name)
        inner = getattr(function, "__wrapped__", None)
        if callable(inner) and hasattr(function, "lower"):  # jax.jit of a function that cannot be imported
            self.module("jax")
            return f"jax.jit({self.function(inner, name)})"
        name = self.fresh(name, function)
        self.definitions.append(
            f"{name} = {self.lacking(name, f'a {type(function).__name__} that cannot be imported')}"
        )
        return name

    def _op(self, op: Op, name: str) -> str:
        parts = [
            self.function(part, role)
            for part, role in zip(_parts(op), ("equation", "forward", "backward"), strict=True)
        ]
        made = f"fdl.Op({', '.join(parts)}, name={op.name!r})"
        bound = {option: kept.value for option, kept in op.options}
        if bound:
            made += f".bind({', '.join(f'{option}={self.tree(value)}' for option, value in bound.items())})"
        name = self.fresh(op.name if op.name.isidentifier() else name, op)
        self.definitions.append(f"{name} = {made}")
        return name

    def _layer(self, layer: Layer, name: str) -> str:
        parts = {"init": layer._init, "run": layer._run, "backward": layer._backward}
        made = [f"{key}={self.function(part, f'{layer.name}_{key}')}" for key, part in parts.items()]
        if layer.layers:
            made.append(f"layers={self.tree(layer.layers)}")
        if layer.stochastic:
            made.append("stochastic=True")
        self.module("fdl")
        name = self.fresh(layer.name, layer)
        self.definitions.append(f"{name} = fdl.Layer({', '.join([repr(layer.name), *made])})")
        return name

    def _custom_vjp(self, function: Any, name: str) -> str:
        fun, fwd, bwd = (
            self.function(part, role) for part, role in zip(_parts(function), ("primal", "fwd", "bwd"), strict=True)
        )
        self.module("jax")
        fixed = f", nondiff_argnums={tuple(function.nondiff_argnums)!r}" if function.nondiff_argnums else ""
        name = self.fresh(name, function)
        self.definitions.append(f"{name} = jax.custom_vjp({fun}{fixed})\n{name}.defvjp({fwd}, {bwd})")
        return name

    def _carried(self, function: FunctionType, name: str) -> str:
        """The text of a function, under its own name if that is free."""
        own = function.__name__ if function.__name__.isidentifier() else name
        name = self.fresh(own, function)
        found = _definition(function)
        if found is None:
            self.definitions.append(f"{name} = {self.lacking(name, 'a function whose text was not found')}")
            return name
        node, text = found
        for used in sorted({n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & _outer_names(function.__code__)):
            self._used(used, function)
        if isinstance(node, ast.Lambda):
            text = f"{name} = {text}" if "\n" not in text else f"{name} = ({text})"
        elif name != node.name:
            text = re.sub(rf"def {node.name}\b", f"def {name}", text, count=1)
        self.definitions.append(text)
        return name

    def _used(self, name: str, function: FunctionType) -> None:
        """Something that a carried function takes from around it."""
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        try:
            value = cells[name].cell_contents if name in cells else function.__globals__[name]
        except (KeyError, ValueError):  # its own variable, a builtin, or not bound yet
            return
        if name in self._named:
            if self._named[name] is not value:
                self.lacking(name, f"which {function.__name__} takes from around it, and which is something else here")
            return
        if isinstance(value, ModuleType):
            self.module(value.__name__, name)
            return
        expression = self.function(value, name) if callable(value) else self.tree(value)
        if expression != name:
            self._named[name] = value
            self.definitions.append(f"{name} = {expression}")

    # ---- values ----

    def tree(self, x: Any) -> str:
        """Arrays, keys, and containers of them, as an expression."""
        if type(x) is dict:
            return "{" + ", ".join(f"{key!r}: {self.tree(value)}" for key, value in x.items()) + "}"
        if type(x) is list:
            return f"[{', '.join(map(self.tree, x))}]"
        if type(x) is tuple:
            return f"({', '.join(map(self.tree, x))}{',' if len(x) == 1 else ''})"
        if isinstance(x, tuple) and hasattr(x, "_fields") and (place := importable(type(x))):
            self.module(place[0])
            return f"{'.'.join(place)}({', '.join(map(self.tree, x))})"
        if not is_constant(x):
            return self._array(x)
        if (made := self._dataclass(x)) is not None:
            return made
        if x is None or isinstance(x, bool | int | str):
            return repr(x)
        if isinstance(x, float):
            return repr(x) if np.isfinite(x) else f'float("{x}")'
        if callable(x) or isinstance(x, Layer):
            return self.function(x, getattr(x, "__name__", ""))
        return self.lacking(f"a {type(x).__name__}", "which is no array and no container of Python")

    def _dataclass(self, x: Any) -> str | None:
        """A module whose constructor takes its fields; None for others, and for what is none."""
        if not dataclasses.is_dataclass(x) or isinstance(x, type | Op | Layer | Bound):
            return None
        fields = {field.name: getattr(x, field.name, None) for field in dataclasses.fields(x) if field.init}
        try:
            again = type(x)(**fields)
            same = jax.tree.structure(again) == jax.tree.structure(x)
        except Exception:  # a constructor of its own
            return None
        if not same or not (place := importable(type(x))):
            return None
        self.module(place[0])
        return f"{'.'.join(place)}({', '.join(f'{name}={self.tree(value)}' for name, value in fields.items())})"

    def _array(self, x: Any) -> str:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            self.module("jax")
            return f'jax.random.wrap_key_data({self._array(jax.random.key_data(x))}, impl="{jax.random.key_impl(x)}")'
        x = np.asarray(x)
        # without x64, jnp has nothing of 64 bits
        home, space = ("numpy", "np") if x.dtype.itemsize == 8 else ("jax.numpy", "jnp")
        self.module(home, space)
        dtype = f"{space}.{'bool_' if x.dtype == bool else x.dtype.name}"
        if x.size == 0 or (x.size > _CONSTANT and (x == x.flat[0]).all()):
            return f"{space}.full({x.shape}, {_nested(x.flat[0], space) if x.size else 0}, {dtype})"
        return f"{space}.asarray({_nested(x, space)}, {dtype})"


def importable(x: Any) -> tuple[str, str] | None:
    """(module, name) from which x can be imported: the shortest public one, or else where it was defined."""
    modules = [
        module for module in list(sys.modules.values()) if isinstance(module, ModuleType) and _can_import(module)
    ]
    places = [(module.__name__, name) for module in modules for name, value in list(vars(module).items()) if value is x]
    path, home = getattr(x, "__qualname__", ""), sys.modules.get(getattr(x, "__module__", None) or "")
    if isinstance(home, ModuleType) and _can_import(home) and "." in path and _reached(home, path) is x:
        places.append((home.__name__, path))
    return min(places, key=_distance, default=None)


def _distance(place: tuple[str, str]) -> tuple:
    parts = ".".join(place).split(".")
    return any(part.startswith("_") for part in parts), len(parts), place


def _can_import(module: ModuleType) -> bool:
    return module.__name__ != "__main__" and getattr(module, "__spec__", None) is not None


def _reached(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


def _parts(function: Any) -> tuple:
    """The three functions that an Op, or a custom_vjp, is made of."""
    if isinstance(function, Op):
        return function._equation, function._forward, function._backward
    return function.fun, function.fwd, function.bwd


def _definition(function: FunctionType) -> tuple[Any, str] | None:
    """The syntax tree and the text of a function: a `def` without its indentation, or a lambda expression."""
    try:
        lines, _ = inspect.findsource(function)
        whole = "".join(lines)
        tree = ast.parse(whole)
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    code = function.__code__
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first == code.co_firstlineno:
                return node, textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno])).rstrip()
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno and _is_body(node.body, code):
            return node, ast.get_source_segment(whole, node) or ""
    return None


def _outer_names(code: CodeType) -> set[str]:
    """What a function, or one inside it, may take from around it; names of attributes are among them."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return {*code.co_names, *code.co_freevars}.union(*map(_outer_names, inner))


def _is_body(body: ast.expr, code: CodeType) -> bool:
    """Whether this is the lambda among those of its line: its code lies where the body is."""
    spans = [(line, column) for line, _, column, _ in code.co_positions() if line and column]
    return bool(spans) and (body.lineno, body.col_offset) == min(spans)


def _nested(x: Any, space: str) -> str:
    if x.ndim:
        return f"[{', '.join(_nested(row, space) for row in x)}]"
    if x.dtype.kind in "biu" or np.isfinite(x):
        return str(x[()])  # the shortest digits that give this number in its own dtype
    return f"{space}.nan" if np.isnan(x) else f"{'-' if x < 0 else ''}{space}.inf"

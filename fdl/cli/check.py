"""The command python -m fdl check PACKAGE.MODULE:NAME ...

    python -m fdl check mylib.losses:huber --arg float32[7,3] --arg float32[7,3] --option delta=2.0
    python -m fdl check mylib.losses:huber --reference mylib.losses:plain_huber --json
    python -m fdl check mylib.losses:huber --reference mylib.losses:plain_huber --shrink test_huber_gradient.py

The arguments of the candidate are drawn for each --arg: DTYPE[SIZE,...], standard normal for floats; integers are drawn below
10, or below the limit in int32[7]<3. Without --arg they come from a function `example_args()` of the candidate's module: a
tuple of arguments, or a dict of such tuples by name. A Layer takes what fdl.check.layer takes: x, or x, target and loss.

The verdict is the exit code: 0 right, 1 wrong, 2 undecided or could not run, which one paragraph on the standard error
stream explains. On a terminal with rich installed the report is in
colour (NO_COLOR turns that off); files are written whole or not at all.
"""

import argparse
import ast
import importlib
import math
import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from fdl.errors import InputError, InputTypeError
from fdl.files import write_whole

RIGHT, WRONG, UNDECIDED = 0, 1, 2
_LARGEST = 10**8  # entries of an argument that is drawn


class _Unusable(Exception):
    """Something on the command line that cannot be used: the message says what, and what was wanted."""


def add_to(commands: Any) -> None:
    """The command and its arguments."""
    check = commands.add_parser("check", help="is a backward pass right?", description=run.__doc__)
    check.add_argument(
        "candidate", metavar="PACKAGE.MODULE:NAME", help="an fdl.Op, a Layer, or a function that JAX can differentiate"
    )
    check.add_argument("--reference", metavar="PACKAGE.MODULE:NAME", help="a plain function of the same arguments")
    check.add_argument(
        "--arg", action="append", default=[], metavar="DTYPE[SIZE,...]", help="an argument to draw, in order"
    )
    check.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="a keyword option of both")
    check.add_argument("--modes", choices=("quick", "default", "all"), default="default")
    check.add_argument("--key", type=int, default=0, help="seed of the arguments and the cotangents (default: 0)")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.add_argument("--junit", metavar="FILE.xml", type=Path, help="write it for a CI server too")
    check.add_argument(
        "--shrink",
        metavar="FILE.py",
        type=Path,
        help="if wrong, write the smallest failing case found as a pytest file",
    )
    check.set_defaults(run=run)


def run(settings: argparse.Namespace) -> int:
    """Compares the gradients of a function with those of a reference. Exit code: 0 right, 1 wrong, 2 undecided or could
    not run."""
    try:
        return _check(settings)
    except (_Unusable, InputError, InputTypeError) as error:
        print(f"fdl check: {error}", file=sys.stderr)
    except Exception as error:
        print(f"fdl check: {_told(error)}", file=sys.stderr)
    return UNDECIDED


def _check(settings: argparse.Namespace) -> int:
    from fdl.check.layer import report_on
    from fdl.layer import Layer

    for path in (settings.junit, settings.shrink):
        if path is not None:
            _require_writable(path)
    candidate = _found(settings.candidate)
    reference = _found(settings.reference) if settings.reference else None
    args = tuple(_drawn(spec, settings.key, i) for i, spec in enumerate(settings.arg)) or _example(settings.candidate)
    options = dict(map(_option, settings.option))
    for place, function in ((settings.candidate, candidate), (settings.reference, reference)):
        if callable(function) and not isinstance(candidate, Layer):
            _require_call(place, function, args, options)
    asked = {"reference": reference, "options": options, "modes": settings.modes, "key": settings.key}
    report = report_on(candidate, *args, **asked)
    if settings.json:
        print(report.to_json(indent=2))
    else:
        _show(report)
    if settings.junit:
        _write_junit(settings.junit, settings.candidate, report)
    if settings.shrink:
        _write_shrunk(settings.shrink, report, candidate, args, asked)
    return {"right": RIGHT, "wrong": WRONG}.get(report.verdict, UNDECIDED)


def _show(report: Any) -> None:
    """In colour on a terminal, where rich is installed and NO_COLOR is not set; else as plain text."""
    try:
        from rich.console import Console
    except ImportError:
        print(report)
        return
    console = Console()
    plain = not console.is_terminal or console.is_dumb_terminal or console.no_color
    print(report) if plain else console.print(report)


def _require_writable(path: Path) -> None:
    """Before a check that takes long, rather than after it."""
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _Unusable(
            f"{path} cannot be written ({error.strerror or error}); name a file in a folder of yours"
        ) from error


def _require_call(place: str, function: Any, args: tuple, options: dict[str, Any]) -> None:
    import jax

    from fdl.check.subject import without_constants
    from fdl.errors import shown

    run = lambda: without_constants(function(*args, **options))
    try:
        try:
            jax.eval_shape(run)
        except jax.errors.JAXTypeError:  # it looks at numbers
            run()
    except Exception as error:
        taken = [*(shown(x) if hasattr(x, "shape") else type(x).__name__ for x in args)]
        taken += [f"{name}={value!r}" for name, value in options.items()]
        raise _Unusable(
            f"{place} cannot be called with ({', '.join(taken)}): {_told(error)}; "
            "give an --arg for each positional argument, in order, and --option NAME=VALUE for keyword arguments"
        ) from error


def _told(error: BaseException, lines: int = 3) -> str:
    """An error as a part of a paragraph: its kind, the beginning of what it says, and the line of the user's that raised it."""
    said = " ".join(" ".join(str(error).strip().splitlines()[:lines]).split()).rstrip(".") or "no message"
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []) if note.startswith("fdl"))
    at = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if "site-packages" not in frame.filename and not Path(frame.filename).is_relative_to(Path(__file__).parents[1]):
            at = f", at {Path(frame.filename).name}:{frame.lineno}"
    builtin = at if at and ":" in at and not at.startswith(", at <") else ""
    return f"{type(error).__name__}: {said}{builtin}{notes}"


def _found(place: str) -> Any:
    module_name, _, path = place.partition(":")
    if not module_name or not path:
        raise _Unusable(f"{place!r} is no place, wanted PACKAGE.MODULE:NAME such as mylib.losses:huber")
    try:
        found = importlib.import_module(module_name)
    except SystemExit as error:
        raise _Unusable(
            f"{module_name} ends the program when it is imported; guard it with __name__ == '__main__'"
        ) from error
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise _Unusable(
                f"there is no module {error.name!r}; run the command in the folder that holds it"
            ) from error
        raise _Unusable(f"{module_name} imports {error.name!r}, which is not installed; install it") from error
    except Exception as error:
        raise _Unusable(f"{module_name} cannot be imported: {_told(error)}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            there = (
                ", ".join(n for n in vars(found) if not n.startswith("_")) if hasattr(found, "__dict__") else "nothing"
            )
            raise _Unusable(f"{module_name} has no {path!r}; it has: {there}")
        found = getattr(found, name)
    return found


def _drawn(spec: str, seed: int, place: int) -> Any:
    import jax
    import jax.numpy as jnp

    match = re.fullmatch(r"\s*(\w+)\[\s*((?:\d+\s*(?:,\s*\d+\s*)*)?),?\s*\](?:<([1-9]\d*))?\s*", spec)
    try:
        dtype = jnp.dtype(match[1]) if match else None
    except TypeError:
        dtype = None
    if match is None or dtype is None:
        raise _Unusable(
            f"--arg {spec!r} is no argument, wanted a dtype and a shape: 'float32[7,3]', 'int32[7]<10', 'float32[]'"
        )
    shape = tuple(int(size) for size in re.findall(r"\d+", match[2]))
    if (size := math.prod(shape)) > _LARGEST:
        raise _Unusable(
            f"--arg {spec!r} has {size:,} entries, wanted at most {_LARGEST:,}: a check holds many copies of them"
        )
    try:
        return _draw(dtype, shape, int(match[3] or 10), jax.random.fold_in(jax.random.key(seed), place))
    except (MemoryError, OverflowError, ValueError, TypeError, jax.errors.JaxRuntimeError) as error:
        raise _Unusable(f"--arg {spec!r} with --key {seed} cannot be drawn: {_told(error)}") from error


def _draw(dtype: Any, shape: tuple[int, ...], limit: int, key: Any) -> Any:
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(dtype.itemsize == 8):
        if jnp.issubdtype(dtype, jnp.floating):
            return jax.random.normal(key, shape, jnp.float32).astype(dtype)
        if dtype.kind == "b":
            return jax.random.bernoulli(key, shape=shape)
        if not jnp.issubdtype(dtype, jnp.integer):
            raise TypeError(f"got {dtype}, wanted floats, integers or bool")
        return jax.random.randint(key, shape, 0, limit).astype(dtype)


def _example(place: str) -> tuple:
    module_name, _, path = place.partition(":")
    make = getattr(importlib.import_module(module_name), "example_args", None)
    if make is None:
        raise _Unusable(
            f"no arguments: give --arg for each, or {module_name} a function example_args() that returns them"
        )
    if not callable(make):
        raise _Unusable(
            f"{module_name}.example_args is {type(make).__name__}, wanted a function that returns the arguments"
        )
    try:
        args = make()
    except Exception as error:
        raise _Unusable(f"{module_name}.example_args() raised {_told(error)}") from error
    if isinstance(args, dict):
        if path not in args:
            raise _Unusable(
                f"{module_name}.example_args() has {', '.join(map(str, args)) or 'nothing'}, and no {path!r}"
            )
        args = args[path]
    if args is None or isinstance(args, str) or (isinstance(args, tuple | list) and not args):
        raise _Unusable(
            f"{module_name}.example_args() returned {args!r} for {path!r}, wanted a tuple of arguments, or a dict of them by name"
        )
    return tuple(args) if isinstance(args, tuple | list) else (args,)


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise _Unusable(f"--option {text!r} is no option, wanted NAME=VALUE such as delta=2.0")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, float(value) if value.lower().lstrip("+-") in ("nan", "inf") else value


def _write_junit(path: Path, name: str, report: Any) -> None:
    """One test case per array; an undecided one is skipped, not passed."""
    from xml.etree import ElementTree

    leaves = [leaf for leaf in report.leaves if leaf.quantity != "value"] or [None]
    suite = ElementTree.Element("testsuite", name=f"fdl check {name}")
    for leaf in leaves:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=leaf.leaf if leaf else "gradient")
        verdict = leaf.verdict if leaf else report.verdict
        if verdict == "wrong":
            ElementTree.SubElement(case, "failure", message=report.sentence).text = str(report)
        elif verdict != "right":
            ElementTree.SubElement(case, "skipped", message=leaf.note if leaf else report.sentence)
    if report.verdict == "wrong" and not any(case.find("failure") is not None for case in suite):
        case = ElementTree.SubElement(suite, "testcase", classname=name, name="verdict")
        ElementTree.SubElement(case, "failure", message=report.sentence).text = str(report)
    counts = {"failures": "failure", "skipped": "skipped"}
    for attribute, tag in counts.items():
        suite.set(attribute, str(sum(case.find(tag) is not None for case in suite)))
    suite.set("tests", str(len(suite)))
    write_whole(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def _write_shrunk(path: Path, report: Any, candidate: Any, args: tuple, asked: dict[str, Any]) -> None:
    """Says what became of it on the standard error stream: the output may be JSON."""
    from fdl.check import shrink

    if report.verdict != "wrong":
        print(f"fdl check: nothing to shrink, the verdict is {report.verdict}: {path} was not written", file=sys.stderr)
        return
    try:
        shrunk = shrink(candidate, *args, **asked)
        shrunk.save(path)
    except Exception as error:  # the verdict stands
        print(f"fdl check: {path} was not written: {_told(error)}", file=sys.stderr)
        return
    fill_in = "" if shrunk.standalone else "; its first lines say what has to be filled in"
    print(f"fdl check: {shrunk.sentence}: {path}{fill_in}", file=sys.stderr)

"""The command `python -m experiments`: finds the scripts, runs them, writes their results and the page of all results.

Nothing heavy is imported before the first line of output. A file is written under another name beside its place and
then renamed, a result after its figures, so that an interrupted run leaves earlier results whole.

Exit codes: 0 all claims of this run hold (or were not run), 1 a claim fails or an experiment stopped with an error,
2 the command cannot be carried out as given, 130 interrupted.
"""

import argparse
import ast
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments import _processes
from experiments._evidence import Claim, Figure, Settings, Table

HERE = Path(__file__).parent
DEFAULT = ("backprop", "digits")
PACKAGES = ("fdl", "jax", "jaxlib", "optax", "numpy", "matplotlib")
_STYLES = {"holds": "green", "fails": "bold red", "not run": "yellow", "error": "bold red", "head": "bold"}


class Refused(Exception):
    """The command cannot be carried out as given; the message is one line that says what to do."""


def main(argv: Sequence[str] | None = None, folder: Path = HERE, default: Sequence[str] = DEFAULT) -> int:
    """Run the command line `argv` on the experiments in `folder`; returns the exit code."""
    options = _parser().parse_args(argv)
    say = _printer()
    try:
        found = discover(folder)
        if options.list:
            return _list(found, say)
        names = _choose(options, found, default)
        settings = _settings(options)
        if settings.processes > 1:
            if not _processes.is_member():
                return _processes.launch(sys.argv[1:] if argv is None else argv, settings.processes)
            _processes.join(settings.processes)
        out = _folder(options.out)
        say(f"experiments: {', '.join(names)} (seed {settings.seed}) -> {out / 'index.html'}", "head")
        _need("jinja2", "matplotlib")
        return _run_all({name: found[name] for name in names}, settings, out, say)
    except Refused as reason:
        print(f"experiments: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("experiments: interrupted; results that were finished are kept", file=sys.stderr)
        return 130


def discover(folder: Path) -> dict[str, Path]:
    """The experiments in a folder by name: its Python files, without those that begin with an underscore."""
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")}


def describe(path: Path) -> dict[str, str]:
    """Title, question, command and expected result of a script, from its docstring, without importing it."""
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, ValueError):  # the import will say what is wrong, in its own words
        docstring = ""
    title, _, rest = docstring.partition("\n")
    described = {"title": title.strip().rstrip("."), "question": "", "command": "", "expected": "", "about": ""}
    for paragraph in re.split(r"\n\s*\n", rest.strip()):
        label, _, text = paragraph.partition(":")
        key = label.strip().lower()
        if key in ("question", "command", "expected"):
            described[key] = " ".join(text.split())
        elif paragraph.strip():
            described["about"] = f"{described['about']} {' '.join(paragraph.split())}".strip()
    return described


def strict(value: Any) -> Any:
    """The value as strict JSON has it: NaN and infinities become the strings "nan", "inf" and "-inf"."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if getattr(value, "size", None) == 1 and hasattr(value, "item"):  # numpy and jax scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="Run experiments, judge their claims, and write the page of all results.",
        epilog="Exit code: 0 all claims hold or were not run, 1 a claim fails or an experiment stopped, 2 cannot run.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which experiments; none: {' and '.join(DEFAULT)}")
    parser.add_argument("--all", action="store_true", help="every experiment")
    parser.add_argument("--list", action="store_true", help="show the experiments and stop")
    parser.add_argument(
        "--full", action="store_true", help="the long version, at the published size where there is one"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder with data sets in their own formats (mnist, cifar10, ...)"
    )
    parser.add_argument("--out", default="results", metavar="DIR", help="where results go (default: results)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random draw (default: 0)")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="train on N processes as one (default: 1)"
    )
    return parser


def _list(found: dict[str, Path], say: Callable[..., None]) -> int:
    width = max(map(len, found), default=0)
    for name, path in found.items():
        say(f"{name:{width}}  {describe(path)['title'] or '(no description)'}")
    return 0


def _choose(options: argparse.Namespace, found: dict[str, Path], default: Sequence[str]) -> list[str]:
    known = ", ".join(found) or "none"
    if options.all:
        names = list(found)
    else:
        names = list(dict.fromkeys(name.replace("-", "_") for name in options.names or default))
    for name in names:
        if name not in found:
            raise Refused(f"no experiment is called {name!r}; known: {known}; --list describes them")
    if not names:
        raise Refused("there are no experiments here; put one in experiments/NAME.py")
    return names


def _settings(options: argparse.Namespace) -> Settings:
    if not 0 <= options.seed < 2**32:
        raise Refused(f"--seed is {options.seed}; give a whole number from 0 to {2**32 - 1}")
    data_dir = None if options.data_dir is None else Path(options.data_dir)
    if data_dir is not None and not data_dir.is_dir():
        raise Refused(f"--data-dir {data_dir} is not a folder; give the folder that holds mnist, cifar10, ...")
    if not 1 <= options.processes <= 64:
        raise Refused(f"--processes is {options.processes}; give a number from 1 to 64")
    return Settings(seed=options.seed, full=options.full, data_dir=data_dir, processes=options.processes)


def _folder(text: str) -> Path:
    out = Path(text)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"--out {out} cannot be used as a folder ({error.strerror}); give another one") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise Refused(f"--out {out} cannot be written to; give another folder")
    return out


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Refused(f"{' and '.join(missing)} not installed, needed for figures and the page: pip install 'fdl[lab]'")


def _run_all(chosen: dict[str, Path], settings: Settings, out: Path, say: Callable[..., None]) -> int:
    from experiments import _page
    from fdl.files import write_whole
    from fdl.train import tune_runtime

    runtime = tune_runtime().to_json()  # before the first computation
    bad = 0
    for name, path in chosen.items():
        result, images = _run_one(name, path, settings, say)
        result["runtime"] = runtime
        bad += result["error"] is not None or any(c["verdict"] == "fails" for c in result["claims"])
        try:
            _store(out / name, result, images)
            write_whole(out / "index.html", _page.render(out))
        except OSError as error:
            raise Refused(
                f"{error.filename or out} cannot be written ({error.strerror}); free it or give another --out"
            ) from error
    say(f"{len(chosen) - bad} of {len(chosen)} experiments as expected; page: {out / 'index.html'}", "head")
    return 1 if bad else 0


def _run_one(
    name: str, path: Path, settings: Settings, say: Callable[..., None]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Run one script to its end or its error: its result, and its figures as PNG by file name."""
    start = time.perf_counter()
    claims: list[Claim] = []
    tables: list[Table] = []
    figures: list[dict[str, Any]] = []
    images: dict[str, bytes] = {}
    error = None

    def progress(text: str) -> None:
        say(f"[{time.perf_counter() - start:6.1f} s] {name}: {text}")

    progress("starts")
    try:
        for item in _evidence(_load(name, path), settings):
            if isinstance(item, str):
                progress(item)
            elif isinstance(item, Claim):
                claims.append(item)
                _say_claim(item, say)
            elif isinstance(item, Table):
                tables.append(item)
            elif isinstance(item, Figure):
                file = f"{_slug(item.name)}.png"
                if file in images:
                    raise ValueError(f"two figures are called {item.name!r}; names must differ")
                images[file] = _png(item.figure)
                figures.append({"file": file, "name": item.name, "caption": item.caption, "wide": item.wide})
            else:
                wanted = "a string, a Claim, a Figure or a Table"
                raise TypeError(f"run() of {path.name} yielded {type(item).__name__}, wanted {wanted}")
    except (Exception, SystemExit) as raised:
        if _is_damaged_file(raised):
            raise Refused(" ".join(str(raised).split())) from raised
        error = {"type": type(raised).__name__, "message": str(raised), "traceback": traceback.format_exc()}
        say(f"  error    {error['type']}: {error['message']}", "error")
    seconds = time.perf_counter() - start
    verdicts = [c.verdict for c in claims]
    counts = [f"{verdicts.count(v)} {v}" for v in ("holds", "fails", "not run") if v in verdicts]
    progress(", ".join(counts) or "no claims")
    result = {
        "experiment": name,
        "seconds": round(seconds, 3),
        "device": _device(),
        "versions": _versions(),
        "seed": settings.seed,
        "claims": [dataclasses.asdict(c) for c in claims],
        **describe(path),
        "full": settings.full,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "figures": figures,
        "tables": [dataclasses.asdict(t) for t in tables],
        "error": error,
    }
    return strict(result), images


def _is_damaged_file(error: BaseException) -> bool:
    """Whether a file of --data-dir is not what it should be. What raised it has imported fdl."""
    errors = sys.modules.get("fdl.errors")
    return errors is not None and isinstance(error, errors.DataError)


def _load(name: str, path: Path) -> ModuleType:
    full_name = f"experiments.{name}"
    spec = importlib.util.spec_from_file_location(full_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module  # dataclasses and pickle look a class's module up here
    spec.loader.exec_module(module)
    return module


def _evidence(module: ModuleType, settings: Settings) -> Iterable[Any]:
    run = getattr(module, "run", None)
    if not callable(run):
        raise TypeError(
            f"{module.__name__} has no function run(settings); see the docstring of the experiments package"
        )
    evidence = run(settings)
    if not isinstance(evidence, Iterable):
        raise TypeError(f"run() of {module.__name__} returned {type(evidence).__name__}; it must yield its evidence")
    return evidence


def _store(folder: Path, result: dict[str, Any], images: dict[str, bytes]) -> None:
    from fdl.files import write_whole

    folder.mkdir(exist_ok=True)
    for file, data in images.items():
        write_whole(folder / file, data)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(folder / "result.json", text)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "figure"


def _say_claim(item: Claim, say: Callable[..., None]) -> None:
    from experiments._page import number

    measured = item.note if item.verdict == "not run" else f"measured {number(item.measured)}"
    say(f"  {item.verdict:7}  {item.name}: {measured} (expected {item.expected})", item.verdict)


def _device() -> str:
    try:
        import jax

        devices = jax.devices()
    except Exception as error:  # a broken accelerator driver must not cost the result
        return f"unknown ({type(error).__name__})"
    kind = f"CPU with {os.cpu_count()} cores" if devices[0].platform == "cpu" else devices[0].device_kind
    return kind if len(devices) == 1 else f"{len(devices)} x {kind}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "source tree" if package == "fdl" else "not installed"
    return versions


def _printer() -> Callable[..., None]:
    """say(text, style): in colour where rich is installed and the output is a terminal; never buffered."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.text import Text
        except ImportError:
            pass
        else:
            console = Console()
            return lambda text, style="": console.print(Text(text, style=_STYLES.get(style, style)), soft_wrap=True)
    return lambda text, style="": print(text, flush=True)

"""`python -m benchmarks`: runs benchmarks, or shows what is stored of them."""

import argparse
import ast
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import _store
from benchmarks._compare import say
from benchmarks._rows import FAILING, Row, Settings
from benchmarks._store import RESULTS, Refused, Section
from benchmarks._table import table, warnings_of
from benchmarks._worker import FOLDER, load


def discover(folder: Path) -> dict[str, Path]:
    """The benchmarks of a folder: name to file."""
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def headline(path: Path) -> str:
    """The first line of a benchmark's docstring, read without importing it."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Check, then time, fdl and its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks (default: all)")
    parser.add_argument("--full", action="store_true", help="with the larger cases")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    rounds = Settings.repeats
    parser.add_argument("--repeats", type=int, default=rounds, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="put what was measured in the place of its sections"
    )
    stored = parser.add_argument_group("from stored results (runs nothing)")
    stored.add_argument("--show", action="store_true", help="the table")
    stored.add_argument("--plot", type=Path, metavar="FILE.png", help="a picture of the ratios")
    stored.add_argument(
        "--readme",
        type=Path,
        nargs="?",
        const=FOLDER.parent / "README.md",
        metavar="FILE.md",
        help="write the blocks of the README",
    )
    stored.add_argument(
        "--stored", type=Path, default=RESULTS, metavar="FILE.json", help="default: benchmarks/results.json"
    )
    return parser


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    found = discover(folder)
    if given.list:
        width = max(map(len, found), default=0)
        for name, path in found.items():
            print(f"{name.ljust(width)}  {headline(path)}")
        return 0
    if unknown := [name for name in given.names if name not in found]:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(found)}")
    if given.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {given.repeats}")
    looks = given.show or given.plot or given.readme
    if looks and (given.out or given.full):
        parser.error("--show, --plot and --readme run nothing: leave --out and --full away")
    try:
        if looks:
            return _look(given, found)
        if given.out:
            _store.read(given.out)
        chosen = {name: found[name] for name in given.names or found}
        return _run(chosen, Settings(full=given.full, repeats=given.repeats), given.out)
    except Refused as error:
        parser.error(str(error))


def _look(given: argparse.Namespace, found: Mapping[str, Path]) -> int:
    sections = _store.read(given.stored)
    if not sections:
        raise Refused(f"{given.stored} does not exist; `python -m benchmarks --out {given.stored}` makes it")
    if absent := [name for name in given.names if name not in sections]:
        raise Refused(f"{given.stored} has no {', '.join(absent)}; it has: {', '.join(sections)}")
    chosen = {name: sections[name] for name in given.names or sections}
    if given.show:
        for name, section in chosen.items():
            print(provenance(name, section))
        print()
        print_table([row for section in chosen.values() for row in section.rows])
    if given.plot:
        from benchmarks._plot import plot

        plot(chosen, given.plot)
        print(f"wrote {given.plot}")
    if given.readme:
        from benchmarks._readme import rewrite

        changed = rewrite(given.readme, sections)
        print(
            f"{given.readme}: {', '.join(changed) if changed else 'no block'} {'rewritten' if changed else 'changed'}"
        )
    return 0


def provenance(name: str, section: Section) -> str:
    """Where a section comes from, in a line."""
    machine, full = section.machine, ", full" if section.full else ""
    return (
        f"{name}: {section.date}, {machine['cores']} cores of {machine['processor']}{full}, {section.repeats} rounds, "
        f"in {section.took:.0f} s"
    )


def print_table(rows: Sequence[Row]) -> None:
    print(table(rows))
    for warning in warnings_of(rows):
        print(f"\n{warning}")


def _run(chosen: Mapping[str, Path], settings: Settings, out: Path | None) -> int:
    """Each benchmark is stored as soon as it ends; one that raises is not, and its section stays."""
    rows: list[Row] = []
    for name, path in chosen.items():
        start = time.perf_counter()
        try:
            made = list(load(path).run(settings))
        except Exception:
            rows.append(Row(name, "", "fdl", "fdl", "failed", traceback.format_exc()))
            continue
        rows += made
        if out:
            _store.update(out, name, _store.section(made, settings, time.perf_counter() - start))
    say("")
    print_table(rows)
    failed = [row for row in rows if row.status in FAILING]
    for row in failed:
        print(f"\n{row.status}: {row.work}, {row.variant}: {row.note or row.measured}", file=sys.stderr)
    return 1 if failed else 0

"""The file of results: one section per benchmark, replaced when that benchmark is run, written whole or not at all."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._rows import Row, Settings
from benchmarks._worker import ALLOCATOR, FOLDER

RESULTS = FOLDER / "results.json"
FORMAT = "fdl benchmarks, 1"
DIGITS = 4  # of every number: times repeat within per cents
NOTE = 400  # characters

PACKAGES = ("jax", "jaxlib", "optax", "chex", "numpy", "torch", "keras", "flax", "equinox", "fdl")


class Refused(ValueError):
    """A file that is no file of results, or a damaged one."""


@dataclasses.dataclass
class Section:
    """What one run of a benchmark gave: `took` is in seconds, `machine` has the processor and the versions."""

    rows: list[Row]
    full: bool
    repeats: int
    date: str
    took: float
    machine: dict[str, Any]

    @property
    def versions(self) -> dict[str, str]:
        return self.machine["versions"]


def section(rows: list[Row], settings: Settings, took: float) -> Section:
    """The section of a run that ended now, here."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Section(rows, settings.full, settings.repeats, date, took, machine())


def machine() -> dict[str, Any]:
    """The processor and what is installed: a time without them says nothing."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    runtime = {"allocator": ALLOCATOR, "threads": "XLA's, one core each"}  # of every process
    return {"processor": model, "cores": cores, "system": platform.system(), "versions": versions, "runtime": runtime}


def read(path: Path) -> dict[str, Section]:
    """The sections of a file, by benchmark; none if there is no file. Refused if it is damaged, or another kind of file."""
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read as JSON ({error}); mend it, or give another file") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise Refused(f"{path} is no file of benchmark results: its format is not {FORMAT!r}; give another file")
    try:
        return {name: _section(given) for name, given in stored["sections"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{path} is damaged: {type(error).__name__}: {error}; mend it, or give another file") from error


def _section(given: Mapping[str, Any]) -> Section:
    made = Section(**{**given, "rows": [Row(**row) for row in given["rows"]]})
    if not isinstance(made.versions, dict):
        raise TypeError("the versions are no table")
    return made


def update(path: Path, name: str, made: Section) -> None:
    """Puts the section in the file in the place of the one of that name; the others stay. Readers see the old file or the
    new one."""
    from fdl.files import write_whole  # here, or `--list` and `--show` would import JAX

    sections = read(path)
    sections[name] = made
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text_of(sections))


def text_of(sections: Mapping[str, Section]) -> str:
    """JSON with a row per line, so that what changed can be read in a difference of two versions."""
    parts = []
    for name, made in sorted(sections.items()):
        fields = {key: value for key, value in vars(made).items() if key != "rows"}
        head = ",\n".join(f"   {_json(key)}: {_json(_short(value))}" for key, value in fields.items())
        rows = ",\n".join(f"    {_json(compact(row))}" for row in made.rows)
        parts.append(f'  {_json(name)}: {{\n{head},\n   "rows": [\n{rows}\n   ]\n  }}')
    everything = ",\n".join(parts)
    return f'{{\n "format": {_json(FORMAT)},\n "sections": {{\n{everything}\n }}\n}}\n'


def compact(row: Row) -> dict[str, Any]:
    """What is kept of a row: what it has, in few digits. JSON has no infinity, so such a difference is left out."""
    kept = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        infinite = isinstance(value, float) and not math.isfinite(value)
        required = field.default is field.default_factory is dataclasses.MISSING
        empty = value is None or value in ("", {}, []) and not required
        if field.metadata.get("stored", True) and not empty and not infinite:
            kept[field.name] = row.note[:NOTE] if field.name == "note" else _short(value)
    return kept


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)

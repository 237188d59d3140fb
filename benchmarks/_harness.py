"""What the benchmarks share: equality before time, one process per variant, interleaved repeats, one table.

A benchmark describes a piece of `Work` as a list of `Variant`s; the first one is fdl's and all ratios are against it. A
variant names a function `setup(**arguments)` at the top of its module which returns a `Trial`: the result that must
equal the reference, and the call that is timed.

Method
- Every variant lives in a process of its own, so that no library's threads, allocator or settings touch another's.
  Libraries are imported inside `setup`, never at the top of a benchmark.
- The results are compared first. A variant that differs from the reference is not timed, and the command exits with 1.
- Then the variants take turns, one measurement each per round, in an order that rotates by one every round. One
  measurement repeats the call for at least `SHORTEST` seconds. While one process measures, the others wait for a
  message and use no CPU.
- In every round the share of the machine's CPU time that other processes took is recorded, and only the quieter half of
  the rounds counts. What others took even then is said when it is above `QUIET`: such times mean little.
- The ratio is the median over these rounds of (time of the variant / time of fdl in the same round), so that a machine
  that becomes slower for a while changes both. The time is the median, the spread its interquartile range over the
  median.
- Every process gets the same two settings, without which the same program takes once or twice the time, as it happens:
  glibc keeps the memory that is freed (else each large array is new pages from the kernel), and the threads that share
  XLA's work are spread over the cores (they may stay on one of them for seconds).
- cpu/wall is the CPU time of the whole process over the elapsed time: 1.0 is one busy core. A variant that should use
  every core and shows 1.0 had its threads on one core, and its time means little.
- A peer with several settings (1 thread or all, asynchronous dispatch or not) is judged by its fastest.
"""

import argparse
import ast
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent

# One measurement lasts at least this long: 1 % of it is 500 us, ten times what the clocks and a message cost.
SHORTEST = 0.05

# A worker that has not answered by then (import, compilation and check together) counts as failed.
PATIENCE = 600.0

# Up to this share of the machine taken by others, medians and ratios repeat within the spreads shown.
QUIET = 0.05

# Read by glibc when a process starts: blocks of up to 1 GiB come from the heap, and the heap is not given back.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**34)}

PACKAGES = ("jax", "jaxlib", "optax", "numpy", "torch", "keras", "flax", "equinox", "fdl")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to run: `full` adds the larger cases of a benchmark, `repeats` is the number of rounds."""

    full: bool = False
    repeats: int = 21


@dataclasses.dataclass(frozen=True)
class Trial:
    """What `setup` returns: `result`, a (nested) dict of arrays to compare with the reference; `call`, what is timed,
    which must wait for its own completion; `units`, how many units of the work one call does."""

    result: Any
    call: Callable[[], object] = lambda: None
    units: int = 1


@dataclasses.dataclass(frozen=True)
class Variant:
    """One competitor. `setup` is a function at the top level of its module, called in the worker with the work's
    arguments and these; `requires` are the modules it imports. Variants with the same `peer` are settings of one peer,
    and `target` (the ratio to reach) is for the fastest of them."""

    peer: str
    setup: Callable[..., Trial]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    setting: str = ""
    requires: tuple[str, ...] = ()
    target: float | None = None

    @property
    def name(self) -> str:
        return f"{self.peer}, {self.setting}" if self.setting else self.peer


@dataclasses.dataclass(frozen=True)
class Work:
    """What all variants do. `reference` is a setup function as well, of which only `result` is used. Every array must
    be within `tolerance` of the reference, relative to the largest magnitude of that array."""

    name: str
    unit: str
    variants: Sequence[Variant]
    reference: Callable[..., Trial]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-4


@dataclasses.dataclass
class Row:
    """One line of the table. `status` is "timed", "not installed", "unequal" or "failed", and whatever else a benchmark that
    does not time says; "unequal" and "failed" set the exit code."""

    work: str
    unit: str
    variant: str
    peer: str
    status: str
    note: str = ""
    difference: float | None = None
    samples: list[float] = dataclasses.field(default_factory=list)  # seconds per unit, of every round
    cpu: list[float] = dataclasses.field(default_factory=list)  # CPU time over elapsed time
    crowd: list[float] = dataclasses.field(default_factory=list)  # share of the machine's CPU time taken by others
    seconds: float | None = None
    spread: float | None = None
    cpu_per_wall: float | None = None
    others: float | None = None
    ratio: float | None = None
    target: float | None = None
    reached: bool | None = None


# ---- comparing


def difference(result: Any, reference: Any, path: str = "result") -> tuple[float, str]:
    """The largest |a - b| / max|b| over the arrays of two nested dicts, and the array where it is. Another structure or
    shape, or a value that is not finite, is an infinite difference."""
    if isinstance(reference, Mapping):
        if not isinstance(result, Mapping) or set(result) != set(reference):
            return math.inf, f"{path}: {sorted(result) if isinstance(result, Mapping) else type(result).__name__}"
        pairs = [difference(result[name], reference[name], f"{path}/{name}") for name in reference]
        return max(pairs, default=(0.0, path))
    a, b = np.asarray(result, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape:
        return math.inf, f"{path}: shape {a.shape}, not {b.shape}"
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.inf, f"{path}: not finite"
    scale = np.abs(b).max(initial=0.0)
    return float(np.abs(a - b).max(initial=0.0) / (scale if scale > 0 else 1.0)), path


# ---- one process per variant


def load(path: Path) -> ModuleType:
    """The benchmark in that file, as a module named after it."""
    name = f"{FOLDER.name}.{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _measure(call: Callable[[], object], count: int) -> tuple[float, float]:
    """Elapsed and CPU seconds of `count` calls."""
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start, time.process_time() - cpu


def _spread_threads() -> None:
    """XLA's threads for parts of an operation, one core each; a process without JAX has none."""
    if "jax" in sys.modules:
        from fdl.train import tune_runtime

        tune_runtime(dispatch=False, allocator=False, threads=True)


def _serve(connection: Connection, path: Path, function: str, arguments: Mapping[str, Any]) -> None:
    """The worker: set up, send the result, then answer each message with (seconds per unit, cpu/wall, CPU seconds)."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            trial = getattr(load(path), function)(**arguments)
            connection.send(("result", trial.result))
            _spread_threads()
            count = 0
            while connection.recv() == "measure":
                before = time.process_time()
                if not count:
                    once, _ = _measure(trial.call, 1)  # warms up after the check
                    count = max(1, math.ceil(SHORTEST / max(min(once, _measure(trial.call, 1)[0]), 1e-9)))
                wall, cpu = _measure(trial.call, count)
                connection.send(("time", (wall / count / trial.units, cpu / wall, time.process_time() - before)))
    except EOFError:
        pass
    except Exception:
        connection.send(("error", traceback.format_exc()))


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """For processes that are started inside; what the user has set stays."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


class _Worker:
    """A process that holds one variant, and the wire to it."""

    def __init__(self, setup: Callable[..., Trial], arguments: Mapping[str, Any]):
        context = multiprocessing.get_context("spawn")
        path = Path(sys.modules[setup.__module__].__file__ or "")
        self._wire, theirs = context.Pipe()
        call = (theirs, path, setup.__name__, dict(arguments))
        self._process = context.Process(target=_serve, args=call, daemon=True)
        with _environment(ALLOCATOR):
            self._process.start()
        theirs.close()

    def receive(self) -> tuple[str, Any]:
        """("result" | "time" | "error", value)."""
        try:
            if not self._wire.poll(PATIENCE):
                return "error", f"no answer in {PATIENCE:.0f} s"
            return self._wire.recv()
        except (EOFError, ConnectionError):
            self._process.join(1)
            return "error", f"the process ended with exit code {self._process.exitcode}"

    def measure(self) -> tuple[str, Any]:
        try:
            self._wire.send("measure")
        except (BrokenPipeError, ConnectionError):
            pass  # receive() says how it ended
        return self.receive()

    def stop(self) -> None:
        self._wire.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def result_of(setup: Callable[..., Trial], arguments: Mapping[str, Any]) -> Any:
    """The `result` of that trial, from a process that ends with it. RuntimeError, with its traceback, if it failed."""
    worker = _Worker(setup, arguments)
    try:
        kind, result = worker.receive()
    finally:
        worker.stop()
    if kind != "result":
        raise RuntimeError(str(result))
    return result


def _cpu_times() -> tuple[float, float] | None:
    """Seconds that all cores together were (busy, there) since the machine started; None where /proc does not say."""
    try:
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = ticks[3] + ticks[4]  # idle, and waiting for a disk
    second = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) / second, sum(ticks) / second


def missing(requires: Sequence[str]) -> list[str]:
    """Those of the modules that cannot be imported here."""
    return [name for name in requires if importlib.util.find_spec(name) is None]


def compare(work: Work, settings: Settings) -> list[Row]:
    """Check every variant against the reference, time those that are equal, and return one row for each."""
    rows = [Row(work.name, work.unit, v.name, v.peer, "failed", target=v.target) for v in work.variants]
    workers: dict[int, _Worker] = {}
    try:
        _say(f"{work.name}: reference")
        try:
            reference = result_of(work.reference, work.arguments)
        except RuntimeError as error:
            for row in rows:
                row.note = f"the reference failed: {error}"
            return rows
        for i, (variant, row) in enumerate(zip(work.variants, rows, strict=True)):
            if absent := missing(variant.requires):
                row.status, row.note = "not installed", f"no {', '.join(absent)}: pip install 'fdl[bench]'"
                continue
            _say(f"{work.name}: check {variant.name}")
            workers[i] = _Worker(variant.setup, {**work.arguments, **variant.arguments})
            kind, result = workers[i].receive()
            if kind != "result":
                row.note = str(result)
            else:
                row.difference, where = difference(result, reference)
                if row.difference <= work.tolerance:
                    row.status = "timed"
                else:
                    row.status = "unequal"
                    row.note = f"{where}: differs by {row.difference:.2g}, allowed {work.tolerance:.2g}"
            if row.status != "timed":
                workers.pop(i).stop()
        for repeat in range(settings.repeats):
            _say(f"{work.name}: round {repeat + 1} of {settings.repeats}")
            _round(repeat, workers, rows)
    finally:
        for worker in workers.values():
            worker.stop()
    summarize(rows)
    return rows


def _round(repeat: int, workers: dict[int, _Worker], rows: Sequence[Row]) -> None:
    """One measurement of every worker, added to its row; a worker that fails is stopped and loses its samples."""
    turn = list(workers)
    start = repeat % max(len(turn), 1)
    ours, before = 0.0, _cpu_times()
    for i in turn[start:] + turn[:start]:
        kind, value = workers[i].measure()
        if kind != "time":
            rows[i].status, rows[i].note = "failed", str(value)
            rows[i].samples, rows[i].cpu, rows[i].crowd = [], [], []
            workers.pop(i).stop()
            continue
        rows[i].samples.append(value[0])
        rows[i].cpu.append(value[1])
        ours += value[2]
    after = _cpu_times()
    there = after[1] - before[1] if before and after else 0.0
    share = max(0.0, (after[0] - before[0] - ours) / there) if before and after and there > 0 else 0.0
    for i in workers:
        rows[i].crowd.append(share)


def summarize(rows: Sequence[Row]) -> None:
    """Medians, spreads and ratios of one work's rows over the quieter half of the rounds, and the verdict on each peer's
    fastest setting."""
    base = np.asarray(rows[0].samples)
    for row in rows:
        if not row.samples:
            continue
        crowd = np.asarray(row.crowd)
        counts = crowd <= np.median(crowd)
        samples = np.asarray(row.samples)
        low, middle, high = np.percentile(samples[counts], (25, 50, 75))
        row.seconds, row.spread = float(middle), float((high - low) / middle)
        row.cpu_per_wall, row.others = float(np.median(np.asarray(row.cpu)[counts])), float(np.median(crowd[counts]))
        if base.size:
            row.ratio = float(np.median((samples / base)[counts]))
    for peer in {row.peer for row in rows}:
        of_peer = [row for row in rows if row.peer == peer]
        target = next((row.target for row in of_peer if row.target is not None), None)
        timed = [(row.ratio, i) for i, row in enumerate(of_peer) if row.ratio is not None]
        for row in of_peer:
            row.target = None
        if timed and target is not None:
            ratio, fastest = min(timed)
            of_peer[fastest].target, of_peer[fastest].reached = target, ratio >= target


# ---- reporting


def _say(text: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


def time_text(seconds: float) -> str:
    """Three digits and a unit: 12.3 us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def table(rows: Sequence[Row]) -> str:
    """All rows, as text."""
    head = ("work", "variant", "time", "x fdl", "target", "spread", "cpu/wall")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        if row.seconds is None or row.spread is None or row.cpu_per_wall is None:
            note = row.note.strip().splitlines()
            lines.append((row.work, row.variant, row.status, note[-1] if note else "", "", "", ""))
            continue
        target = "" if row.target is None else f">= {row.target:g} {'yes' if row.reached else 'NO'}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        times, spread = f"{time_text(row.seconds)}/{row.unit}", f"{100 * row.spread:.0f} %"
        lines.append((row.work, row.variant, times, ratio, target, spread, f"{row.cpu_per_wall:.2f}"))
    full = [line for line in lines if any(line[4:])] + [(*line[:3], "", "", "", "") for line in lines]
    widths = [max(len(line[i]) for line in full) for i in range(len(head))]
    text, previous = [], ""
    for line in lines:
        shown = ("" if line[0] == previous else line[0], *line[1:])
        previous = line[0]
        text.append("  ".join(cell.ljust(width) for cell, width in zip(shown, widths, strict=True)).rstrip())
    return "\n".join(text)


def warnings_of(rows: Sequence[Row]) -> list[str]:
    """What to know before one believes the table: the works that were measured while others used the machine."""
    busy = {row.work: row.others for row in rows if row.others is not None and row.others > QUIET}
    return [
        f"{work}: other processes took {100 * share:.0f} % of the CPU meanwhile; measure again on a quiet machine"
        for work, share in busy.items()
    ]


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
    return {"processor": model, "cores": cores, "system": platform.platform(), "versions": versions}


def report(rows: Sequence[Row], settings: Settings) -> dict[str, Any]:
    """Everything measured, for a file. JSON has no infinity, so a difference that is not finite becomes null."""
    lines = [dataclasses.asdict(row) for row in rows]
    for line in lines:
        if line["difference"] is not None and not math.isfinite(line["difference"]):
            line["difference"] = None
    runtime = {"allocator": ALLOCATOR, "threads": "XLA's, one core each"}  # of every process
    return {**machine(), "runtime": runtime, "settings": dataclasses.asdict(settings), "rows": lines}


# ---- the command


def discover(folder: Path) -> dict[str, Path]:
    """The benchmarks of a folder: name to file."""
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def headline(path: Path) -> str:
    """The first line of a benchmark's docstring, read without importing it."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Check, then time, fdl and its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks (default: all)")
    parser.add_argument("--full", action="store_true", help="with the larger cases")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    rounds = Settings.repeats
    parser.add_argument("--repeats", type=int, default=rounds, metavar="N", help="rounds (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write all measurements there")
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
    settings = Settings(full=given.full, repeats=given.repeats)
    rows: list[Row] = []
    for name in given.names or found:
        rows += load(found[name]).run(settings)
    _say("")
    print(table(rows))
    for warning in warnings_of(rows):
        print(f"\n{warning}")
    failed = [row for row in rows if row.status in ("unequal", "failed")]
    for row in failed:
        print(f"\n{row.status}: {row.work}, {row.variant}: {row.note}", file=sys.stderr)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(report(rows, settings), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 1 if failed else 0

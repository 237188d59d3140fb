"""Works and their variants: equal to the reference first, then timed in turns, then judged against their targets."""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks._rows import Row, Settings
from benchmarks._worker import Trial, Worker, cpu_times, missing, result_of


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


def say(text: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


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


def compare(work: Work, settings: Settings) -> list[Row]:
    """Check every variant against the reference, time those that are equal, and return one row for each."""
    rows = [Row(work.name, work.unit, v.name, v.peer, "failed", target=v.target) for v in work.variants]
    workers: dict[int, Worker] = {}
    try:
        say(f"{work.name}: reference")
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
            say(f"{work.name}: check {variant.name}")
            workers[i] = Worker(variant.setup, {**work.arguments, **variant.arguments})
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
            say(f"{work.name}: round {repeat + 1} of {settings.repeats}")
            _round(repeat, workers, rows)
    finally:
        for worker in workers.values():
            worker.stop()
    summarize(rows)
    return rows


def _round(repeat: int, workers: dict[int, Worker], rows: Sequence[Row]) -> None:
    """One measurement of every worker, added to its row; a worker that fails is stopped and loses its samples."""
    turn = list(workers)
    start = repeat % max(len(turn), 1)
    ours, before = 0.0, cpu_times()
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
    after = cpu_times()
    there = after[1] - before[1] if before and after else 0.0
    share = max(0.0, (after[0] - before[0] - ours) / there) if before and after and there > 0 else 0.0
    for i in workers:
        rows[i].crowd.append(share)


def summarize(rows: Sequence[Row]) -> None:
    """Medians, quartiles, spreads and ratios of one work's rows over the quieter half of the rounds, and the verdict on each
    peer's fastest setting."""
    base = np.asarray(rows[0].samples)
    for row in rows:
        if not row.samples:
            continue
        crowd = np.asarray(row.crowd)
        counts = crowd <= np.median(crowd)
        samples = np.asarray(row.samples)
        low, middle, high = np.percentile(samples[counts], (25, 50, 75))
        row.rounds, row.seconds, row.quartiles = len(samples), float(middle), [float(low), float(high)]
        row.spread = float((high - low) / middle)
        row.cpu_per_wall, row.others = float(np.median(np.asarray(row.cpu)[counts])), float(np.median(crowd[counts]))
        if base.size:
            low, middle, high = np.percentile((samples / base)[counts], (25, 50, 75))
            row.ratio, row.ratio_quartiles = float(middle), [float(low), float(high)]
    for peer in {row.peer for row in rows}:
        of_peer = [row for row in rows if row.peer == peer]
        target = next((row.target for row in of_peer if row.target is not None), None)
        timed = [(row.ratio, i) for i, row in enumerate(of_peer) if row.ratio is not None]
        for row in of_peer:
            row.target = None
        if timed and target is not None:
            ratio, fastest = min(timed)
            of_peer[fastest].target, of_peer[fastest].reached = target, ratio >= target

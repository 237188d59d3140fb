"""What a run shows while it goes: a bar on a terminal, a line now and then elsewhere, nothing when not wanted."""

import sys
import time
from typing import Any

_SECONDS_BETWEEN_LINES = 2.0


class Progress:
    """`update` after every epoch; a context manager that leaves the terminal as it was.

    On a terminal with rich installed: a bar with loss, metrics, steps per second and the time left. Else plain lines, the
    first and the last epoch and at most one every two seconds between them.
    """

    def __init__(self, shown: bool, total_steps: int):
        self._shown = shown
        self._total = total_steps
        self._started = self._last_line = time.perf_counter()
        self._done = 0
        self._timed_from = (self._started, 0)  # (time, steps): after the first call, which compiles
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        if self._shown and sys.stderr.isatty():
            self._start_bar()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _start_bar(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            return
        columns = [BarColumn(), TextColumn("{task.completed}/{task.total}"), TextColumn("{task.description}")]
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self._bar.start()
        self._task = self._bar.add_task("compiling", total=self._total)

    def update(self, epoch: int, steps: int, figures: dict[str, float]) -> None:
        """epoch: counted from 1. steps: in this epoch. figures: what to show."""
        if not self._shown:
            return
        first = self._done == 0
        self._done += steps
        now = time.perf_counter()
        since, before = self._timed_from
        rate = (self._done - before) / max(now - since, 1e-9)
        if first:
            self._timed_from = (now, self._done)
        text = "  ".join([*(f"{name} {value:.4g}" for name, value in figures.items()), f"{rate:,.0f} steps/s"])
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, description=text)
        elif first or self._done == self._total or now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(f"epoch {epoch}  step {self._done}/{self._total}  {text}", file=sys.stderr, flush=True)

"""What a run shows while it goes: a bar on a terminal, a line now and then elsewhere, nothing when not wanted."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

_SECONDS_BETWEEN_LINES = 2.0


class Progress:
    """`update` after every call of the loop; a context manager that leaves the terminal as it was.

    On a terminal with rich installed: a bar with loss, metrics, steps per second and the time left. Else plain lines, the
    first and the last call and at most one every two seconds between them.
    """

    def __init__(self, shown: bool, total_steps: int, done: int = 0):
        self._shown = shown
        self._total = total_steps
        self._done = done
        self._last_line = time.perf_counter()
        self._timed_from: tuple[float, int] | None = None  # (time, steps): after the first call, which compiles
        self._asked, self._finding = -math.inf, ""
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
        self._task = self._bar.add_task("compiling", total=self._total, completed=self._done)

    def update(self, epoch: int, step: int, figures: dict[str, float], finding: Callable[[], str] | str = "") -> None:
        """epoch: how many ended. step: how many were taken since the start of the run. figures: what to show.
        finding: what the doctor says, or a function that finds out, asked every two seconds."""
        if not self._shown:
            return
        self._done, now = step, time.perf_counter()
        first = self._timed_from is None
        if self._timed_from is None:
            self._timed_from = (now, step)
        since, before = self._timed_from
        pace = [] if first or now == since else [f"{(step - before) / (now - since):,.0f} steps/s"]
        if callable(finding):
            if now - self._asked > _SECONDS_BETWEEN_LINES or step >= self._total:
                self._asked, self._finding = now, finding()
            finding = self._finding
        text = "  ".join(
            [*(f"{name} {value:.4g}" for name, value in figures.items()), *pace, *([finding] if finding else [])]
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif first or step >= self._total or now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (self._total - step) * (now - since) / max(step - before, 1)
            ending = f"  {left:.0f} s left" if pace and step < self._total and left >= 1 else ""
            print(f"epoch {epoch}  step {step}/{self._total}  {text}{ending}", file=sys.stderr, flush=True)

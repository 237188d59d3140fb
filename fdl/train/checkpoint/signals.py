"""SIGTERM and SIGINT as a wish to stop: the first is remembered, a second one ends the process at once.

`timeout`, schedulers and terminals tell a process and then its whole group, so that one wish arrives twice, microseconds apart:
what comes within ECHO seconds of the first counts as the first.

Python runs its handlers between two lines of the main thread, so a handler alone would wait for a compilation or for a call of
the training loop to end. The system's part of the handler writes a byte at once; a thread reads these and counts as well.
"""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO = 0.5  # seconds


class Signals:
    """A context manager. In another thread than the main one it does nothing, since only that may install handlers."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._first = 0.0  # when it was
        self._before: dict[signal.Signals, Any] = {}
        self._ends: tuple[int, int] | None = None
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._watch()
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            # None: it was not installed from Python and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
        if self._ends is not None and self._watcher is not None:
            signal.set_wakeup_fd(-1)
            read, write = self._ends
            os.write(write, b"\0")  # no signal has the number 0: the thread ends
            self._watcher.join()
            os.close(read)
            os.close(write)
            self._ends = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._first = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._first > ECHO:
            leave(number)

    def _watch(self) -> None:
        read, write = os.pipe()
        os.set_blocking(write, False)
        other = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        if other != -1:  # somebody, an event loop, uses it: the handler alone has to do
            signal.set_wakeup_fd(other)
            os.close(read)
            os.close(write)
            return
        self._ends = read, write
        self._watcher = threading.Thread(target=_second_ends, args=(read,), name="fdl signals", daemon=True)
        self._watcher.start()


def _second_ends(read: int) -> None:
    first = None
    while number := os.read(read, 1)[0]:
        if number not in SIGNALS:
            continue
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > ECHO:
            leave(number)


def leave(number: int) -> None:
    """Without flushing or waiting for anything; the exit code is the shell's for that signal."""
    os._exit(exit_code(number))


def exit_code(number: int) -> int:
    return 128 + number

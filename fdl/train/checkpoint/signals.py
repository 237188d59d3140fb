"""SIGTERM and SIGINT as a wish to stop: the first is remembered, the second ends the process at once.

Python runs its handlers between two lines of the main thread, so a handler alone would wait for a compilation or for a call of
the training loop to end. The system's part of the handler writes a byte at once; a thread reads these and counts as well.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """A context manager. In another thread than the main one it does nothing, since only that may install handlers."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
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
        if self.received is not None:
            leave(number)
        self.received = signal.Signals(number)

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
    count = 0
    while number := os.read(read, 1)[0]:
        count += number in SIGNALS
        if count == 2:
            leave(number)


def leave(number: int) -> None:
    """Without flushing or waiting for anything; the exit code is the shell's for that signal."""
    os._exit(exit_code(number))


def exit_code(number: int) -> int:
    return 128 + number

"""The checkpoints of one run while it trains: the lock, the signals, when to save, what to keep."""

import contextlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import Signals as Signal
from typing import Any

import jax
import numpy as np

from fdl.errors import refuse, refuse_type, shown
from fdl.train.checkpoint import arrays, folder
from fdl.train.checkpoint.errors import CheckpointError, Damaged
from fdl.train.checkpoint.lock import locked
from fdl.train.checkpoint.manifest import plain
from fdl.train.checkpoint.read import Content, Saved, as_saved, damage, read, read_manifest
from fdl.train.checkpoint.settings import Checkpoint
from fdl.train.checkpoint.signals import Signals, exit_code
from fdl.train.checkpoint.tree import leaves_of, structure_of
from fdl.train.checkpoint.write import delete, write

# what a save needs beside the arrays: manifest, orbax's metadata, a part of a disk block per file
_BESIDE = 1 << 20
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")  # in what tensorstore raises


@contextlib.contextmanager
def open_store(settings: Checkpoint | str | os.PathLike) -> Iterator["Store"]:
    """Makes the folder, takes its lock, clears what interrupted saves left there, and listens to SIGTERM and SIGINT.

    Errors: CheckpointError for a folder that cannot be made or written, or that another process trains into.
    """
    settings = settings if isinstance(settings, Checkpoint) else Checkpoint(settings)
    path = Path(os.path.abspath(settings.folder))
    arrays.require_orbax(path)
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = f"cannot be made into a folder ({error.strerror})"
                raise CheckpointError(path, reason, "use another path") from error
            stack.enter_context(locked(path))
            try:
                folder.clear_leftovers(path)
            except OSError as error:
                raise _cannot(path, "clear what an interrupted save left", error) from error

        _on_the_first_process(path, begin)
        yield Store(settings, path, stack.enter_context(Signals()))


class Store:
    """Made by `open_store`. Among several processes all call `newest`, `due` and `save`, in the same order; the first of them
    alone writes, into a folder that all see, and every process holds the whole tree on its host meanwhile."""

    def __init__(self, settings: Checkpoint, path: Path, signals: Signals):
        self.settings, self._path, self._signals = settings, path, signals
        self._heard: Signal | None = None  # by any of several processes
        self._last = (time.monotonic(), 0)  # when and at which step was saved

    @property
    def signal(self) -> Signal | None:
        """SIGTERM or SIGINT once it was received; among several processes, as of the last `due`."""
        return self._signals.received if jax.process_count() == 1 else self._heard

    @property
    def exit_code(self) -> int:
        """What the shell shows for a process that ended by that signal, 143 or 130; 0 without one."""
        return 0 if self.signal is None else exit_code(self.signal)

    @property
    def steps(self) -> list[int]:
        """The steps that are in the folder, damaged or not, oldest first."""
        return folder.steps_in(self._path)

    def due(self, step: int) -> bool:
        """Whether to save at this step: the time or the steps have passed, or a signal asks to stop."""
        seconds, steps = self.settings.seconds, self.settings.steps
        since, before = self._last
        passed = seconds is not None and time.monotonic() - since >= seconds
        passed = passed or (steps is not None and step - before >= steps)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            mine = np.asarray([passed, self._signals.received or 0], np.int32)
            every = np.asarray(multihost_utils.process_allgather(mine))  # [processes, 2]
            passed, heard = bool(every[0, 0]), int(every[:, 1].max())
            self._heard = Signal(heard) if heard else None
        return bool(passed) or self.signal is not None

    def newest(self, like: Any) -> Saved | None:
        """The newest step that verifies, in the structure, shapes, dtypes and places of `like`; None if there is none.

        A newer one that is damaged is set aside under another name, with a warning that says which file or leaf, and why.
        Errors: CheckpointError if the step is not what `like` describes.
        """
        found: list[Content] = []

        def find() -> int | None:
            found.extend(self._newest_verified())
            return found[0].manifest["step"] if found else None

        step = _on_the_first_process(self._path, find)
        if step is None:
            return None
        try:
            content = found[0] if found else read(self._path, step)
        except Damaged as error:
            reason = f"process {jax.process_index()} cannot read step {step}, which the first one could: {error}"
            raise CheckpointError(self._path, reason, "use a folder that all processes see") from error
        saved = as_saved(self._path, content, like)
        self._last = (time.monotonic(), step)
        return saved

    def _newest_verified(self) -> list[Content]:
        """One or none; damaged steps on the way are set aside."""
        steps = folder.steps_in(self._path)
        for step in reversed(steps):
            try:
                return [read(self._path, step)]
            except Damaged as error:
                self._warn(f"step {step} is damaged: {error}", self._set_aside(step))
        if steps:
            self._warn("no step verifies", "there is nothing to go on from")
        return []

    def _set_aside(self, step: int) -> str:
        try:
            return f"it is kept as {folder.set_aside(self._path, step).name}, and the step before is used"
        except OSError as error:
            raise _cannot(self._path, f"set the damaged step {step} aside", error) from error

    def _warn(self, reason: str, consequence: str) -> None:
        warnings.warn(f"{self._path}: {reason}; {consequence}", RuntimeWarning, stacklevel=2)

    def save(self, step: int, tree: Any, facts: Any) -> None:
        """Writes the step, flushes it to the disk, reads it back and verifies it, and only then deletes what is not to be kept.

        tree: a pytree of arrays. facts: a dict that JSON can hold; facts["best"], if true, marks the best step so far.
        Errors: CheckpointError if it cannot be written (the disk is full, ...): all other steps are as they were. InputError or
        InputTypeError for a leaf that is no array of numbers, or facts that JSON cannot hold.
        """
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
            refuse("train.checkpoint", f"step is {step!r}, wanted a whole number of at least 0")
        if not isinstance(facts, dict):
            refuse_type("train.checkpoint", f"facts is {shown(facts)}, wanted a dict")
        step, facts, leaves, structure = int(step), plain(facts), leaves_of(tree), structure_of(tree)

        def write_verified() -> None:
            try:
                self._require_space(step, sum(leaf.array.nbytes for leaf in leaves))
                write(self._path, step, structure, leaves, facts)
            except CheckpointError:
                raise
            except Exception as error:  # OSError, and what orbax and tensorstore make of one
                raise _cannot(self._path, f"save step {step}", error) from error
            reason = damage(self._path, step)
            if reason is not None:
                kept = folder.set_aside(self._path, step).name
                reason = f"step {step}, read back after saving, is not what was saved: {reason}"
                raise CheckpointError(self._path, reason, f"it is kept as {kept}; look after the disk")
            self._delete_old(step)

        _on_the_first_process(self._path, write_verified)
        self._last = (time.monotonic(), step)

    def _require_space(self, step: int, size: int) -> None:
        free, needed = shutil.disk_usage(self._path).free, size + size // 16 + _BESIDE
        if free < needed:
            reason = f"cannot save step {step}: it takes {needed:,} bytes and the disk has {free:,} left"
            raise CheckpointError(self._path, reason, "make room; the steps before are as they were")

    def _delete_old(self, step: int) -> None:
        """All but the newest `keep` and the newest best one up to this step. What cannot be deleted stays, with a warning."""
        steps = folder.steps_in(self._path)
        kept = set(steps[-self.settings.keep :]) | {step}
        for old in reversed(steps):
            if _is_best(self._path, old):
                kept.add(old)
                break
        for old in steps:
            if old not in kept:
                try:
                    delete(self._path, old)
                except OSError as error:
                    self._warn(f"cannot delete step {old} ({error.strerror})", "it stays")


def _is_best(path: Path, step: int) -> bool:
    try:
        return bool(read_manifest(path, step)["facts"].get("best"))
    except Damaged:
        return False


def _cannot(path: Path, what: str, error: Exception) -> CheckpointError:
    text = str(error) or type(error).__name__
    number = _OS_ERROR.search(text)
    told = getattr(error, "strerror", None) or (os.strerror(int(number[1])) if number else text.partition("\n")[0])
    return CheckpointError(path, f"cannot {what} ({told})", "the steps before are as they were; look after the disk")


def _on_the_first_process(path: Path, action: Callable[[], Any]) -> Any:
    """What the action returned (None or an integer), on every process. It runs on the first one; if it raises, all raise."""
    if jax.process_count() == 1:
        return action()
    from jax.experimental import multihost_utils

    error: Exception | None = None
    told = [0, 0, 0]  # raised, not None, value
    if jax.process_index() == 0:
        try:
            value = action()
            told = [0, value is not None, value or 0]
        except Exception as raised:
            error, told = raised, [1, 0, 0]
    raised, given, value = (int(number) for number in multihost_utils.broadcast_one_to_all(np.asarray(told, np.int32)))
    if error is not None:
        raise error
    if raised:
        raise CheckpointError(path, "the first process could not use it", "its own message says why")
    return value if given else None

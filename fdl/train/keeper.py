"""A run and its checkpoints: when it is saved, what has to be the same to go on, and how a signal ends it."""

import contextlib
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from fdl.errors import refuse
from fdl.train.checkpoint import Checkpoint, CheckpointError, Store, open_store
from fdl.train.run import Run

_SECONDS_BEFORE_ANOTHER_TRY = 30


class Keeper:
    """Made by `keeping`; without a folder it does nothing."""

    def __init__(self, run: Run, settings: Checkpoint | None, store: Store | None, identity: dict[str, Any]):
        self._run, self._settings, self._store, self._identity = run, settings, store, identity
        self._saved_at: int | None = None
        self._next_try = 0.0

    def boundary(self, position: int) -> int | None:
        """The step at which a save is due by its number; calls of the loop end there."""
        every = None if self._settings is None else self._settings.steps
        return None if every is None else (position // every + 1) * every

    def go_on(self, resume: bool) -> None:
        """Restores the run that the folder holds, if any. Errors: InputError if it holds one and that was not asked for."""
        store, settings = self._store, self._settings
        if store is None or settings is None:
            return
        if store.steps and not resume:
            refuse(
                "train.fit",
                f"the checkpoint folder {settings.folder} holds a run, at step {store.steps[-1]}; pass resume=True to continue "
                "it, or another folder",
            )
        saved = store.newest(self._run.arrays())
        if saved is None:
            return
        for name, value in self._identity.items():
            before = saved.facts["identity"].get(name)
            if before != value:
                refuse(
                    "train.fit",
                    f"{name} is {value}, and {before} in the run saved in {settings.folder}; to continue it pass the same, or "
                    "start another folder",
                )
        self._run.restore(saved.tree, saved.facts)
        self._saved_at = saved.step
        if self._run.watch is not None and saved.step > 0:
            self._run.watch.recall(settings.folder, saved.step)

    def save(self) -> None:
        run = self._run
        if self._store is None or self._saved_at == run.position:
            return
        best = run.best is not None and run.best.epoch == run.epoch
        self._store.save(run.position, run.arrays(), run.facts() | {"identity": self._identity, "best": best})
        self._saved_at = run.position
        if run.watch is not None and self._settings is not None and jax.process_index() == 0:
            run.watch.record(self._settings.folder, run.epochs)

    def save_if_due(self) -> None:
        """A disk that is full for a while costs no run: only the last save has to succeed."""
        if self._store is None or not self._store.due(self._run.position):
            return
        stops = self._store.signal is not None
        if stops or time.monotonic() >= self._next_try:
            try:
                self.save()
            except CheckpointError as error:
                if stops:
                    raise
                self._next_try = time.monotonic() + _SECONDS_BEFORE_ANOTHER_TRY
                told = f"train.fit: {error}. Going on, and trying again in {_SECONDS_BEFORE_ANOTHER_TRY} s"
                warnings.warn(told, RuntimeWarning, stacklevel=3)
        self.leave_if_told()

    def leave_if_told(self) -> None:
        """Errors: SystemExit with 143 or 130 after SIGTERM or SIGINT."""
        if self._store is None or self._settings is None or self._store.signal is None:
            return
        told = f"step {self._saved_at} is saved in {self._settings.folder}; continue it with resume=True"
        if self._saved_at is None:  # it diverged before the first save
            told = f"nothing is saved in {self._settings.folder}"
        print(f"train.fit: stopped by {self._store.signal.name}; {told}", file=sys.stderr)
        raise SystemExit(self._store.exit_code)


@contextlib.contextmanager
def keeping(run: Run, settings: Checkpoint | None, identity: dict[str, Any]) -> Iterator[Keeper]:
    """While it lasts the folder is locked, and SIGTERM and SIGINT are noted rather than obeyed."""
    if settings is None:
        yield Keeper(run, None, None, identity)
        return
    with open_store(settings) as store:
        yield Keeper(run, settings, store, identity)

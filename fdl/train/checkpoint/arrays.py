"""A flat dict of numpy arrays in a folder, through orbax.

Its handler is called directly and gets numpy arrays. Measured for 18 arrays of 100 x 100 (two cores, ext4): 20 ms to write and 7 to
read, where `orbax.checkpoint.Checkpointer` with jax arrays takes 55 and 30, for a temporary folder, shardings and metadata that
a step has in its manifest. Without compression: of float32 weights it saves 7 %, and 96 MB take 350 ms with it, 110 without.
"""

import contextlib
import functools
import importlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fdl.train.checkpoint.errors import CheckpointError


def require_orbax(folder: Path) -> None:
    try:
        _orbax()
    except ImportError as error:
        raise CheckpointError(folder, "orbax-checkpoint is not installed", "pip install 'fdl[checkpoint]'") from error


def write(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    folder.mkdir()
    if arrays:  # orbax refuses an empty dict
        handler = _handler()
        with _raised_not_logged():
            handler.save(folder, args=_orbax().args.PyTreeSave(dict(arrays)))
            handler.finalize(folder)


def read(folder: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    names = list(names)
    if not names:
        return {}
    ocp = _orbax()
    how = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    item = dict.fromkeys(names, 0)
    with _raised_not_logged():
        return _handler().restore(folder, args=ocp.args.PyTreeRestore(item, restore_args=how))


@contextlib.contextmanager
def _raised_not_logged() -> Iterator[None]:
    """The threads of orbax log what goes wrong in them, 100 lines of traceback, and the call raises it as well."""
    logger, others = logging.getLogger("absl"), lambda record: "orbax" not in record.pathname
    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def _orbax() -> Any:
    return importlib.import_module("orbax.checkpoint")


@functools.cache
def _handler() -> Any:
    # one process writes and reads, whatever their number, so it waits for no other
    alone = _orbax().options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="fdl_checkpoint"
    )
    return _orbax().PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=alone)

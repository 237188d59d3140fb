"""Writing a step so that it is there whole, or not at all."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fdl.files import flush, write_flushed
from fdl.train.checkpoint import arrays
from fdl.train.checkpoint import manifest as manifests
from fdl.train.checkpoint.folder import (
    ARRAYS,
    DELETED,
    REPLACED,
    UNFINISHED,
    files_of,
    fingerprint,
    name_of,
)
from fdl.train.checkpoint.tree import Leaf


def write(folder: Path, step: int, structure: Any, leaves: Sequence[Leaf], facts: Any) -> None:
    """A new step: written under another name, flushed, renamed. Any exception leaves the folder as it was."""
    target = folder / name_of(step)
    unfinished = target.with_name(target.name + UNFINISHED)
    try:
        unfinished.mkdir()
        arrays.write(unfinished / ARRAYS, {str(i): leaf.stored for i, leaf in enumerate(leaves) if leaf.array.size})
        files = {name: fingerprint(path) for name, path in files_of(unfinished) if path.is_file()}
        _flush_all(unfinished)
        described = [manifests.described(leaf) for leaf in leaves]
        data = manifests.encoded(step, structure, described, files, facts)
        if len(data) > manifests.MOST_BYTES:
            raise OSError(f"the facts take {len(data)} bytes, more than {manifests.MOST_BYTES}")
        write_flushed(unfinished / manifests.NAME, data)
        flush(unfinished)
        _publish(unfinished, target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _publish(unfinished: Path, target: Path) -> None:
    """The last moment: before it the step is not there, after it it is whole."""
    replaced = target.with_name(target.name + REPLACED)
    with contextlib.suppress(FileNotFoundError):
        target.rename(replaced)
    try:
        unfinished.rename(target)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            replaced.rename(target)
        raise
    flush(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def delete(folder: Path, step: int) -> None:
    """Renamed first: a step that bears its name is whole."""
    path = folder / name_of(step)
    shutil.rmtree(path.rename(path.with_name(path.name + DELETED)))


def _flush_all(folder: Path) -> None:
    for _, path in files_of(folder):
        flush(path)
    flush(folder)

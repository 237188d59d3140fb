"""One folder of steps: its names, what interrupted saves leave, and the files of a step."""

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fdl.files import flush
from fdl.train.checkpoint.errors import CheckpointError

_STEP = re.compile(r"step_(\d{10,})")
ARRAYS = "arrays"
# what a process that ended in the middle leaves behind
UNFINISHED, REPLACED, DELETED = ".tmp", ".replaced", ".deleted"
DAMAGED = ".damaged"


def name_of(step: int) -> str:
    return f"step_{step:010d}"


def steps_in(folder: Path) -> list[int]:
    """The steps that are there, damaged or not, oldest first."""
    found = (_STEP.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(int(match[1]) for match in found if match and match[0] == name_of(int(match[1])))


def set_aside(folder: Path, step: int) -> Path:
    """A damaged step gets another name and stays."""
    source = folder / name_of(step)
    for number in range(1, 1_000_000):
        target = folder / f"{source.name}{DAMAGED}{f'-{number}' if number > 1 else ''}"
        if not os.path.lexists(target):
            source.rename(target)
            flush(folder)
            return target
    raise CheckpointError(folder, f"{number} damaged copies of step {step} are there", "delete them")


def clear_leftovers(folder: Path) -> None:
    """What interrupted saves left. A step that was to be replaced comes back if the new one did not arrive."""
    for entry in list(folder.iterdir()):
        base, dot, suffix = entry.name.rpartition(".")
        if not _STEP.fullmatch(base) or dot + suffix not in (UNFINISHED, REPLACED, DELETED):
            continue
        if dot + suffix == REPLACED and not (folder / base).exists():
            entry.rename(folder / base)
        else:
            shutil.rmtree(entry)
    flush(folder)


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name inside the folder, path) of all that is in it, folders after their contents."""
    for path, folders, files in os.walk(folder, topdown=False):
        for name in [*files, *folders]:
            full = Path(path, name)
            yield full.relative_to(folder).as_posix(), full


def fingerprint(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a regular file."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError("it is no regular file")
    with path.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": sha}

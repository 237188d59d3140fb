"""A file is written whole or not at all, whenever the process ends or the power fails."""

import contextlib
import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes | str) -> None:
    """Under another name first, flushed to the disk, then renamed: the file is the old one or the new one. Errors: OSError.

    Text is written as UTF-8, its line ends as they are.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        write_flushed(partial, data.encode() if isinstance(data, str) else data)
        partial.replace(path)
        flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_flushed(path: Path, data: bytes | memoryview) -> None:
    """A new file, on the disk when this returns."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """fsync of a file or a folder."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

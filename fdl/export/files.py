"""A file is written whole or not at all, whenever the process ends or the power fails."""

import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from fdl.errors import DataError, InputError, refuse


def write_whole(where: str, path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Under another name first, flushed to the disk, then renamed: the file is the old one or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        refuse(
            where, f"path is {str(path)!r}, which cannot be written ({reason}); name a file in a folder that is there"
        )
    finally:
        partial.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # which opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        damaged(path, f"cannot be read ({error.strerror or error})")


def damaged(path: Path, reason: str) -> NoReturn:
    raise DataError(str(path), reason)


def library(where: str, name: str) -> Any:
    """A module of the extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(where, f"{name} is not installed: pip install 'fdl[export]'") from error

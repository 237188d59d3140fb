"""The files of the exports, and their errors."""

import importlib
from pathlib import Path
from typing import Any, NoReturn

from fdl.errors import DataError, InputError, refuse
from fdl.files import write_whole


def write(where: str, path: Path, data: bytes) -> None:
    """The whole file or nothing."""
    try:
        write_whole(path, data)
    except OSError as error:
        reason = error.strerror or error
        refuse(
            where, f"path is {str(path)!r}, which cannot be written ({reason}); name a file in a folder that is there"
        )


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

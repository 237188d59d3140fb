"""Reading a file that may be damaged: exactly so many bytes, no more memory than that, and the offset in every refusal.

A file that begins with the two bytes of gzip is unpacked while it is read, whatever its name. gzip keeps a checksum and the
length at the end, so a file counts as read only once its end was reached: `end` does that, and refuses what comes after.
"""

import contextlib
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fdl.errors import DataError, refuse_type, shown

GZIP = b"\x1f\x8b"
# deflate cannot pack more than 258 bytes into 2 bits, so n bytes of gzip hold at most this many times n
MOST_PACKED = 1032
CHUNK = 1 << 20


class Contents:
    """The contents of one file, or of one entry of an archive, from the start.

    `most`: no more bytes than these can be there, so what a header declares is believed only below it. What is packed has a
    `stream` (its kind, for messages), and offsets are those `of` the unpacked contents.
    """

    def __init__(self, path: Path, file: Any, most: int, stream: str = "", of: str = ""):
        self.path, self.most = path, most
        self.offset = 0
        self._file, self._stream, self._of = file, stream, of

    @property
    def packed(self) -> bool:
        return bool(self._stream)

    def refuse(self, reason: str, offset: int | None = None) -> NoReturn:
        at = self.offset if offset is None else offset
        raise DataError(str(self.path), f"at byte {at}{self._of}: {reason}")

    def read(self, count: int, what: str) -> bytearray:
        """The next `count` bytes. The memory grows with what is there, not with what is asked for."""
        read = self.upto(count)
        if len(read) < count:
            self.refuse(f"the file ends here, {count - len(read)} bytes short of {what} ({count} bytes)")
        return read

    def upto(self, count: int) -> bytearray:
        """The next `count` bytes, or all that are left."""
        read = bytearray()
        while len(read) < count:
            try:
                chunk = self._file.read(min(CHUNK, count - len(read)))
            except EOFError:
                self.refuse(f"the {self._stream} is cut short: it has no end mark; copy the file again")
            except (gzip.BadGzipFile, zlib.error) as error:
                self.refuse(f"the {self._stream} is damaged ({error}); copy the file again")
            except OSError as error:
                self.refuse(f"cannot be read ({error.strerror or error})")
            if not chunk:
                break
            read += chunk
            self.offset += len(chunk)
        return read

    def end(self, what: str) -> None:
        """Nothing may follow; for what is packed this compares checksum and length."""
        at = self.offset
        if self.upto(1):
            self.refuse(f"the file goes on after {what}", at)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, int]]:
    """(the file, its size), found to be a file and not empty. Errors: DataError."""
    with contextlib.ExitStack() as stack:
        try:
            # a pipe would wait for a writer
            file = stack.enter_context(os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb"))
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(str(path), "is not a file")
        except OSError as error:
            raise DataError(str(path), f"cannot be read ({error.strerror or error})") from error
        if not status.st_size:
            raise DataError(str(path), "at byte 0: the file is empty")
        yield file, status.st_size


@contextlib.contextmanager
def contents(path: Path) -> Iterator[Contents]:
    """What is in the file, unpacked if it is gzip. Errors: DataError."""
    with opened(path) as (file, size):
        try:
            start = file.read(len(GZIP))
            file.seek(0)
        except OSError as error:
            raise DataError(str(path), f"cannot be read ({error.strerror or error})") from error
        if start != GZIP:
            yield Contents(path, file, size)
            return
        with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
            yield Contents(path, unpacked, size * MOST_PACKED, "gzip stream", " of the unpacked contents")


def require_labels(path: Path, labels: Any, classes: int, offset: int, stride: int) -> None:
    """Labels stand `stride` bytes apart from `offset` on, and are below `classes`. Errors: DataError for the first that is not."""
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        n = int(wrong[0])
        reason = f"the label of example {n} is {labels[n]}, wanted 0 to {classes - 1}"
        raise DataError(str(path), f"at byte {offset + stride * n} of the contents: {reason}")


def file_of(where: str, path: Any, what: str) -> Path:
    """The path of a file. Errors: InputTypeError for what is no path, DataError for what no system takes for one."""
    if not isinstance(path, str | os.PathLike):
        refuse_type(where, f"path is {shown(path)}, wanted the path of {what}")
    if "\0" in os.fsdecode(path):
        raise DataError(repr(os.fsdecode(path)), "is not a path (it holds NUL)")
    return Path(os.fsdecode(path))


def folder_of(where: str, folder: Any, holds: str) -> Path:
    """The folder as a path. Errors: InputTypeError for what is no path, DataError for what is no folder."""
    if not isinstance(folder, str | os.PathLike):
        refuse_type(where, f"folder is {shown(folder)}, wanted the path of the folder with {holds}")
    path = Path(folder)
    try:
        there = path.is_dir()
    except (OSError, ValueError):
        there = False
    if not there:
        raise DataError(str(path), f"is not a folder; {where} wants the one with {holds}")
    return path

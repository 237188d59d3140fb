"""The entries of a zip archive, as `Contents`: what the directory at its end says is held against what is there.

Read are archives of one part, with entries that are stored or deflated and not encrypted, with or without the 64-bit fields: what
numpy, zipfile and the usual programs write. An entry counts as read only once its end was reached (`Contents.end`): then its size and
its CRC-32 have to be what the directory says. Source: PKWARE, APPNOTE.TXT 6.3.10.
"""

import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from fdl.data._files import CHUNK, MOST_PACKED, Contents

ZIP = b"PK\3\4"
LARGEST_DIRECTORY = 2**20
_END, _END_64, _LOCATOR, _ENTRY = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"
_STORED, _DEFLATED = 0, 8
_FULL = 0xFFFFFFFF  # stands in the place of a number that is in the 64-bit field


class Entry(NamedTuple):
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def entries(path: Path, file: Any, size: int) -> dict[str, Entry]:
    """The directory: name to entry. Errors: DataError."""
    where = Contents(path, file, size)
    tail = _at(where, file, max(0, size - 65_557), min(size, 65_557), "the end")
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        where.refuse("the file has no zip directory at its end: it is cut short, or no zip archive", size)
    end = size - len(tail) + at
    disk, start_disk, here, count, length, start, comment = struct.unpack("<4H2IH", tail[at + 4 : at + 22])
    if end + 22 + comment != size:
        where.refuse("bytes follow the end of the zip archive", min(size, end + 22 + comment))
    limit = end
    if end >= 20 and (locator := _at(where, file, end - 20, 20, "the end"))[:4] == _LOCATOR:
        limit = struct.unpack("<Q", locator[8:16])[0]
        record = _at(where, file, limit, 56, "the end of 64 bits") if limit <= end - 76 else b""
        if record[:4] != _END_64:
            where.refuse("the zip directory of 64 bits is not where it is said to be", end - 20)
        disk, start_disk, here, count, length, start = struct.unpack("<2I4Q", record[16:56])
    if disk or start_disk or here != count or start + length != limit:
        where.refuse("the zip directory is not where it is said to be, or is in several parts", end)
    if length > LARGEST_DIRECTORY:
        where.refuse(f"the zip directory has {length} bytes, more than the {LARGEST_DIRECTORY} that are read", start)
    found: dict[str, Entry] = {}
    directory, at = _at(where, file, start, length, "the zip directory"), 0
    while at < length:
        entry, after = _entry(where, directory, at, start)
        if entry.name in found:
            where.refuse(f"the zip directory has {entry.name!r} twice", start + at)
        found[entry.name], at = entry, after
    if len(found) != count:
        where.refuse(f"the zip directory has {len(found)} entries, and says that it has {count}", start)
    return found


def member(path: Path, file: Any, size: int, entry: Entry) -> Contents:
    """One entry, from its start; one at a time, as they share the file. Errors: DataError."""
    where = Contents(path, file, size)
    if entry.flags & 1 or entry.method not in (_STORED, _DEFLATED):
        how = "encrypted" if entry.flags & 1 else f"packed by method {entry.method}"
        where.refuse(f"{entry.name} is {how}, wanted stored or deflated; write it with numpy.savez", entry.offset)
    header = _at(where, file, entry.offset, 30, f"the header of {entry.name}")
    names, extra = struct.unpack("<2H", header[26:30])
    start = entry.offset + 30 + names + extra
    name = _at(where, file, entry.offset + 30, names, f"the header of {entry.name}")
    if header[:4] != ZIP or name != entry.name.encode(_encoding(entry.flags)) or start + entry.packed > size:
        where.refuse(f"{entry.name} is not where the zip directory says that it is", entry.offset)
    most = entry.packed * MOST_PACKED if entry.method == _DEFLATED else entry.packed
    if entry.size > most or (entry.method == _STORED and entry.size != entry.packed):
        where.refuse(f"{entry.name} is said to have {entry.size} bytes, packed in {entry.packed}", entry.offset)
    file.seek(start)
    return Contents(path, _Unpacked(file, entry), entry.size, "zip entry", f" of {entry.name}")


class _Unpacked:
    """`read` as files have it; zlib.error for an end that is not as announced."""

    def __init__(self, file: Any, entry: Entry):
        self._file, self._entry = file, entry
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == _DEFLATED else None
        self._left, self._size, self._crc = entry.packed, 0, 0

    def read(self, count: int) -> bytes:
        data = self._stored(count) if self._inflate is None else self._inflated(self._inflate, count)
        self._size += len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self._size > self._entry.size or (count and not data and self._size < self._entry.size):
            raise zlib.error(f"it has other than the {self._entry.size} bytes that the directory says")
        if count and not data and self._crc != self._entry.crc:
            raise zlib.error(f"CRC-32 {self._crc:08x}, wanted {self._entry.crc:08x}")
        return data

    def _stored(self, count: int) -> bytes:
        data = self._file.read(min(count, self._left))
        self._left -= len(data)
        return data

    def _inflated(self, inflate: Any, count: int) -> bytes:
        data = b""
        while count and not data and not inflate.eof:
            packed = inflate.unconsumed_tail or self._stored(min(CHUNK, self._left))
            if not packed:
                raise EOFError
            data = inflate.decompress(packed, count)
        if inflate.eof and (self._left or inflate.unused_data):
            raise zlib.error("bytes follow its end mark")
        return data


def _at(where: Contents, file: Any, offset: int, count: int, what: str) -> bytes:
    try:
        file.seek(offset)
        data = file.read(count)
    except (OSError, OverflowError, ValueError) as error:
        where.refuse(f"{what} cannot be read ({error})", offset)
    if len(data) < count:
        where.refuse(f"the file ends here, {count - len(data)} bytes short of {what}", offset + len(data))
    return data


def _entry(where: Contents, directory: bytes, at: int, start: int) -> tuple[Entry, int]:
    """(the entry at this place of the directory, the place after it)"""
    fixed = directory[at : at + 46]
    if len(fixed) < 46 or fixed[:4] != _ENTRY:
        where.refuse("the zip directory is damaged", start + at)
    flags, method, _, crc, packed, size, names, extra, comment = struct.unpack("<2HI3I3H", fixed[8:34])
    (offset,) = struct.unpack("<I", fixed[42:46])
    end = at + 46 + names + extra + comment
    try:
        name = directory[at + 46 : at + 46 + names].decode(_encoding(flags))
    except UnicodeDecodeError:
        name = ""
    if end > len(directory) or not name:
        where.refuse("the zip directory is damaged", start + at)
    wide = _wide_field(directory[at + 46 + names : end - comment])
    numbers = []
    for number in (size, packed, offset):
        if number == _FULL:
            if len(wide) < 8:
                where.refuse("the zip directory lacks a number of 64 bits", start + at)
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        numbers.append(number)
    return Entry(name, flags, method, crc, numbers[1], numbers[0], numbers[2]), end


def _wide_field(extra: bytes) -> bytes:
    """The field of 64-bit numbers, empty if there is none."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<2H", extra[:4])
        if kind == 1:
            return extra[4 : 4 + length]
        extra = extra[4 + length :]
    return b""


def _encoding(flags: int) -> str:
    return "utf-8" if flags & 0x800 else "cp437"

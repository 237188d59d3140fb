"""The format of numpy's files: one array of numbers.

    93 4e 55 4d 50 59   magic; then the version, 01 00, 02 00 or 03 00
    length              of the header: 2 bytes, from version 02 on 4, least significant first
    header              {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } and spaces
    entries             to the end of the file

The header is matched, not evaluated, and what is no array of numbers (objects, which numpy would unpickle; text; records; complex
numbers) is refused. Source: the documentation of numpy.lib.format.
"""

import math
import os
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fdl.data._files import Contents, contents, file_of
from fdl.data._finite import first_not_finite
from fdl.errors import require_bool

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # as numpy has it
MOST_AXES = 32
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_ITEM = r"""['"](descr|fortran_order|shape)['"]:(['"][^'"]*['"]|True|False|\((?:[0-9]{1,19}(?:,[0-9]{1,19})*,?)?\))"""
_HEADER = re.compile(rf"\{{{_ITEM},{_ITEM},{_ITEM},?\}}")


class Header(NamedTuple):
    dtype: np.dtype[Any]
    order: str  # "C" or "F"
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Of the entries, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def declared(self) -> str:
        return f"the {' x '.join(map(str, self.shape)) or '1'} entries of {self.dtype} that the header declares"


def npy(path: str | os.PathLike[str], *, memory_map: bool = False) -> NDArray[Any]:
    """The array in a .npy file, plain or gzip: booleans, integers or floats, in the byte order of this machine.

    memory_map: the file itself as a read-only array in its own byte order, of which only what is used is read; for
    `fdl.data.stream`. The file has to be plain, and its entries are not looked at.

    Errors: DataError, naming the file, the offset and the reason, for another format, an array of no numbers or without entries, fewer
    or more bytes than the header declares, a damaged gzip stream, NaN and infinities. Nothing is unpickled, and nothing allocated for
    sizes that the file cannot hold.

        >>> fdl.data.npy("x.npy").shape
        (4, 3)
    """
    require_bool("data.npy", "memory_map", memory_map)
    where = file_of("data.npy", path, "a .npy file")
    with contents(where) as file:
        header = read_header(file)
        if not memory_map:
            array = read_entries(file, header)
            require_finite(file, "the array", array)
            return array
        if file.packed:
            file.refuse("a gzip file cannot be memory-mapped; unpack it first", 0)
        if file.most != file.offset + header.size:
            file.refuse(f"{file.most - file.offset} bytes follow, wanted {header.size} for {header.declared}")
        start = file.offset
    return np.memmap(where, header.dtype, "r", start, header.shape, "F" if header.order == "F" else "C")


def read_header(file: Contents) -> Header:
    start = file.offset
    magic = bytes(file.upto(8))
    if magic[:6] != MAGIC or magic[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        wanted = "93 4e 55 4d 50 59 (.npy) and the version 01 00, 02 00 or 03 00"
        file.refuse(f"the file begins with {magic.hex(' ') or 'nothing'}, wanted {wanted}", start)
    length = int.from_bytes(file.read(2 if magic[6] == 1 else 4, "the length of the header"), "little")
    if length > LONGEST_HEADER:
        file.refuse(f"the header has {length} bytes, wanted at most {LONGEST_HEADER}", start + 8)
    at = file.offset
    text = file.read(length, "the header").decode("latin-1")
    return _parsed(file, re.sub(r"[ \n]+", "", text), at)


def _parsed(file: Contents, text: str, at: int) -> Header:
    match = _HEADER.fullmatch(text)
    items = dict(zip(match.groups()[::2], match.groups()[1::2], strict=True)) if match else {}
    if len(items) != 3 or items["fortran_order"] not in ("True", "False") or items["shape"][0] != "(":
        shortened = text if len(text) < 100 else f"{text[:97]}..."
        file.refuse(
            f"the header is {shortened!r}, wanted the descr of an array of numbers, fortran_order and shape; arrays of objects, "
            "text or records are not read",
            at,
        )
    descr = items["descr"][1:-1]
    if descr[:1] not in "<>|=" or descr[1:] not in _NUMBERS:
        why = ": objects are never unpickled" if "O" in descr else ""
        file.refuse(f"the entries are {descr!r}, wanted booleans, integers or floats of at most 64 bits{why}", at)
    shape = tuple(map(int, re.findall("[0-9]+", items["shape"])))
    if len(shape) > MOST_AXES or 0 in shape:
        file.refuse(f"the shape is {items['shape']}, wanted at most {MOST_AXES} axes, none of them empty", at)
    header = Header(np.dtype(descr), "F" if items["fortran_order"] == "True" else "C", shape)
    if header.size > file.most:
        file.refuse(f"{header.declared} are {header.size} bytes, more than this file can hold: it is cut short", at)
    return header


def read_entries(file: Contents, header: Header) -> NDArray[Any]:
    entries = np.frombuffer(file.read(header.size, header.declared), header.dtype)
    file.end(header.declared)
    if not header.dtype.isnative:
        entries = entries.byteswap(inplace=True).view(header.dtype.newbyteorder("="))
    if header.dtype.kind == "b" and (entries.view(np.uint8) > 1).any():
        file.refuse("a boolean is neither 0 nor 1")
    return entries.reshape(header.shape, order="F" if header.order == "F" else "C")


def require_finite(file: Contents, what: str, array: NDArray[Any]) -> None:
    if (bad := first_not_finite(array)) is not None:
        file.refuse(f"{what} holds {array[bad]}, first at {list(bad)}; wanted finite numbers")

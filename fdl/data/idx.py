"""The IDX format of the MNIST files: a header and then numbers.

    00 00 K R       magic: K says what the entries are, R is the number of axes
    R numbers       the size of each axis, 4 bytes each, most significant first
    entries         the last axis fastest, most significant byte first, to the end of the file

    K   08 unsigned byte   09 signed byte   0b int16   0c int32   0d float32   0e float64

Source: Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits".
"""

import math
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fdl.data._files import Contents, contents, file_of
from fdl.data._finite import first_not_finite

# Headers that declare more bytes are refused: the largest relative of MNIST (EMNIST by class) has 547 MB of pixels
LARGEST = 2**30
KINDS = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
MOST_AXES = 32


def idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in an IDX file, plain or gzip: uint8, int8, int16, int32, float32 or float64, of the rank that the header says.

    Errors: DataError, naming the file, the offset and the reason, for another magic, no axes or empty ones, fewer or more bytes
    than the header declares, a damaged gzip stream, NaN and infinities. Nothing is allocated for sizes that the file cannot hold.

        >>> fdl.data.idx("mnist/train-labels-idx1-ubyte")
        array([3, 8], dtype=uint8)
    """
    with contents(file_of("data.idx", path, "an IDX file")) as file:
        magic = bytes(file.read(4, "the magic number"))
        if magic[:2] != b"\0\0" or magic[2] not in KINDS or not 1 <= magic[3] <= MOST_AXES:
            kinds = ", ".join(f"{kind:02x}" for kind in KINDS)
            wanted = f"00 00 K R (IDX) with K one of {kinds} and R from 1 to {MOST_AXES}, or gzip (1f 8b)"
            file.refuse(f"the file begins with {magic.hex(' ')}, wanted {wanted}", 0)
        array = _entries(file, KINDS[magic[2]], (None,) * magic[3])
        if (bad := first_not_finite(array)) is not None:
            place = int(np.ravel_multi_index(bad, array.shape)) * array.itemsize
            file.refuse(f"the entry {list(bad)} is {array[bad]}, wanted finite numbers", 4 + 4 * array.ndim + place)
    return array


def unsigned_bytes(path: Path, shape: tuple[int | None, ...]) -> NDArray[np.uint8]:
    """An array of bytes of this shape, None standing for any size of at least 1. Errors: as for `idx`."""
    with contents(path) as file:
        magic = bytes(file.read(4, "the magic number"))
        wanted = bytes((0, 0, 8, len(shape)))
        if magic != wanted:
            file.refuse(_not_the_magic(magic, wanted), 0)
        return _entries(file, "u1", shape)


def _entries(file: Contents, kind: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """What follows the magic."""
    sizes = struct.unpack(f">{len(shape)}I", file.read(4 * len(shape), "the header"))
    for axis, (size, fixed) in enumerate(zip(sizes, shape, strict=True)):
        if size < 1 or (fixed is not None and size != fixed):
            wants = "at least 1" if fixed is None else fixed
            file.refuse(f"the header says {size} along axis {axis}, wanted {wants}", 4 + 4 * axis)
    dtype = np.dtype(kind)
    size = math.prod(sizes) * dtype.itemsize
    declared = f"the {' x '.join(map(str, sizes))} entries that the header declares"
    if size > LARGEST:
        file.refuse(f"{declared} are {size} bytes, more than the {LARGEST} that are read", 4)
    if size > file.most:
        file.refuse(f"{declared} are {size} bytes, more than this file can hold: it is cut short, or no such file", 4)
    entries = np.frombuffer(file.read(size, declared), dtype).reshape(sizes)
    file.end(declared)
    if sys.byteorder == "little" and dtype.itemsize > 1:
        entries.byteswap(inplace=True)
    return entries


def _not_the_magic(magic: bytes, wanted: bytes) -> str:
    got = f"the file begins with {magic.hex(' ')}, wanted {wanted.hex(' ')}"
    if magic[:3] == wanted[:3]:
        return f"{got}: it has {magic[3]} axes, not {wanted[3]} (images have 3, labels 1)"
    return f"{got} (IDX, unsigned bytes, {wanted[3]} axes) or gzip (1f 8b)"

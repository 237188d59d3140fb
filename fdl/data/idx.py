"""The IDX format of the MNIST files: a header and then bytes.

    00 00 08 R      magic: 08 says unsigned bytes, R is the number of axes
    R numbers       the size of each axis, 4 bytes each, most significant first
    bytes           the entries, the last axis fastest, to the end of the file

Source: Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits".
"""

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fdl.data._files import contents

# Headers that declare more are refused: the largest relative of MNIST (EMNIST by class) has 547 MB of pixels
LARGEST = 2**30


def idx(path: Path, shape: tuple[int | None, ...]) -> NDArray[np.uint8]:
    """The array in the file, plain or gzip; its shape has to be this one, None standing for any size of at least 1.

    Errors: DataError for another magic, rank or size, for fewer or more bytes than the header declares, and for a damaged
    gzip stream. Nothing is allocated for sizes that the file cannot hold.
    """
    with contents(path) as file:
        magic = bytes(file.read(4, "the magic number"))
        wanted = bytes((0, 0, 8, len(shape)))
        if magic != wanted:
            file.refuse(_not_the_magic(magic, wanted), 0)
        sizes = struct.unpack(f">{len(shape)}I", file.read(4 * len(shape), "the header"))
        for axis, (size, fixed) in enumerate(zip(sizes, shape, strict=True)):
            if size < 1 or (fixed is not None and size != fixed):
                wants = "at least 1" if fixed is None else fixed
                file.refuse(f"the header says {size} along axis {axis}, wanted {wants}", 4 + 4 * axis)
        size = math.prod(sizes)
        declared = f"the {' x '.join(map(str, sizes))} entries that the header declares"
        if size > LARGEST:
            file.refuse(f"{declared} are {size} bytes, more than the {LARGEST} that are read", 4)
        if size > file.most:
            file.refuse(
                f"{declared} are {size} bytes, more than this file can hold: it is cut short, or no such file", 4
            )
        entries = file.read(size, declared)
        file.end(declared)
    return np.frombuffer(entries, np.uint8).reshape(sizes)


def _not_the_magic(magic: bytes, wanted: bytes) -> str:
    got = f"the file begins with {magic.hex(' ')}, wanted {wanted.hex(' ')}"
    if magic[:3] == wanted[:3]:
        return f"{got}: it has {magic[3]} axes, not {wanted[3]} (images have 3, labels 1)"
    return f"{got} (IDX, unsigned bytes, {wanted[3]} axes) or gzip (1f 8b)"

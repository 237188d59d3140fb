"""Two arrays of an archive as numpy.savez and numpy.savez_compressed write it: a zip file with an entry x.npy for the array x."""

import os
from typing import Any

from numpy.typing import NDArray

from fdl.data._files import file_of, opened
from fdl.data._zip import entries, member
from fdl.data.npy import read_entries, read_header, require_finite
from fdl.errors import DataError, refuse_type, shown


def npz(path: str | os.PathLike[str], x: str = "x", y: str = "y") -> tuple[NDArray[Any], NDArray[Any]]:
    """(x, y): the arrays of these names, as they are stored, with as many examples (rows).

    Errors: DataError, naming the file, the offset and the reason, for a file that is no such archive, is damaged (every byte that is
    read is under a CRC-32), lacks one of the names, declares other sizes than there are, holds objects, NaN or infinities, or
    other numbers of examples. Nothing is unpickled, and nothing allocated for sizes that the file cannot hold.

        >>> x, y = fdl.data.npz("data.npz")
        >>> x.shape, y
        ((4, 3), array([0, 1, 0, 1]))
    """
    for argument, name in (("x", x), ("y", y)):
        if not isinstance(name, str):
            refuse_type("data.npz", f"{argument} is {shown(name)}, wanted the name of an array in the file")
    where = file_of("data.npz", path, "a .npz file")
    with opened(where) as (file, size):
        there = entries(where, file, size)
        arrays = []
        for name in (x, y):
            entry = there.get(f"{name}.npy")
            if entry is None:
                known = ", ".join(sorted(n.removesuffix(".npy") for n in there)[:20]) or "nothing"
                raise DataError(str(where), f"has no array {name!r}; it has {known}: name two of them with x= and y=")
            contents = member(where, file, size, entry)
            header = read_header(contents)
            if not header.shape:
                contents.refuse(f"{name} is a single number, wanted one row for each example", 0)
            arrays.append(read_entries(contents, header))
            require_finite(contents, name, arrays[-1])
    if len(arrays[0]) != len(arrays[1]):
        raise DataError(str(where), f"{x} has {len(arrays[0])} examples, {y} has {len(arrays[1])}; wanted as many")
    return arrays[0], arrays[1]

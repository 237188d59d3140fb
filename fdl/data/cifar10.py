"""CIFAR-10 from its original files, in the binary version: 32x32 colour pictures of 10 kinds of things.

Any of data_batch_*.bin to train on and test_batch*.bin to test on, plain or gzip, in one folder. A file is a sequence of
records, at most 10,000:

    1 byte       the label, 0 to 9
    3072 bytes   the picture, channel first: 1024 red, 1024 green, 1024 blue, each row by row

A folder may hold a part of the set: what is there is read, in the order of the numbers in the names, and `cifar10_files` says
what that is. Where a file is there both plain and packed, the plain one is read; where the whole test_batch is there, parts of
it are not. A plain file holds no checksum: a pixel changed on the disk is not noticed there, in a gzip file it is.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fdl.data._files import contents, folder_of, require_labels
from fdl.data.digits import Examples
from fdl.errors import DataError

SIDE, CHANNELS, CLASSES = 32, 3, 10
RECORD = 1 + SIDE * SIDE * CHANNELS
MOST_RECORDS = 10_000
HOLDS = "data_batch_1.bin, ..., test_batch.bin (the binary version), plain or .gz"


def cifar10(folder: str | os.PathLike[str]) -> tuple[Examples, Examples]:
    """CIFAR-10 as ((x, y), (xt, yt)): x float32 [N, 32, 32, 3] in [0, 1] (the byte divided by 255), y int32 [N], the class.

    Errors: DataError, naming the file, the offset and the reason, for a folder without any file to train on or to test on, and
    for a file that is damaged, cut short, too long or not of this format.

        >>> (x, y), (xt, yt) = fdl.data.cifar10("cifar10")
        >>> x.shape[1:], x.dtype
        ((32, 32, 3), dtype('float32'))
    """
    files = cifar10_files(folder)
    return _examples(files["train"]), _examples(files["test"])


def cifar10_files(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """{"train", "test"}: the files of the folder that `cifar10` reads, in this order. The whole set has five and one.

    >>> [path.name for path in fdl.data.cifar10_files("cifar10")["test"]]
    ['test_batch.bin']
    """
    folder = folder_of("fdl.data.cifar10", folder, HOLDS)
    train, test = _files(folder, "data_batch_"), _files(folder, "test_batch")
    whole = [path for path in test if path.name.removesuffix(".gz") == "test_batch.bin"]
    return {"train": train, "test": whole or test}


def _files(folder: Path, start: str) -> list[Path]:
    try:
        there = sorted(folder.iterdir())  # x.bin before x.bin.gz
    except OSError as error:
        raise DataError(str(folder), f"cannot be read ({error.strerror})") from error
    found: dict[str, Path] = {}
    for path in there:
        name = path.name.removesuffix(".gz")
        if name.startswith(start) and name.endswith(".bin"):
            found.setdefault(name, path)
    if not found:
        raise DataError(str(folder), f"has no file {start}*.bin or {start}*.bin.gz; wanted {HOLDS}")
    return [found[name] for name in sorted(found, key=_in_order)]


def _in_order(name: str) -> list[Any]:
    """2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _examples(paths: list[Path]) -> Examples:
    parts = [records(path) for path in paths]
    x = np.empty((sum(map(len, parts)), SIDE, SIDE, CHANNELS), np.float32)
    start = 0
    for part in parts:
        pictures = part[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE)
        x[start : start + len(part)] = pictures.transpose(0, 2, 3, 1)
        start += len(part)
    x /= np.float32(255)
    return x, np.concatenate([part[:, 0] for part in parts]).astype(np.int32)


def records(path: Path) -> NDArray[np.uint8]:
    """[N, 3073] of one file: the label, then the picture. Errors: DataError."""
    with contents(path) as file:
        read = file.upto(MOST_RECORDS * RECORD)
        file.end(f"{MOST_RECORDS} records of {RECORD} bytes, the most that a file of CIFAR-10 has")
        whole, rest = divmod(len(read), RECORD)
        if rest or not whole:
            file.refuse(f"the file ends here, {rest} bytes into a record of {RECORD}")
    records = np.frombuffer(read, np.uint8).reshape(whole, RECORD)
    require_labels(path, records[:, 0], CLASSES, offset=0, stride=RECORD)
    return records

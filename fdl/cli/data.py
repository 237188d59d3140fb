"""The command python -m fdl data FILE ...: is it what it should be, and what is in it?

    python -m fdl data train-images-idx3-ubyte.gz
    python -m fdl data iris.csv --target species

The kind of a file is told by --kind, else by its name (.gz aside), else by its first bytes. What is found is printed: shapes, ranges,
classes. The exit code is 0, or 2 with one line on the standard error stream: the file, the offset or the line, and the reason.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fdl.data
from fdl.data import _records
from fdl.data._files import contents
from fdl.data.cifar10 import CLASSES, records
from fdl.errors import InputError, InputTypeError, shown

READ, REFUSED = 0, 2
KINDS = {
    "csv": r"\.(csv|tsv)$",
    "npz": r"\.npz$",
    "npy": r"\.npy$",
    "idx": r"\.idx$|[-.]idx\d-u?byte$",
    "cifar10": r"\.bin$",
    "text": r"\.(txt|text|md)$",
}
BEGINNINGS = {"npz": b"PK\3\4", "npy": b"\x93NUMPY", "idx": b"\0\0"}
_MOST_CLASSES = 10  # that are listed


def add_to(commands: Any) -> None:
    """The command and its arguments."""
    data = commands.add_parser("data", help="what is in a file of data?", description=run.__doc__)
    data.add_argument("file", metavar="FILE", type=Path)
    data.add_argument("--kind", choices=tuple(KINDS), help="what it is (default: by its name or first bytes)")
    data.add_argument("--target", metavar="COLUMN", help="csv: the name of the target, or its number from 0")
    data.add_argument(
        "--delimiter", metavar="C", help="csv: between the cells (default: , ; or tab, what the first line has)"
    )
    data.add_argument("--no-header", action="store_true", help="csv: the first line holds no names")
    data.add_argument("--missing", default="refuse", metavar="POLICY", help="csv: refuse, drop, mean or a number")
    data.add_argument("--one-hot", action="append", default=[], metavar="COLUMN", help="csv: a feature that is text")
    data.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="csv: a column to leave out")
    data.add_argument("-x", default="x", metavar="NAME", help="npz: the array of the examples (default: x)")
    data.add_argument("-y", default="y", metavar="NAME", help="npz: the array of the targets (default: y)")
    data.set_defaults(run=run)


def run(settings: argparse.Namespace) -> int:
    """Reads a file and prints what is in it. Exit code: 0 read, 2 refused."""
    try:
        lines = _described(settings)
    except (InputError, InputTypeError) as error:
        print(f"fdl data: {' '.join(str(error).split())}", file=sys.stderr)
        return REFUSED
    print("\n".join(lines))
    return READ


def _described(settings: argparse.Namespace) -> list[str]:
    file = settings.file
    kind = settings.kind or _kind(file, settings.target is not None)
    lines = [f"{file}: {kind}"]
    if kind == "text":
        text = fdl.data.text(file)
        sample = "".join(text.vocabulary[:60])
        return [*lines, f"  {len(text)} characters, {len(text.vocabulary)} different ones: {sample!r}"]
    if kind == "csv":
        table = _table(settings)
        lines += [
            f"  x  {_array(table[0])}: {', '.join(table.features[:8])}{', ...' if len(table.features) > 8 else ''}"
        ]
        return [*lines, f"  y  {_target(table[1], table.classes)}: {table.target}"]
    if kind == "npz":
        x, y = fdl.data.npz(file, settings.x, settings.y)
        return [*lines, f"  {settings.x}  {_array(x)}", f"  {settings.y}  {_target(y)}"]
    if kind == "cifar10":
        labels = records(file)[:, 0]
        return [
            *lines,
            f"  {len(labels)} pictures of 32x32x3",
            f"  y  {_target(labels, tuple(map(str, range(CLASSES))))}",
        ]
    array = fdl.data.npy(file) if kind == "npy" else fdl.data.idx(file)
    return [*lines, f"  {_target(array) if array.ndim == 1 else _array(array)}"]


def _kind(file: Path, is_table: bool) -> str:
    if is_table:
        return "csv"
    name = file.name.removesuffix(".gz")
    for kind, pattern in KINDS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    with contents(file) as opened:
        start = bytes(opened.upto(8))
    for kind, beginning in BEGINNINGS.items():
        if start.startswith(beginning):
            return kind
    return "text"


def _table(settings: argparse.Namespace) -> "fdl.data.Table":
    if settings.target is None:
        with contents(settings.file) as opened:
            first = next(_records.records(opened, settings.delimiter))[1][0]
        there = ", ".join(first[:20]) + (", ..." if len(first) > 20 else "")
        raise InputError(str(settings.file), f"name the target with --target, one of: {there}")
    number = re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", settings.missing)
    return fdl.data.csv(
        settings.file,
        target=_column(settings.target),
        delimiter=settings.delimiter,
        header=not settings.no_header,
        missing=float(settings.missing) if number else settings.missing,
        one_hot=tuple(map(_column, settings.one_hot)),
        drop=tuple(map(_column, settings.drop)),
    )


def _column(text: str) -> str | int:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text


def _array(array: Any) -> str:
    return f"{shown(array)} from {array.min():.6g} to {array.max():.6g}"


def _target(array: Any, names: tuple[str, ...] | None = None) -> str:
    """With how many of each class, where it may hold classes."""
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= 1000:
        return _array(array)
    counts = np.bincount(array)
    listed = [f"{names[i] if names else i} ({n})" for i, n in enumerate(counts) if n]
    more = f", ... ({len(listed)} in all)" if len(listed) > _MOST_CLASSES else ""
    return f"{shown(array)} with {', '.join(listed[:_MOST_CLASSES])}{more}"

"""A table of delimited text as examples: one column is the target, the others are the features.

    (x, y) = table = fdl.data.csv("iris.csv", target="species")

The file is read strictly (see `_records`): nothing is guessed, converted or skipped in silence, and every refusal names the line and
the column, both counted from 1.

A number is written in ASCII digits with a decimal point and perhaps an exponent, with spaces around it or not; it has to be finite in
float32. "1_0", other digits, "nan", "inf" and 1e400 are text, and text among numbers is refused.

The target is a class if it is text, or if it is whole numbers, written without point or exponent, that run from 0 without a gap (0, 1,
2: a label; 3, 5, 8: a quantity); else a quantity. `classes` says otherwise.
"""

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from fdl.data._files import Contents, contents, file_of
from fdl.data._records import records, refuse_line
from fdl.errors import DataError, refuse, refuse_type, require_bool, shown

MOST_CLASSES = 2**16
MOST_CATEGORIES = 1000  # of a one-hot column, each a column of x
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# What `float` takes and is made of these characters is a number in this sense
_PLAIN = re.compile(r"[0-9eE+\-. ,]*")
_WHOLE = re.compile(r"[0-9 ,]*")
_SPACES = " \t"


class Table(tuple[NDArray[np.float32], NDArray[Any]]):
    """(x, y), and what they are: `features`, the names of the columns of x; `target`, that of y; `classes`, the names of the classes
    in the order of their numbers, None where y is a quantity.

        >>> fdl.data.csv("iris.csv", target="kind").features
        ('length', 'width')
    """

    features: tuple[str, ...]
    target: str
    classes: tuple[str, ...] | None

    def __new__(
        cls, x: Any, y: Any, features: tuple[str, ...], target: str, classes: tuple[str, ...] | None
    ) -> "Table":
        table = super().__new__(cls, (x, y))
        table.features, table.target, table.classes = features, target, classes
        return table

    def __getnewargs__(self) -> tuple:
        return (*self, self.features, self.target, self.classes)

    def __repr__(self) -> str:
        kind = "a quantity" if self.classes is None else f"{len(self.classes)} classes"
        return f"Table({len(self[0])} examples of {len(self.features)} features, {self.target!r}: {kind})"


def csv(
    path: str | os.PathLike[str],
    *,
    target: str | int,
    delimiter: str | None = None,
    header: bool = True,
    missing: str | float = "refuse",
    marks: Sequence[str] = ("",),
    classes: bool | None = None,
    one_hot: Sequence[str | int] = (),
    drop: Sequence[str | int] = (),
) -> Table:
    """The table as (x, y): x float32 [N, D], the features in the order of the file; y int32 [N], the class, or float32 [N].

    target, one_hot, drop: columns by name, or by number from 0 (-1 is the last). one_hot: features that are text; each becomes as many
    columns of 0 and 1 as it has values, in their order. drop: columns that are left out (names, row numbers).
    delimiter: "," ";" tab or another character; by default the one of these three that is in the first line.
    header: whether the first line has the names; without one the names are "0", "1", ...
    missing: what becomes of a cell that is one of `marks` (by default: that is empty): "refuse", "drop" the row, a number to put there, or
    the "mean" of the column. In the target and in one-hot columns it is refused, or its row dropped.
    classes: True takes every value of the target as a class, in the order of the numbers or else of the text; False wants numbers;
    None is the rule above.

    The memory is at most about twice that of x and y. Errors: DataError, naming the file, the line, the column and the reason;
    InputError and InputTypeError for arguments that do not fit.

        >>> x, y = table = fdl.data.csv("iris.csv", target="kind")
        >>> x.shape, y, table.classes
        ((3, 2), array([0, 1, 0], dtype=int32), ('setosa', 'versicolor'))
    """
    _require_settings(delimiter, header, missing, marks, classes)
    with contents(file_of("data.csv", path, "a table of delimited text")) as file:
        batches = records(file, delimiter)
        numbers, rows = next(batches)
        names = _names(file, rows[0], header)
        if header:
            numbers, rows = numbers[1:], rows[1:]
        table = _Columns(file, names, target, one_hot, drop, missing, frozenset(marks), classes)
        table.add(numbers, rows)
        for numbers, rows in batches:
            table.add(numbers, rows)
        return table.finished()


class _Cells(NamedTuple):
    """Some cells of one column, and where they stand."""

    file: Contents
    column: int
    name: str
    lines: list[int]
    cells: list[str]

    def refuse(self, i: int, reason: str) -> NoReturn:
        refuse_line(self.file, self.lines[i], f"column {self.column + 1} ({self.name!r}): {reason}")

    def without(self, gaps: NDArray[np.bool_]) -> "_Cells":
        if not gaps.any():
            return self
        here = np.flatnonzero(~gaps).tolist()
        return self._replace(lines=[self.lines[i] for i in here], cells=[self.cells[i] for i in here])

    def gaps(self, marks: frozenset[str]) -> NDArray[np.bool_]:
        return np.fromiter((cell.strip(_SPACES) in marks for cell in self.cells), np.bool_, len(self.cells))

    def quick(self) -> NDArray[np.float64] | None:
        """All at once, if they are plain numbers."""
        if not _PLAIN.fullmatch(",".join(self.cells)):
            return None
        try:
            values = np.fromiter(map(float, self.cells), np.float64, len(self.cells))
        except ValueError:
            return None
        return values if _fits(values) else None

    def numbers(self, remedy: str) -> NDArray[np.float64]:
        """Errors: DataError for the first that is none."""
        values = self.quick()
        if values is not None:
            return values
        for i, cell in enumerate(self.cells):
            if not is_number(cell):
                self.refuse(i, f"{_shortened(cell)} is not a number; {remedy}")
            if not _fits(np.asarray(float(cell))):
                self.refuse(i, f"{_shortened(cell)} is not finite in float32")
        return np.fromiter(map(float, self.cells), np.float64, len(self.cells))


class _Columns:
    """The columns of the file, as they are read."""

    def __init__(self, file, names, target, one_hot, drop, missing, marks, classes):
        self._file, self._names, self._missing, self._marks = file, names, missing, marks
        self._fill = np.nan if isinstance(missing, str) else float(missing)  # NaN until the mean is known
        self._quick = not any(map(is_number, marks))
        self._target = _column(file, names, "target", target)
        known = {name: _columns(file, names, name, value) for name, value in (("one_hot", one_hot), ("drop", drop))}
        taken = [self._target, *known["one_hot"], *known["drop"]]
        for i in taken:
            if taken.count(i) > 1:
                refuse("data.csv", f"{names[i]!r} is named twice in target, one_hot and drop")
        self._features = [i for i in range(len(names)) if i != self._target and i not in known["drop"]]
        if not self._features:
            raise DataError(str(file.path), "line 1: no column is left for the features")
        self._known: dict[int, dict[str, int]] = {i: {} for i in known["one_hot"]}
        for i in self._features:
            if not names[i]:
                reason = f"column {i + 1} has no name; a column of row numbers, perhaps? drop=({i},) leaves it out"
                refuse_line(file, 1, reason)
        self._y = _Target(classes)
        self._parts: list[NDArray[np.float32]] = []
        self._sums = np.zeros((2, len(self._features)))  # of what is there, and how many

    def add(self, lines: list[int], rows: list[list[str]]) -> None:
        if not rows:
            return
        columns = [
            _Cells(self._file, i, self._names[i], lines, list(cells)) for i, cells in enumerate(zip(*rows, strict=True))
        ]
        # plain numbers have no gaps, unless a number is a mark
        plain = [i for i in self._features if i not in self._known] if self._quick else []
        quick = {i: values for i in plain if (values := columns[i].quick()) is not None}
        gaps = {i: columns[i].gaps(self._marks) for i in (*self._features, self._target) if i not in quick}
        dropped = np.zeros(len(rows), np.bool_)
        for i, here in gaps.items():
            if self._missing == "drop":
                dropped |= here
            elif here.any() and (self._missing == "refuse" or i == self._target or i in self._known):
                fills = "" if i == self._target or i in self._known else ', a number or "mean" fills it'
                reason = f'the cell is empty or marked as missing; missing="drop" leaves the row out{fills}'
                columns[i].refuse(int(np.argmax(here)), reason)
        kept = ~dropped
        part = np.empty((int(kept.sum()), len(self._features)), np.float32)
        for place, i in enumerate(self._features):
            if i in quick:
                part[:, place] = self._counted(place, quick[i][kept])
            elif i in self._known:
                part[:, place] = self._codes(columns[i].without(dropped))
            else:
                part[:, place] = self._filled(place, columns[i].without(dropped), gaps[i][kept])
        self._parts.append(part)
        self._y.add(columns[self._target].without(dropped))

    def _codes(self, cells: _Cells) -> list[int]:
        known = self._known[cells.column]
        codes = [known.setdefault(cell.strip(_SPACES), len(known)) for cell in cells.cells]
        if len(known) > MOST_CATEGORIES:
            reason = f"has more than {MOST_CATEGORIES} different values, each would be a column of x; drop it"
            cells.refuse(codes.index(MOST_CATEGORIES), reason)
        return codes

    def _filled(self, place: int, cells: _Cells, gaps: NDArray[np.bool_]) -> NDArray[np.float64]:
        name = cells.name if cells.name and not cells.name.isdigit() else cells.column
        remedy = f"one_hot=({name!r},) makes columns of 0 and 1 of text, drop=({name!r},) leaves it out"
        values = np.full(len(gaps), self._fill)
        values[~gaps] = self._counted(place, cells.without(gaps).numbers(remedy))
        return values

    def _counted(self, place: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._missing == "mean":
            self._sums[:, place] += values.sum(), len(values)
        return values

    def finished(self) -> Table:
        examples = sum(map(len, self._parts))
        if not examples:
            why = 'every row has a missing value, and missing="drop"' if self._parts else "the names, and no examples"
            raise DataError(str(self._file.path), f"line 1: {why}")
        y, classes = self._y.finished()
        ways = [self._columns_of(place, i) for place, i in enumerate(self._features)]
        names = tuple(name for way in ways for name in way.names)
        x = np.empty((examples, len(names)), np.float32)
        at = 0
        self._parts.reverse()
        while self._parts:  # what is copied is given back at once
            part = self._parts.pop()
            column = 0
            for place, way in enumerate(ways):
                x[at : at + len(part), column : column + len(way.names)] = way.values(part[:, place])
                column += len(way.names)
            at += len(part)
        return Table(x, y, names, self._names[self._target], classes)

    def _columns_of(self, place: int, i: int) -> "_Way":
        name = self._names[i]
        if i in self._known:
            ordered = sorted(self._known[i])
            codes = np.asarray([self._known[i][value] for value in ordered], np.float32)
            return _Way(tuple(f"{name}={value}" for value in ordered), codes, 0.0)
        total, count = self._sums[:, place]
        if self._missing == "mean" and not count:
            raise DataError(
                str(self._file.path), f"column {i + 1} ({name!r}) has no number to take the mean of; drop it"
            )
        return _Way((name,), None, total / count if count else 0.0)


class _Way(NamedTuple):
    """From a column of the file to columns of x."""

    names: tuple[str, ...]
    codes: NDArray[np.float32] | None
    mean: float

    def values(self, read: NDArray[np.float32]) -> NDArray[Any]:
        if self.codes is not None:
            return read[:, None] == self.codes[None]
        return np.where(np.isnan(read), np.float32(self.mean), read)[:, None]


class _Target:
    """The column of the target: numbers, or the names of classes."""

    def __init__(self, classes: bool | None):
        self._classes = classes
        self._as_names: bool | None = classes  # None: the first cell decides
        self._whole = True
        self._parts: list[NDArray[Any]] = []
        self._known: dict[str, int] = {}

    def add(self, cells: _Cells) -> None:
        if not cells.cells:
            return
        if self._as_names is None:
            self._as_names = not is_number(cells.cells[0])
        if not self._as_names:
            remedy = (
                "the target has to be a number"
                if self._classes is False
                else "classes=True takes every value as a class"
            )
            self._parts.append(cells.numbers(remedy))
            self._whole = self._whole and bool(_WHOLE.fullmatch(",".join(cells.cells)))
            return
        before = len(self._known)
        codes = [self._known.setdefault(cell.strip(_SPACES), len(self._known)) for cell in cells.cells]
        if len(self._known) > MOST_CLASSES:
            cells.refuse(codes.index(MOST_CLASSES), f"more than {MOST_CLASSES} different values; is this a class?")
        if self._classes is None:
            for name in list(self._known)[before:]:
                if is_number(name):
                    reason = (
                        f"{name!r} is a number, and the cells above are text; classes=True takes every value as a class"
                    )
                    cells.refuse(codes.index(self._known[name]), reason)
        self._parts.append(np.asarray(codes, np.int32))

    def finished(self) -> tuple[NDArray[Any], tuple[str, ...] | None]:
        found = np.concatenate(self._parts)
        self._parts.clear()
        if self._as_names:
            by_number = all(map(is_number, self._known))
            ordered = sorted(self._known, key=(lambda name: (float(name), name)) if by_number else None)
            place = np.empty(len(ordered), np.int32)
            place[[self._known[name] for name in ordered]] = np.arange(len(ordered), dtype=np.int32)
            return place[found], tuple(ordered)
        if self._classes is None and self._whole and found.max() < MOST_CLASSES:
            counts = np.bincount(found.astype(np.int32))
            if len(counts) > 1 and counts.all():
                return found.astype(np.int32), tuple(map(str, range(len(counts))))
        return found.astype(np.float32), None


def is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell.strip(_SPACES)) is not None


def _fits(values: NDArray[np.float64]) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values.astype(np.float32)).all())


def _shortened(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else f"{cell[:37]}...")


def _names(file: Contents, first: list[str], header: bool) -> list[str]:
    if len(first) < 2:
        refuse_line(file, 1, "has one column, wanted a target and at least one feature; is the delimiter another one?")
    if not header:
        return list(map(str, range(len(first))))
    names = [name.strip(_SPACES) for name in first]
    if all(map(is_number, names)):
        refuse_line(file, 1, "holds numbers and no names; header=False says that the file has none")
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if name in seen:
            refuse_line(file, 1, f"columns {seen[name] + 1} and {i + 1} are both called {name!r}; rename one")
        seen[name] = i
    return names


def _columns(file: Contents, names: list[str], argument: str, values: Any) -> list[int]:
    if not isinstance(values, tuple | list):
        refuse_type("data.csv", f"{argument} is {shown(values)}, wanted a tuple of columns: ({values!r},)")
    return [_column(file, names, argument, value) for value in values]


def _column(file: Contents, names: list[str], argument: str, value: Any) -> int:
    if isinstance(value, str):
        if value not in names:
            there = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
            raise DataError(str(file.path), f"{argument} is {value!r}, the columns are {there}")
        return names.index(value)
    if isinstance(value, bool) or not isinstance(value, int):
        refuse_type("data.csv", f"{argument} is {shown(value)}, wanted the name or the number of a column")
    if not -len(names) <= value < len(names):
        raise DataError(str(file.path), f"{argument} is {value}, wanted {-len(names)} to {len(names) - 1}")
    return value % len(names)


def _require_settings(delimiter: Any, header: Any, missing: Any, marks: Any, classes: Any) -> None:
    where = "data.csv"
    require_bool(where, "header", header)
    if classes is not None:
        require_bool(where, "classes", classes)
    if delimiter is not None and (
        not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter.isalnum() or delimiter in '"\r\n+-._ '
    ):
        refuse(where, f"delimiter is {delimiter!r}, wanted one character that no number or name holds, such as ','")
    if not isinstance(marks, tuple | list) or not all(isinstance(mark, str) for mark in marks):
        refuse_type(where, f"marks is {marks!r}, wanted a tuple of what stands for a missing value: ('', 'NA')")
    if isinstance(missing, str):
        if missing not in ("refuse", "drop", "mean"):
            refuse(where, f'missing is {missing!r}, wanted "refuse", "drop", "mean" or a number')
    elif isinstance(missing, bool) or not isinstance(missing, int | float) or not _fits(np.asarray(float(missing))):
        refuse(where, f'missing is {missing!r}, wanted "refuse", "drop", "mean" or a finite number')

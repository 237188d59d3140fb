"""What a run leaves behind as it goes: callbacks for `fit` that write its figures, epoch by epoch.

    fit(..., callbacks=(fdl.train.csv_writer("run.csv"), fdl.train.tensorboard_writer("runs/seven")))

| writer                      | one epoch is                                    | NaN    | infinities           |
|-----------------------------|-------------------------------------------------|--------|----------------------|
| csv_writer(path)            | a row: epoch, step, seconds, and the figures     | nan    | inf, -inf            |
| jsonl_writer(path)          | a line with one JSON object of the same          | null   | "inf", "-inf"        |
| tensorboard_writer(folder)  | a scalar for each figure, at the step           | NaN    | inf, -inf            |

A row is on its way to the disk before the next epoch begins. A run that was killed and resumed leaves one series: at the first
epoch that a writer sees, rows of that step and later ones are taken out of the file, and a last line that was cut short.
`seconds` begins at 0 again there. What stands in a file that no such writer wrote is refused, never overwritten.

CSV: a figure that comes later (a metric from the second call on) gets a column of its own at the end, and the file is written anew, whole
or not at all; earlier rows are empty there, as is a row without a figure that others have.
"""

import csv
import importlib
import io
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fdl.errors import DataError, InputError, refuse, refuse_type, require_bool, shown
from fdl.files import write_whole
from fdl.train.event import Event

_FIRST = ("epoch", "step", "seconds")
Row = dict[str, Any]


def csv_writer(path: str | os.PathLike) -> Callable[[Event], None]:
    """A callback that writes one row per epoch: epoch, step, seconds, loss, valid_loss, ... with a header line.

    >>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    >>> mse, sgd = fdl.losses.mean_squared_error, optax.sgd(0.1)
    >>> common = {"key": jax.random.key(0), "epochs": 3, "progress": False}
    >>> _ = fdl.train.fit(fdl.dense(2), mse, sgd, (x, y), callbacks=(fdl.train.csv_writer("run.csv"),), **common)
    >>> len(pathlib.Path("run.csv").read_text().splitlines())  # a header, and an epoch each
    4
    """
    return _Rows(_path("train.csv_writer", "path", path), _Csv())


def jsonl_writer(path: str | os.PathLike) -> Callable[[Event], None]:
    """A callback that writes one line per epoch, a JSON object: {"epoch": 1, "step": 12, "seconds": 0.4, "loss": 0.31, ...}.

    >>> x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    >>> mse, sgd = fdl.losses.mean_squared_error, optax.sgd(0.1)
    >>> common = {"key": jax.random.key(0), "epochs": 3, "progress": False}
    >>> _ = fdl.train.fit(fdl.dense(2), mse, sgd, (x, y), callbacks=(fdl.train.jsonl_writer("run.jsonl"),), **common)
    >>> len(pathlib.Path("run.jsonl").read_text().splitlines())
    3
    """
    return _Rows(_path("train.jsonl_writer", "path", path), _Jsonl())


def tensorboard_writer(folder: str | os.PathLike, *, histograms: bool = False) -> Callable[[Event], None]:
    """A callback that writes event files for TensorBoard, with the extra `fdl[tensorboard]` (tensorboardX).

    A scalar for each figure; with histograms, also one of each parameter array, under its path ("params/dense_0/w"), of those of
    its entries that are finite. A resumed run writes a further file that tells TensorBoard to hide the steps it repeats.

        >>> board = fdl.train.tensorboard_writer("board")  # for fit(callbacks=(board,)), then tensorboard --logdir board
    """
    where = "train.tensorboard_writer"
    folder = _path(where, "folder", folder)
    require_bool(where, "histograms", histograms)
    tensorboard_library(where)
    return _TensorBoard(where, folder, histograms)


def _path(where: str, name: str, path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        refuse_type(where, f"{name} is {shown(path)}, wanted a path")
    return Path(path)


def _row(event: Event) -> Row:
    figures = {name: float(value) for name, value in event.figures.items()}
    return {"epoch": event.epoch, "step": event.step, "seconds": round(float(event.seconds), 6), **figures}


# ---- rows in a text file ----


class _Csv:
    """A header line, and a line for each row."""

    where = "train.csv_writer"

    def __init__(self) -> None:
        self.columns: list[str] = []

    def read(self, path: Path, text: str) -> list[Row]:
        lines = list(csv.reader(io.StringIO(text)))
        if lines:
            self.columns = lines[0]
            if tuple(self.columns[:3]) != _FIRST or len(set(self.columns)) < len(self.columns):
                raise DataError(
                    str(path), f"its columns are {self.columns}, wanted {','.join(_FIRST)} first; name a new file"
                )
        return [self._read_row(path, number, line) for number, line in enumerate(lines[1:], 2)]

    def _read_row(self, path: Path, number: int, line: list[str]) -> Row:
        row = {name: text for name, text in zip(self.columns, line, strict=False) if text}
        if len(line) != len(self.columns) or not row.get("step", "").isdecimal():
            raise DataError(str(path), f"line {number} is no row of a run: {line}; name a new file")
        return row | {"step": int(row["step"])}

    def fits(self, row: Row) -> bool:
        """Whether the row can be added to what is written: a header is there, with every column."""
        return set(row) <= set(self.columns)

    def written(self, rows: Iterable[Row], header: bool = False) -> str:
        rows = list(rows)
        if header:
            self.columns += [
                name for name in dict.fromkeys(name for row in rows for name in row) if name not in self.columns
            ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.columns] if header and self.columns else [])
        writer.writerows([row.get(name, "") for name in self.columns] for row in rows)
        return text.getvalue()


class _Jsonl:
    """A JSON object on each line."""

    where = "train.jsonl_writer"

    def read(self, path: Path, text: str) -> list[Row]:
        return [self._read_row(path, number, line) for number, line in enumerate(text.splitlines(), 1)]

    def _read_row(self, path: Path, number: int, line: str) -> Row:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            raise DataError(str(path), f"line {number} is no row of a run: {line[:60]!r}; name a new file")
        return row

    def fits(self, row: Row) -> bool:
        return True

    def written(self, rows: Iterable[Row], header: bool = False) -> str:
        return "".join(json.dumps({k: _in_json(v) for k, v in row.items()}, allow_nan=False) + "\n" for row in rows)


def _in_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


class _Rows:
    """The callback: rows of one kind, in one file."""

    def __init__(self, path: Path, kind: _Csv | _Jsonl):
        self._path, self._kind = path, kind
        self._started = False

    def __call__(self, event: Event) -> None:
        row = _row(event)
        try:
            if not self._started:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._cut(event.step)
                self._started = True
            if self._kind.fits(row):
                with self._path.open("a", encoding="utf-8", newline="") as file:
                    file.write(self._kind.written([row]))
            else:
                self._replace([*self._rows(), row])
        except OSError as error:
            reason = error.strerror or error
            refuse(
                self._kind.where, f"path is {str(self._path)!r}, which cannot be written ({reason}); name another file"
            )

    def _rows(self) -> list[Row]:
        """What the file holds; a last line without its end was cut short by whatever ended the run."""
        if not self._path.exists():
            return []
        text = self._path.read_bytes().decode("utf-8", errors="replace")
        return self._kind.read(self._path, text[: text.rfind("\n") + 1])

    def _cut(self, step: int) -> None:
        """Without the rows from that step on."""
        rows = self._rows()
        kept = [row for row in rows if row["step"] < step]
        if len(kept) < len(rows) or self._unfinished():
            self._replace(kept)

    def _unfinished(self) -> bool:
        return self._path.exists() and not self._path.read_bytes().endswith(b"\n")

    def _replace(self, rows: list[Row]) -> None:
        write_whole(self._path, self._kind.written(rows, header=True))


# ---- TensorBoard ----

_BINS = 30


class EventFile:
    """A file of records for TensorBoard, in a folder; it says that nothing counts that stands in older ones at `step` and later.

    The library's SummaryWriter keeps records in a queue that flush does not empty, so the records are written here.
    """

    def __init__(self, where: str, folder: Path, step: int):
        self.make = tensorboard_library(where).summary
        files = importlib.import_module("tensorboardX.event_file_writer")
        self._record = importlib.import_module("tensorboardX.proto.event_pb2").Event
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = files.EventsWriter(str(folder / "events"), f".{secrets.token_hex(4)}")
        except OSError as error:
            reason = error.strerror or error
            refuse(where, f"folder is {str(folder)!r}, which cannot be written ({reason}); name another")
        self.write(step, session_log={"status": "START"})

    def write(self, step: int, **content: Any) -> None:
        self._writer.write_event(self._record(step=step, wall_time=time.time(), **content))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def tensorboard_library(where: str) -> Any:
    try:
        return importlib.import_module("tensorboardX")
    except ImportError as error:
        raise InputError(where, "tensorboardX is not installed: pip install 'fdl[tensorboard]'") from error


class _TensorBoard:
    """The callback."""

    def __init__(self, where: str, folder: Path, histograms: bool):
        self._where, self._folder, self._histograms = where, folder, histograms
        self._file: EventFile | None = None

    def __call__(self, event: Event) -> None:
        if self._file is None:
            self._file = EventFile(self._where, self._folder, event.step)
        file = self._file
        for name, value in event.figures.items():
            file.write(event.step, summary=file.make.scalar(name, float(value)))
        if self._histograms:
            for path, array in jax.tree_util.tree_flatten_with_path(event.params)[0]:
                name = f"params/{jax.tree_util.keystr(path, simple=True, separator='/')}"
                finite = np.asarray(array, np.float32).ravel()
                finite = finite[np.isfinite(finite)]
                if finite.size:
                    file.write(event.step, summary=file.make.histogram(name, finite, _BINS))
        file.flush()

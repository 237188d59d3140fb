"""The files that the callbacks write, epoch by epoch, and after a run that was killed."""

import csv
import importlib
import json
import math
import sys

import numpy as np
import pytest

from fdl.errors import DataError, InputError, InputTypeError
from fdl.train.event import Event
from fdl.train.writers import csv_writer, jsonl_writer, tensorboard_writer

W = np.asarray([[0.5, -1.0, math.nan]], np.float32)


def event(epoch, **figures):
    return Event(
        epoch=epoch, step=10 * epoch, figures=figures, seconds=0.25 * epoch, on_device=({"dense_0": {"w": W}}, {})
    )


def run(writer, epochs, **figures):
    for epoch in epochs:
        writer(event(epoch, loss=1.0 / epoch, **figures))


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def refuse_constant(token):
    raise AssertionError(f"{token} is not JSON")


def lines_of(path):
    return [json.loads(line, parse_constant=refuse_constant) for line in path.read_text().splitlines()]


def test_csv_rows_are_there_after_every_epoch(tmp_path):
    write = csv_writer(tmp_path / "deep" / "run.csv")
    for epoch in (1, 2):
        write(event(epoch, loss=1 / 3, valid_loss=math.nan, valid_accuracy=-math.inf))
        assert len(rows_of(tmp_path / "deep" / "run.csv")) == epoch
    text = (tmp_path / "deep" / "run.csv").read_text()
    assert text == (
        "epoch,step,seconds,loss,valid_loss,valid_accuracy\n"
        f"1,10,0.25,{1 / 3!r},nan,-inf\n2,20,0.5,{1 / 3!r},nan,-inf\n"
    )


def test_jsonl_is_json_whatever_the_figures_are(tmp_path):
    write = jsonl_writer(tmp_path / "run.jsonl")
    write(event(1, loss=np.float32(0.5), valid_loss=math.nan, worst=math.inf))
    write(event(2, loss=0.25))
    first, second = lines_of(tmp_path / "run.jsonl")
    assert first == {"epoch": 1, "step": 10, "seconds": 0.25, "loss": 0.5, "valid_loss": None, "worst": "inf"}
    assert second == {"epoch": 2, "step": 20, "seconds": 0.5, "loss": 0.25}


def test_a_figure_that_comes_later_gets_a_column(tmp_path):
    path = tmp_path / "run.csv"
    write = csv_writer(path)
    write(event(1, loss=1.0))
    write(event(2, loss=0.5, rate=0.1))
    write(event(3, rate=0.2))
    assert path.read_text().splitlines() == [
        "epoch,step,seconds,loss,rate", "1,10,0.25,1.0,", "2,20,0.5,0.5,0.1", "3,30,0.75,,0.2",
    ]  # fmt: skip


@pytest.mark.parametrize(("make", "read"), [(csv_writer, rows_of), (jsonl_writer, lines_of)])
@pytest.mark.parametrize("tail", ["", "6,60,1.", '{"epoch": 6, "st'])
def test_a_killed_and_resumed_run_leaves_one_series(tmp_path, make, read, tail):
    path = tmp_path / "run"
    run(make(path), range(1, 6), valid_loss=math.nan)
    with path.open("a") as file:  # the kill came in the middle of a line
        file.write(tail)
    run(make(path), range(4, 8), rate=0.1)
    steps = [int(row["step"]) for row in read(path)]
    assert steps == [10, 20, 30, 40, 50, 60, 70]
    assert [row.get("rate") in (None, "") for row in read(path)] == [True] * 3 + [False] * 4
    assert [float(row["loss"]) for row in read(path)] == [1.0 / epoch for epoch in range(1, 8)]


@pytest.mark.parametrize(("make", "read"), [(csv_writer, rows_of), (jsonl_writer, lines_of)])
def test_a_run_that_starts_anew_replaces_its_rows_and_one_that_goes_on_keeps_them(tmp_path, make, read):
    path = tmp_path / "run"
    run(make(path), (1, 2))
    run(make(path), (3,))
    assert [int(row["epoch"]) for row in read(path)] == [1, 2, 3]
    run(make(path), (1,))
    assert [int(row["epoch"]) for row in read(path)] == [1]
    path.write_text("epoch,st")  # cut short in the first line
    run(make(path), (1, 2))
    assert [int(row["epoch"]) for row in read(path)] == [1, 2]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (csv_writer, "name,value\na,1\n"),
        (csv_writer, "epoch,step,seconds\n1,10\n"),
        (csv_writer, "epoch,step,seconds\n1,ten,3\n"),
        (csv_writer, "epoch,step,seconds,loss,loss\n"),
        (jsonl_writer, "hello\n"),
        (jsonl_writer, '{"step": 1}\n[]\n'),
        (jsonl_writer, '{"step": "1"}\n'),
    ],
)
def test_a_file_of_something_else_is_refused_and_kept(tmp_path, make, text):
    path = tmp_path / "notes"
    path.write_text(text)
    with pytest.raises(DataError, match="name a new file"):
        make(path)(event(1, loss=1.0))
    assert path.read_text() == text


def test_an_interrupted_rewrite_leaves_the_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "run.csv"
    run(csv_writer(path), (1, 2, 3))
    before = path.read_text()
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(csv_writer(path), (2,))
    assert path.read_text() == before and [file.name for file in tmp_path.iterdir()] == ["run.csv"]


def test_arguments_are_checked_at_the_door(tmp_path, monkeypatch):
    with pytest.raises(InputTypeError, match="path is int 3, wanted a path"):
        csv_writer(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="train.jsonl_writer: path is .*cannot be written"):
        jsonl_writer(tmp_path)(event(1, loss=1.0))
    with pytest.raises(InputTypeError, match="histograms"):
        tensorboard_writer(tmp_path, histograms=1)  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'fdl\[tensorboard\]'"):
        tensorboard_writer(tmp_path)


def events_in(folder):
    Record = importlib.import_module("tensorboardX.proto.event_pb2").Event

    found = []
    for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns):
        data, at = file.read_bytes(), 0
        while at < len(data):  # length, its checksum, record, its checksum
            length = int.from_bytes(data[at : at + 8], "little")
            found.append(Record.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    return found


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_tensorboard_gets_scalars_histograms_and_what_to_purge(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs fdl[tensorboard]")
    run(tensorboard_writer(tmp_path, histograms=True), (1, 2))
    run(tensorboard_writer(tmp_path), (2,), valid_loss=math.nan)
    records = events_in(tmp_path)
    values = [(record.step, value) for record in records for value in record.summary.value]
    scalars = [(step, value.tag, value.simple_value) for step, value in values if value.HasField("simple_value")]
    assert scalars[:3] == [(10, "loss", 1.0), (20, "loss", 0.5), (20, "loss", 0.5)]
    assert scalars[3][:2] == (20, "valid_loss") and math.isnan(scalars[3][2])
    histograms = [(step, value.tag, value.histo) for step, value in values if value.HasField("histo")]
    assert [(step, tag) for step, tag, _ in histograms] == [(10, "params/dense_0/w"), (20, "params/dense_0/w")]
    assert (histograms[0][2].min, histograms[0][2].max, histograms[0][2].num) == (-1.0, 0.5, 2.0)
    starts = [record.step for record in records if record.HasField("session_log")]
    assert starts == [10, 20]

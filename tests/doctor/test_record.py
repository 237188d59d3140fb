"""The record of an examination: what comes back is what went in, and nothing else is believed."""

import dataclasses
import io
import types
import zipfile

import numpy as np
import pytest

import fdl
from fdl.doctor.chart import Chart
from fdl.doctor.finding import Finding
from fdl.doctor.record import NAME, thinned
from fdl.errors import DataError, InputError, InputTypeError
from tests.doctor.test_diagnose import chart

FOUND = Finding("vanishing", "dense_0", "error", "évidence <b>", "remedy", ("tried", "twice"))


def planted(step):
    """A chart whose every array can be told from all others."""
    random = np.random.default_rng(step)
    one = chart(step)
    drawn = {}
    for field in dataclasses.fields(Chart):
        value = getattr(one, field.name)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            drawn[field.name] = np.where(random.random(value.shape) < 0.2, np.nan, random.normal(size=value.shape))
    return dataclasses.replace(one, **drawn)


@pytest.fixture(name="saved")
def _saved(tmp_path):
    charts = [planted(step) for step in (0, 5, 10)]
    history = {"loss": np.asarray([2.0, np.nan]), "valid/loss": np.zeros(0)}
    result = types.SimpleNamespace(charts=charts, history=history, findings=(FOUND,), divergence="at step 3")
    return charts, history, fdl.doctor.save(tmp_path / "new" / "folder", result)


def test_what_comes_back_is_what_went_in(saved):
    charts, history, path = saved
    record = fdl.doctor.load(path.parent)
    for field in dataclasses.fields(Chart):
        wanted = [getattr(one, field.name) for one in charts]
        got = getattr(record.charts, field.name)
        if field.name == "units":
            assert set(got) == set(wanted[0])
            for name in got:
                np.testing.assert_array_equal(got[name], [units[name] for units in wanted])
        elif isinstance(got, np.ndarray):
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype == np.asarray(wanted).dtype, field.name
        else:
            assert got == wanted[0], field.name
    assert record.findings == (FOUND,) and record.divergence == "at step 3"
    assert list(record.history) == list(history)
    for name, values in history.items():
        np.testing.assert_array_equal(record.history[name], values)
    assert [p.name for p in path.parent.iterdir()] == [NAME]


def test_charts_alone_are_diagnosed(tmp_path):
    fdl.doctor.save(tmp_path, chart(0))
    fdl.doctor.save(tmp_path, [chart(0, first_not_finite=np.int32(1)), chart(5)])  # replaces it
    record = fdl.doctor.load(tmp_path / NAME)
    assert len(record.charts.step) == 2 and record.findings[0].code == "non_finite"
    assert record.history == {} and record.divergence == ""


def test_every_damaged_byte_is_refused_or_harmless(saved):
    charts, _, path = saved
    whole = path.read_bytes()
    wanted = fdl.doctor.load(path)
    refused = 0
    places = np.random.default_rng(0).integers(0, len(whole), 150)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        try:
            got = fdl.doctor.load(path)
        except DataError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            refused += 1
        else:  # a time stamp of the archive
            assert got.findings == wanted.findings
            np.testing.assert_array_equal(got.charts.error, wanted.charts.error)
    assert refused > 100
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            fdl.doctor.load(path)


def changed(path, **arrays):
    """The record with other arrays."""
    with np.load(path) as old:
        kept = dict(old)
    path.write_bytes(b"")
    buffer = io.BytesIO()
    np.savez(buffer, **{name: a for name, a in (kept | arrays).items() if a is not None})
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize(
    "name, array, said",
    [
        ("chart/error", np.zeros((3, 2)), "error has shape"),
        ("chart/spectrum", np.zeros((3, 2, 4)), "spectrum has shape"),
        ("chart/weight", None, "lacks 'chart/weight'"),
        ("chart/first_not_finite", np.asarray([0, 0, 10**6]), "no index"),
        ("units/0", np.full((3, 4), 9, np.int8), "no index"),
        ("units/0", np.zeros((2, 4), np.int8), "rows"),
        ("history/0", np.zeros((2, 2)), "no series"),
        ("facts", np.frombuffer(b"[]", np.uint8), "format"),
        ("facts", np.frombuffer(b'{"format": "fdl.doctor 1"}', np.uint8), "lacks"),
        ("facts", np.frombuffer(b"{", np.uint8), "is no record"),
    ],
)
def test_what_does_not_fit_together_is_refused(saved, name, array, said):
    path = saved[2]
    changed(path, **{name: array})
    with pytest.raises(DataError, match=said):
        fdl.doctor.load(path)


def test_foreign_files_are_refused_and_nothing_is_unpickled(tmp_path):
    with pytest.raises(DataError, match="holds no record"):
        fdl.doctor.load(tmp_path)
    with pytest.raises(DataError, match="holds no record"):
        fdl.doctor.load(tmp_path / "nowhere")
    np.savez(tmp_path / NAME, x=np.zeros(3))
    with pytest.raises(DataError, match="facts"):
        fdl.doctor.load(tmp_path)
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray([{"a": 1}], object), allow_pickle=True)
        archive.writestr("facts.npy", buffer.getvalue())
    with pytest.raises(DataError, match="never unpickled"):
        fdl.doctor.load(tmp_path)


def test_the_door(tmp_path):
    with pytest.raises(InputError, match="without charts"):
        fdl.doctor.save(tmp_path, types.SimpleNamespace(charts=None))
    with pytest.raises(InputError, match="at least one"):
        fdl.doctor.save(tmp_path, [])
    with pytest.raises(InputError, match="other loss_name"):
        fdl.doctor.save(tmp_path, [chart(0), dataclasses.replace(chart(1), loss_name="other")])
    with pytest.raises(InputTypeError, match="wanted a path"):
        fdl.doctor.load(3)  # pyright: ignore[reportArgumentType]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        fdl.doctor.save(tmp_path / "file", chart(0))


def test_an_interrupted_save_leaves_the_old_record(saved, monkeypatch):
    path = saved[2]
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(DataError, match="disk full"):
        fdl.doctor.save(path.parent, chart(0))
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [NAME]


def test_thinning_keeps_both_ends(tmp_path):
    fdl.doctor.save(tmp_path, [chart(step) for step in range(10)])
    charts = fdl.doctor.load(tmp_path).charts
    few = thinned(charts, 4)
    assert few.step.tolist() == [0, 3, 6, 9] and few.error.shape[0] == 4
    assert thinned(charts, 10) is charts

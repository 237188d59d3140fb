"""The file of results: a section replaces its own, few digits, whole or not at all, and nothing foreign is taken for it."""

import json

import numpy as np
import pytest

from benchmarks import _store
from benchmarks._command import main
from benchmarks._rows import Row, Settings
from benchmarks._store import Refused, read, section, text_of, update

COUNTING = """
'''Counting: the claim.'''

from benchmarks._harness import judged


def run(settings):
    if RAISES:
        raise ValueError("it broke")
    return [judged("counting", "3 of 3", True, "all")]
"""


def made(*rows):
    return section(list(rows), Settings(full=True, repeats=3), 1.23456)


def row(**more):
    return Row("work", "step", "fdl", "fdl", "timed", **more)


def test_a_section_replaces_its_own_and_no_other(tmp_path):
    path = tmp_path / "results" / "r.json"
    update(path, "one", made(row(ratio=1.0)))
    update(path, "two", made(row(ratio=2.0)))
    update(path, "one", made(row(ratio=3.0), row(ratio=4.0)))
    stored = read(path)
    assert {name: [r.ratio for r in s.rows] for name, s in stored.items()} == {"one": [3.0, 4.0], "two": [2.0]}
    assert stored["one"].full and stored["one"].repeats == 3 and stored["one"].took == 1.235
    assert stored["one"].versions["numpy"] == np.__version__
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


def test_what_is_kept_of_a_row_is_short_and_comes_back():
    many = row(samples=[0.1] * 1000, cpu=[1.0] * 1000, seconds=1 / 3, quartiles=[1 / 7, 1 / 6], note="x" * 9999)
    text = text_of({"one": made(many)})
    assert len(text) < 2000
    (kept,) = json.loads(text)["sections"]["one"]["rows"]
    assert kept["seconds"] == 0.3333 and kept["quartiles"] == [0.1429, 0.1667] and "samples" not in kept
    back = Row(**kept)
    assert (back.seconds, back.samples, back.ratio, back.reached) == (0.3333, [], None, None)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_json_has_not_is_left_out(value):
    text = text_of({"one": made(row(difference=value, reached=False))})
    (kept,) = json.loads(text, parse_constant=pytest.fail)["sections"]["one"]["rows"]
    assert "difference" not in kept and kept["reached"] is False


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    update(path, "one", made(row(ratio=1.0)))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_store.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        update(path, "one", made(row(ratio=2.0)))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


SOUND = json.loads(text_of({"one": made(row(ratio=1.0))}))
DAMAGED = {
    "empty": "",
    "cut": json.dumps(SOUND)[:-5],
    "a list": "[]",
    "another program's": '{"rows": []}',
    "another version's": json.dumps({**SOUND, "format": "fdl benchmarks, 0"}),
    "no sections": json.dumps({"format": _store.FORMAT}),
    "an unknown field": json.dumps(SOUND).replace('"ratio"', '"rating"'),
    "a section without rows": json.dumps(SOUND).replace('"rows"', '"lines"'),
    "a section without versions": json.dumps(SOUND).replace('"versions"', '"version"'),
    "bytes": "\x00\x01",
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "benchmarks"
    made.mkdir()
    (made / "counting.py").write_text(COUNTING.replace("RAISES", "False"))
    return made


@pytest.mark.parametrize("text", DAMAGED.values(), ids=list(DAMAGED))
def test_a_damaged_or_foreign_file_is_refused_before_anything_runs(tmp_path, folder, text, capsys):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(Refused, match="r.json"):
        read(path)
    (folder / "counting.py").write_text(COUNTING.replace("RAISES", "True"))
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(path)], folder)
    assert stopped.value.code == 2 and path.read_text() == text
    said = capsys.readouterr()
    assert "r.json" in said.err and "another file" in said.err and "it broke" not in said.err + said.out


def test_what_is_stored_is_shown_and_a_benchmark_that_raises_keeps_its_section(tmp_path, folder, capsys):
    path = tmp_path / "r.json"
    assert main(["--out", str(path)], folder) == 0
    (folder / "counting.py").write_text(COUNTING.replace("RAISES", "True"))
    (folder / "other.py").write_text(COUNTING.replace("RAISES", "True"))
    assert main(["other", "--out", str(path)], folder) == 1
    assert "it broke" in capsys.readouterr().err
    assert main(["--show", "--stored", str(path)], folder) == 0
    printed = capsys.readouterr().out
    assert "3 of 3" in printed and "numpy" not in printed and "counting: 20" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["--show", "--out", "x.json"],
        ["--show", "--full"],
        ["--show", "--stored", "nowhere.json"],
        ["counting", "--show"],
    ],
)
def test_wrong_ways_to_look_exit_with_2(tmp_path, folder, arguments, capsys):
    path = tmp_path / "r.json"
    update(path, "one", made(row(ratio=1.0)))
    with pytest.raises(SystemExit) as stopped:
        main(arguments if "--stored" in arguments else [*arguments, "--stored", str(path)], folder)
    assert stopped.value.code == 2 and "error:" in capsys.readouterr().err


def test_the_stored_results_are_sound_and_small():
    assert _store.RESULTS.stat().st_size < 300_000
    stored = read(_store.RESULTS)
    assert stored and all(s.rows and s.versions["jax"] and s.took > 0 for s in stored.values())
    assert not [r for s in stored.values() for r in s.rows if r.status in ("unequal", "failed")]

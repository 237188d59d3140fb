"""`python -m fdl doctor`: findings in order, the exit code, what is written, and one line for what cannot be used."""

import importlib
import json
import struct

import numpy as np
import pytest

import fdl
from fdl.cli import main
from fdl.doctor import events
from tests.doctor.test_diagnose import chart

SICK = [chart(0, first_not_finite=np.int32(1)), chart(5, first_not_finite=np.int32(1))]


def test_a_sick_training_is_told_and_exits_with_1(tmp_path, capsys):
    fdl.doctor.save(tmp_path, SICK)
    assert main(["doctor", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    findings = fdl.doctor.load(tmp_path).findings
    for number, finding in enumerate(findings, 1):
        assert f"{number}. {finding.code}" in said
        assert finding.remedy in " ".join(said.split())
    assert "2 charts of 6 layers, the last of step 5" in said


def test_a_healthy_one_exits_with_0_and_as_json(tmp_path, capsys):
    fdl.doctor.save(tmp_path, [chart(0), chart(5)])
    assert main(["doctor", str(tmp_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [finding["severity"] for finding in facts["findings"]] == ["none", "note"]
    assert facts["charts"] == 2 and facts["last_step"] == 5


def test_what_cannot_be_used_exits_with_2_and_one_line(tmp_path, capsys):
    (tmp_path / "doctor.npz").write_bytes(b"PK\3\4 and so on")
    assert main(["doctor", str(tmp_path)]) == 2
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.strip().splitlines()) == 2


def test_page_and_pictures_are_written(tmp_path, capsys):
    pytest.importorskip("plotly", reason="needs fdl[doctor]")
    pytest.importorskip("matplotlib", reason="needs fdl[lab]")
    fdl.doctor.save(tmp_path, SICK)
    asked = ["--page", str(tmp_path / "p.html"), "--pictures", str(tmp_path / "png")]
    assert main(["doctor", str(tmp_path), *asked]) == 1
    assert (tmp_path / "p.html").exists() and len(list((tmp_path / "png").iterdir())) == 5
    assert main(["doctor", str(tmp_path), "--page", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_tensorboard_gets_scalars_and_histograms(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs fdl[tensorboard]")
    fdl.doctor.save(tmp_path, [chart(0), chart(7)])
    assert main(["doctor", str(tmp_path), "--tensorboard", str(tmp_path / "board")]) == 0
    found = {}
    Record = importlib.import_module("tensorboardX.proto.event_pb2").Event
    (path,) = (tmp_path / "board").iterdir()
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        record = Record.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length
        for value in record.summary.value:
            found[value.tag, record.step] = value
    assert found["error/dense_0", 7].simple_value == pytest.approx(0.5)
    assert found["dead/relu_1", 0].simple_value == 0.25
    assert ("saturated/dense_0", 0) not in found  # a dense layer has no such number
    histogram = found["output/output", 7].histo
    assert list(histogram.bucket_limit) == pytest.approx(np.linspace(-1, 1, 7).tolist())
    assert sum(histogram.bucket) == pytest.approx(events.ENTRIES)
    assert list(histogram.bucket) == pytest.approx([10, 40, 200, 250, 250, 200, 50])

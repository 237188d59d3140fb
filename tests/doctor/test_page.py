"""The page: complete in itself, with the record's numbers in it, and nothing of the record taken for HTML."""

import dataclasses
import json
import re
import sys
import types

import numpy as np
import pytest

import fdl
from fdl.doctor.finding import Finding
from fdl.errors import DataError, InputError
from tests.doctor.test_diagnose import chart

pytest.importorskip("plotly", reason="needs fdl[doctor]")

from fdl.doctor import page as pages

EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(name="record", scope="module")
def _record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("record")
    charts = [chart(step, error=np.asarray([0.0, 1, 2, 3, 4, np.inf]) + step) for step in (0, 10)]
    finding = Finding("vanishing", "dense_0/w", "error", f"@data@ {EVIL}", "less & more", (EVIL,))
    note = Finding("overfit", "nowhere", "note", "so it goes", "")
    history = {EVIL: np.asarray([1.0, np.nan])}
    fdl.doctor.save(
        folder, types.SimpleNamespace(charts=charts, history=history, findings=(finding, note), divergence=None)
    )
    return fdl.doctor.load(folder)


def data_of(text):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])  # pyright: ignore[reportOptionalSubscript]


def test_the_page_holds_the_measurements(record):
    data = data_of(pages.page(record))
    assert data["steps"] == [0, 10] and data["names"] == list(record.charts.names)
    assert data["error"] == [[0, 1, 2, 3, 4, None], [10, 11, 12, 13, 14, None]]
    assert data["chosen"] == "dense_0" and data["spectrum"] is not None
    assert data["units"]["relu_1"] == ["0010", "0010"]
    assert np.shape(data["percentiles"]["output"]) == (2, 6, 7)
    np.testing.assert_allclose(data["update"], record.charts.update_ratio[:, 1::2], rtol=1e-3)
    assert data["history"] == {EVIL: [1.0, None]}


def test_the_page_makes_no_request(record):
    text = pages.page(record)
    own = text.replace(pages.importlib.import_module("plotly.offline").get_plotlyjs(), "")
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://|fetch\(", own.replace("img src=x", ""))
    assert "default-src 'none'" in own
    assert len(text) < 6_000_000


def test_nothing_of_the_record_is_html(record):
    text = pages.page(record, title=EVIL)
    assert EVIL not in text and text.count("&lt;/script&gt;&lt;img") == 4  # two titles, evidence, what was tried
    assert "@data@ &lt;" in text and "less &amp; more" in text  # what is put in is not filled in again
    assert '<button class="layer" data-layer="dense_0">dense_0/w</button>' in text and "in nowhere" in text


def test_many_charts_are_thinned_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_CHARTS", 4)
    monkeypatch.setattr(pages, "MOST_BYTES", 1)
    fdl.doctor.save(tmp_path, [chart(step) for step in range(9)])
    many = dataclasses.replace(fdl.doctor.load(tmp_path), divergence="at the end")
    text = pages.page(many)
    assert len(data_of(text)["steps"]) == 2 and "The training stopped: at the end" in text


def test_the_page_is_written_whole_or_refused(record, tmp_path, monkeypatch):
    path = pages.write_page(tmp_path / "new" / "page.html", record)
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    with pytest.raises(DataError, match="cannot be written"):
        pages.write_page(tmp_path / "new", record)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(InputError, match=r"pip install 'fdl\[doctor\]'"):
        pages.page(record)

"""One HTML page of an examination: findings on top, then pictures that answer to the mouse, the chosen layer and step.

The page is one file that makes no request: plotly.js (the extra `fdl[doctor]`) stands in it, as do the measurements, and its policy
forbids the browser to load anything. Where it stands is kept in the address (#t=3&layer=dense_0), so a view can be linked to.
"""

import html
import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from fdl.doctor.chart import CAUSES, Chart
from fdl.doctor.finding import Finding
from fdl.doctor.record import Record, thinned
from fdl.errors import DataError, InputError
from fdl.files import write_whole

MOST_BYTES = 1_000_000  # of measurements, beside the 4.8 MB of plotly.js 3
MOST_CHARTS = 64
MOST_UNITS = 512  # of a layer: a row of pixels each


def write_page(path: str | os.PathLike, record: Record, title: str = "The doctor's findings") -> Path:
    """Writes the page, whole or not at all. Errors: InputError without plotly, DataError for a file that cannot be written."""
    path = Path(path)
    data = page(record, title).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise DataError(str(path), f"cannot be written ({error.strerror or error}); name another file") from error
    return path


def page(record: Record, title: str = "The doctor's findings") -> str:
    """The text of the page."""
    try:
        plotly = importlib.import_module("plotly.offline").get_plotlyjs()
    except ImportError as error:
        raise InputError("doctor.page", "plotly is not installed: pip install 'fdl[doctor]'") from error
    places = {
        "title": html.escape(title),
        "about": html.escape(_about(record)),
        "findings": "\n".join(_shown(finding, record.charts.names) for finding in record.findings),
        "data": _data(record),
        "plotly": plotly,
    }
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return re.sub(f"@({'|'.join(places)})@", lambda match: places[match[1]], text)  # what is put in is not looked at


def _about(record: Record) -> str:
    charts = record.charts
    count, layers = len(charts.step), len(charts.names)
    steps = f", steps {int(charts.step[0])} to {int(charts.step[-1])}" if count > 1 and charts.step[0] >= 0 else ""
    kept = f"; {MOST_CHARTS} of them are shown" if count > MOST_CHARTS else ""
    stopped = f". The training stopped: {record.divergence}" if record.divergence else ""
    return f"{count} chart{'s' * (count > 1)} of {layers} layers{steps}{kept}; loss: {charts.loss_name}{stopped}."


def _shown(finding: Finding, names: tuple[str, ...]) -> str:
    text = html.escape
    where = ""
    if finding.layer:
        layer = next((n for n in (finding.layer, finding.layer.rpartition("/")[0]) if n in names), None)
        named = text(finding.layer)
        where = f'in <button class="layer" data-layer="{text(layer)}">{named}</button>' if layer else f"in {named}"
    remedy = f"<p><b>Remedy.</b> {text(finding.remedy)}</p>" if finding.remedy else ""
    effects = "".join(f"<p><b>Tried.</b> {text(effect)}</p>" for effect in finding.effects)
    word = "all is well" if finding.severity == "none" else finding.severity
    return (
        f'<section class="finding {text(finding.severity)}"><div class="head"><span class="badge {text(finding.severity)}">'
        f"{text(word)}</span><h2>{text(finding.code)}</h2><span>{where}</span></div><p>{text(finding.evidence)}</p>"
        f"{remedy}{effects}</section>"
    )


def _data(record: Record) -> str:
    """As JSON that can stand in a script; of fewer charts, evenly spaced, where all would be too much."""
    most = MOST_CHARTS
    while True:
        text = json.dumps(_measurements(record, thinned(record.charts, most)), allow_nan=False, separators=(",", ":"))
        if len(text) <= MOST_BYTES or most == 2:
            return text.replace("<", "\\u003c")
        most //= 2


def _measurements(record: Record, charts: Chart) -> dict[str, Any]:
    numbered = bool((np.diff(charts.step) > 0).all() and charts.step[0] >= 0)
    weights = np.flatnonzero(~np.isnan(charts.weight_spread[0]))
    weights = weights if len(weights) else np.arange(len(charts.parameters))
    named = [f.layer for f in record.findings] + [f.layer.rpartition("/")[0] for f in record.findings]
    return {
        "steps": charts.step.tolist() if numbered else list(range(len(charts.step))),
        "numbered": numbered,
        "names": charts.names,
        "chosen": next((name for name in named if name in charts.names), charts.names[0]),
        "loss": _numbers(charts.loss),
        "chance": _numbers(charts.chance_loss)[0],
        "history": {name: _numbers(values) for name, values in record.history.items()},
        "error": _numbers(charts.error),
        "growth": _numbers(charts.growth),
        "saturated": _numbers(charts.saturated),
        "percentiles": {
            name: _numbers(getattr(charts, f"{name}_percentiles")) for name in ("output", "input", "error")
        },
        "units": {name: _rows(units) for name, units in charts.units.items()},
        "causes": CAUSES,
        "weights": [charts.parameters[at] for at in weights],
        "update": _numbers(charts.update_ratio[:, weights]),
        "spectrum": _numbers(charts.spectrum) if np.isfinite(charts.spectrum).any() else None,
    }


def _numbers(array: Any) -> Any:
    """Nested lists with four significant digits; null where a number is not finite."""
    array = np.asarray(array, float)
    if array.ndim:
        return [_numbers(row) for row in array]
    value = float(array)
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _rows(units: np.ndarray) -> list[str]:
    """[T] strings of the causes' digits."""
    return ["".join(map(str, row[:MOST_UNITS])) for row in units]

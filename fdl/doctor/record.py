"""The record of an examination in a folder: charts, history and findings, in one file.

    fdl.doctor.save(folder, result)      what `fit(doctor=n)` returned, or charts of `examine`
    record = fdl.doctor.load(folder)     record.charts, record.history, record.findings

The file, `doctor.npz`, is an archive as numpy writes it, of arrays of numbers alone: `chart/NAME` for the fields of `Chart` [T, ...],
`units/I` and `history/I` for those that have names of their own, and `facts`, the bytes of a JSON object with all names and sentences.
Nothing is ever unpickled. It is written under another name, flushed and renamed, so it is there whole or not at all; every byte
that is read is under a CRC-32, and shapes are held against the names before anything is believed.
"""

import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fdl.data._files import opened
from fdl.data._zip import entries, member
from fdl.data.npy import read_entries, read_header
from fdl.doctor.chart import CAUSES, PERCENTILES, Chart, unstacked
from fdl.doctor.diagnose import diagnose
from fdl.doctor.finding import SEVERITIES, Finding
from fdl.errors import DataError, refuse, refuse_type, shown
from fdl.files import write_whole

NAME = "doctor.npz"
FORMAT = "fdl.doctor 1"
_STATIC = ("names", "kinds", "parameters", "outgoing", "loss_name", "takes_logits", "places", "couples", "features")
_LAYER = ("error", "growth", "output_rms", "saturated", "drift", "statistics_of", "leak")
_PERCENTILES = ("input_percentiles", "output_percentiles", "error_percentiles")
_PARAMETER = ("weight", "gradient", "update", "noise", "cosine", "weight_spread", "gradient_spread")
_FIELDS = tuple(field.name for field in dataclasses.fields(Chart) if field.name not in (*_STATIC, "case", "units"))


@dataclasses.dataclass(frozen=True)
class Record:
    """charts: stacked, of numpy arrays [T, ...]. history: {name: [epochs]}. divergence: where the run stopped being finite, or "".

    >>> model, loss = fdl.serial(fdl.dense(2), fdl.tanh()), fdl.losses.mean_squared_error
    >>> params, state = model.init(jax.random.key(0), (3,))
    >>> x, y = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
    >>> _ = fdl.doctor.save("seen", fdl.doctor.examine(model, loss, params, state, x, y))
    >>> fdl.doctor.load("seen").charts.loss.shape
    (1,)
    """

    charts: Chart
    history: dict[str, np.ndarray]
    findings: tuple[Finding, ...]
    divergence: str = ""


def save(folder: str | os.PathLike, result: Any, history: dict[str, Any] | None = None, findings: Any = None) -> Path:
    """Writes `folder/doctor.npz` and returns its path; one that is there is replaced.

    result: what `fit(doctor=n)` returned, a chart, a list of charts in the order of time, or a stacked one; all of one model.
    history, findings: by default the result's; of charts, what `diagnose` says.
    Errors: InputError for a result without charts, or charts of different models; DataError for a folder that cannot be written.

        >>> model, loss = fdl.serial(fdl.dense(2), fdl.tanh()), fdl.losses.mean_squared_error
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> x, y = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
        >>> fdl.doctor.save("seen", fdl.doctor.examine(model, loss, params, state, x, y)).name
        'doctor.npz'
    """
    where = "doctor.save"
    folder = _path(where, folder)
    charts = getattr(result, "charts", None) if not isinstance(result, Chart | list | tuple) else result
    if charts is None:
        refuse(
            where, f"result is {type(result).__name__} without charts; train with fit(..., doctor=10), or pass charts"
        )
    seen = unstacked(where, charts)
    history = dict(getattr(result, "history", None) or {}) if history is None else history
    findings = getattr(result, "findings", ()) if findings is None else findings
    findings = tuple(findings or diagnose(seen, history))
    divergence = getattr(result, "divergence", None)
    data = _encoded(seen, history, findings, "" if divergence is None else str(divergence))
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise DataError(str(path), f"cannot be written ({error.strerror or error}); name another folder") from error
    return path


def load(folder: str | os.PathLike) -> Record:
    """What `save` wrote into this folder, verified. Errors: DataError, one sentence, for a folder without a record, or a file that is
    damaged or of another kind.

        >>> model, loss = fdl.serial(fdl.dense(2), fdl.tanh()), fdl.losses.mean_squared_error
        >>> params, state = model.init(jax.random.key(0), (3,))
        >>> x, y = jnp.ones((4, 3), jnp.float32), jnp.zeros((4, 2), jnp.float32)
        >>> _ = fdl.doctor.save("seen", fdl.doctor.examine(model, loss, params, state, x, y))
        >>> fdl.doctor.load("seen").charts.names
        ('dense_0', 'tanh_1')
    """
    folder = _path("doctor.load", folder)
    path = folder / NAME if folder.is_dir() else folder
    if not path.exists():
        remedy = "fit(..., doctor=10, checkpoint=FOLDER) or fdl.doctor.save(FOLDER, result) makes one"
        raise DataError(str(folder), f"holds no record of the doctor ({NAME}); {remedy}")
    arrays = _read(path)
    try:
        return _decoded(arrays)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise DataError(str(path), f"is no record of the doctor, or a damaged one: {said}") from error


def _path(where: str, folder: Any) -> Path:
    if not isinstance(folder, str | os.PathLike):
        refuse_type(where, f"folder is {shown(folder)}, wanted a path")
    return Path(folder)


# ---- out


def _encoded(seen: list[Chart], history: dict[str, Any], findings: tuple, divergence: str) -> bytes:
    first = seen[0]
    stacked = lambda values: _plain(np.stack([np.asarray(value) for value in values]))
    arrays = {f"chart/{name}": stacked([getattr(chart, name) for chart in seen]) for name in _FIELDS}
    arrays |= {f"units/{i}": stacked([chart.units[name] for chart in seen]) for i, name in enumerate(first.units)}
    arrays |= {f"history/{i}": _plain(np.asarray(values)) for i, values in enumerate(history.values())}
    facts = {
        "format": FORMAT,
        "percentiles": PERCENTILES,
        "causes": CAUSES,
        "chart": {name: getattr(first, name) for name in _STATIC},
        "units": list(first.units),
        "history": list(history),
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "divergence": divergence,
        "empty": {name: [str(a.dtype), *a.shape] for name, a in arrays.items() if not a.size},
    }
    text = json.dumps(facts, allow_nan=False).encode()
    stored: dict[str, Any] = {name: array for name, array in arrays.items() if array.size}
    stored["facts"] = np.frombuffer(text, np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **stored)
    return buffer.getvalue()


def _plain(array: np.ndarray) -> np.ndarray:
    """With a dtype that numpy itself has."""
    return array if array.dtype.kind in "biuf" else array.astype(np.float32)


# ---- in


def _read(path: Path) -> dict[str, np.ndarray]:
    with opened(path) as (file, size):
        arrays = {}
        for name, entry in entries(path, file, size).items():
            contents = member(path, file, size, entry)
            arrays[name.removesuffix(".npy")] = read_entries(contents, read_header(contents))
    return arrays


def _decoded(arrays: dict[str, np.ndarray]) -> Record:
    text = arrays["facts"].astype(np.uint8).tobytes()
    facts = json.loads(text)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(f"its facts are not in the format {FORMAT!r}")
    if facts["percentiles"] != list(PERCENTILES) or facts["causes"] != list(CAUSES):
        raise ValueError("its percentiles or causes are not those that charts have")
    for name, (dtype, *shape) in _a(dict, facts["empty"], "empty").items():
        if 0 not in shape:
            raise ValueError(f"{name} is said to be empty and to have shape {shape}")
        arrays[name] = np.zeros(shape, np.dtype(dtype))
    static = _static(facts["chart"])
    counts = {name: arrays[f"chart/{name}"] for name in _FIELDS}
    times = counts["step"].size
    for name, array in counts.items():
        wanted = _shape(name, static, times)
        if array.shape != wanted and not (name == "spectrum" and array.shape[:2] == wanted):
            raise ValueError(f"{name} has shape {list(array.shape)}, wanted {list(wanted)}")
    _require_below("first_not_finite", counts["first_not_finite"], len(static["places"]))
    units = {}
    for i, name in enumerate(_texts(facts["units"], "units")):
        units[name] = arrays[f"units/{i}"]
        if units[name].ndim != 2 or len(units[name]) != times:
            raise ValueError(f"the units of {name} have shape {list(units[name].shape)}, wanted {times} rows")
        _require_below(f"units of {name}", units[name], len(CAUSES))
    history = {name: arrays[f"history/{i}"] for i, name in enumerate(_texts(facts["history"], "history"))}
    if any(values.ndim != 1 for values in history.values()):
        raise ValueError("the history has values that are no series")
    charts = Chart(**counts, units=units, **static)
    findings = tuple(_finding(one) for one in _a(list, facts["findings"], "findings"))
    if not findings:
        raise ValueError("it has no findings")
    return Record(charts, history, findings, _a(str, facts["divergence"], "divergence"))


def _static(facts: Any) -> dict[str, Any]:
    _a(dict, facts, "chart")
    static = {name: facts[name] for name in _STATIC}
    for name in ("names", "kinds", "parameters", "places", "couples"):
        static[name] = tuple(_texts(static[name], name))
    static["outgoing"] = tuple(
        (_a(str, name, "outgoing"), tuple(_texts(to, "outgoing")))
        for name, to in _a(list, static["outgoing"], "outgoing")
    )
    _a(str, static["loss_name"], "loss_name")
    _a(bool | None, static["takes_logits"], "takes_logits")
    _a(int, static["features"], "features")
    if len(static["kinds"]) != len(static["names"]):
        raise ValueError("it names other numbers of layers and of kinds")
    return static


def _shape(name: str, static: dict[str, Any], times: int) -> tuple[int, ...]:
    layers, leaves = len(static["names"]), len(static["parameters"])
    if name in _PERCENTILES:
        return times, layers, len(PERCENTILES)
    if name in _LAYER or name == "spectrum":
        return times, layers
    return (times, leaves) if name in _PARAMETER else (times,)


def _require_below(name: str, array: np.ndarray, limit: int) -> None:
    if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() < limit):
        raise ValueError(f"{name} holds what is no index below {limit}")


def _finding(facts: Any) -> Finding:
    _a(dict, facts, "findings")
    sentences = [_a(str, facts[name], name) for name in ("code", "layer", "severity", "evidence", "remedy")]
    if sentences[2] not in SEVERITIES:
        raise ValueError(f"a finding has the severity {sentences[2]!r}, wanted one of {', '.join(SEVERITIES)}")
    return Finding(*sentences, effects=tuple(_texts(facts["effects"], "effects")))


def _texts(value: Any, name: str) -> list[str]:
    return [_a(str, one, name) for one in _a(list, value, name)]


def _a(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} is {type(value).__name__}")
    return value


def thinned(charts: Chart, most: int) -> Chart:
    """At most so many charts of a stacked one, evenly spaced, the last among them."""
    times = len(charts.step)
    if times <= most:
        return charts
    which = np.unique(np.linspace(0, times - 1, most).round().astype(int))
    return jax.tree.map(lambda a: a[which], charts)

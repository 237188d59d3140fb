"""Charts for TensorBoard, with the extra `fdl[tensorboard]`: what is one number per layer as scalars, percentiles as histograms.

error/LAYER  growth/LAYER  saturated/LAYER  update_ratio/PARAMETER  gradient/PARAMETER  dead/LAYER (the share of its units)
output/LAYER  error_entries/LAYER    a histogram with a bucket between each two percentiles, and the share of entries in it
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from fdl.doctor.chart import ALIVE, PERCENTILES, Chart, unstacked
from fdl.train.writers import EventFile

ENTRIES = 1000  # that a histogram stands for: TensorBoard counts in whole numbers or not at all


def write_events(folder: str | os.PathLike, charts: Any) -> None:
    """Writes the charts into an event file in this folder; their steps, or their number where they have none, are its steps."""
    seen = unstacked("doctor.write_events", charts)
    steps = [int(chart.step) for chart in seen]
    steps = steps if min(steps) >= 0 else list(range(len(seen)))
    file = EventFile("doctor.write_events", Path(folder), steps[0])
    for step, chart in zip(steps, seen, strict=True):
        for name, value in _scalars(chart).items():
            file.write(step, summary=file.make.scalar(name, value))
        for name, values in _entries(chart).items():
            file.write(step, summary=file.make.histogram_raw(name, **_histogram(values)))
    file.close()


def _scalars(chart: Chart) -> dict[str, float]:
    found = {"loss": chart.loss}
    for field in ("error", "growth", "saturated"):
        found |= {f"{field}/{name}": value for name, value in zip(chart.names, getattr(chart, field), strict=True)}
    for field in ("gradient", "update_ratio"):
        found |= {f"{field}/{name}": value for name, value in zip(chart.parameters, getattr(chart, field), strict=True)}
    found |= {f"dead/{name}": np.mean(units != ALIVE) for name, units in chart.units.items()}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _entries(chart: Chart) -> dict[str, np.ndarray]:
    fields = {"output": chart.output_percentiles, "error_entries": chart.error_percentiles}
    found = {
        f"{field}/{name}": row for field, rows in fields.items() for name, row in zip(chart.names, rows, strict=True)
    }
    return {name: row.astype(float) for name, row in found.items() if np.isfinite(row).all()}


def _histogram(values: np.ndarray) -> dict[str, Any]:
    """Of percentiles [E]: a bucket up to each of them, with the entries that lie below it and above the one before."""
    shares = np.diff([0, *PERCENTILES[:-1], 100]) / 100 * ENTRIES
    middles = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])
    return {
        "min": float(values[0]),
        "max": float(values[-1]),
        "num": ENTRIES,
        "sum": float(shares @ middles),
        "sum_squares": float(shares @ middles**2),
        "bucket_limits": values.tolist(),
        "bucket_counts": shares.tolist(),
    }

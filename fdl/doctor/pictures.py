"""Pictures of charts, with matplotlib (the extra `fdl[lab]`): each a function of charts that returns a Figure.

| picture         | shows                                                                        | healthy                             |
|-----------------|------------------------------------------------------------------------------|-------------------------------------|
| gradient_flow   | ||delta|| over depth, and as a heat map over depth and time                  | a level line, a field of one colour |
| distributions   | percentiles of what every layer puts out, and of its error                   | bands of about the same width       |
| dead_units      | layer x unit x time: what keeps each unit from learning                      | next to nothing                     |
| update_ratio    | ||update|| / ||weight|| over time                                            | lines near 1e-3                     |
| jacobian_spectrum | the singular values of every layer                                         | values around 1                     |

charts: one of `examine`, a list in the order of time, or a stacked one, as in `Result.charts`. `pictures(charts)` are all that can
be drawn: {file name: figure}.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from fdl.doctor.chart import ALIVE, CAUSES, Chart, unstacked
from fdl.doctor.style import BLUE, DIVERGING, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, WIDE, figure, styled
from fdl.errors import DataError, refuse
from fdl.files import write_whole

COLOURS = ("#E3E6EA", VERMILION, ORANGE, BLUE, INK)  # of CAUSES
LEAST_REACH, MOST_REACH = 2.0, 12.0  # of the colours, in powers of ten
USUAL_UPDATE = (
    1e-3  # of a weight, per step: A. Karpathy, "makemore" part 3; fdl.doctor.rules_of_training has the limits
)


def pictures(charts: Any) -> dict[str, Any]:
    """{"gradient-flow": figure, ...}: those whose measurements the charts hold."""
    seen = unstacked("doctor.pictures", charts)
    drawn = {}
    for draw, there in (
        (gradient_flow, bool(seen)),
        (distributions, bool(seen)),
        (dead_units, bool(seen and seen[0].units)),
        (update_ratio, any(np.isfinite(chart.update).any() for chart in seen)),
        (jacobian_spectrum, any(_has_spectrum(chart) for chart in seen)),
    ):
        if there:
            drawn[draw.__name__.replace("_", "-")] = draw(seen)
    return drawn


def write_pictures(folder: str | os.PathLike, charts: Any) -> list[Path]:
    """Every picture as a PNG in this folder; their paths."""
    paths = []
    for name, drawn in pictures(charts).items():
        buffer = io.BytesIO()
        with styled("doctor.write_pictures"):
            drawn.savefig(buffer, format="png", dpi=150)
        path = Path(folder) / f"{name}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, buffer.getvalue())
        except OSError as error:
            raise DataError(str(path), f"cannot be written ({error.strerror or error}); name another folder") from error
        paths.append(path)
    return paths


def gradient_flow(charts: Any) -> Any:
    """||delta|| at every layer's output: at the first, the middle and the last chart, and of all charts as a heat map."""
    from matplotlib.colors import ListedColormap

    seen = _seen("doctor.gradient_flow", charts)
    steps, sizes = _steps(seen), _log10(np.stack([chart.error for chart in seen]))  # [T, L]
    with styled("doctor.gradient_flow"):
        fig, (left, right) = figure(1, 2, width=WIDE, height=_height(seen), sharey=True, width_ratios=(1, 1.5))
        places = np.arange(len(seen[0].names))
        moments = dict.fromkeys((0, len(seen) // 2, len(seen) - 1))
        for at, colour, style in zip(moments, (SKY, BLUE, INK), ("--", "-.", "-"), strict=False):
            left.plot(10.0 ** sizes[at], places, style, color=colour, marker="o", markersize=4, label=_when(steps[at]))
        left.set_xscale("log")
        known = sizes[np.isfinite(sizes)]
        low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
        left.set_xlim(10.0 ** max(low - 0.5, -300), 10.0 ** min(high + 0.5, 300))
        _name_layers(left, seen[0])
        left.set_xlabel("size of the error ||δ|| (per example)")
        left.set_title("Over depth")
        left.legend(loc="best")
        # white is the error at the end of the network, whatever the loss; blue is less, red is more
        known = sizes[np.isfinite(sizes[:, -1]), -1]
        middle = float(np.median(known)) if known.size else 0.0
        reach = float(np.clip(max(high - middle, middle - low), LEAST_REACH, MOST_REACH))
        colours = {"cmap": DIVERGING, "vmin": middle - reach, "vmax": middle + reach}
        edges = (_edges(steps), np.arange(len(places) + 1) - 0.5)
        mesh = right.pcolormesh(*edges, np.where(np.isneginf(sizes), np.nan, sizes).T, **colours)
        for where, colour, label in ((np.isneginf(sizes), INK, "0"), (np.isnan(sizes), ORANGE, "not finite")):
            if where.any():
                right.pcolormesh(*edges, np.where(where, 1.0, np.nan).T, cmap=ListedColormap([colour]))
                right.scatter(
                    [], [], marker="s", s=60, color=colour, label=f"exactly {label}" if label == "0" else label
                )
        if right.get_legend_handles_labels()[1]:
            fig.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2)
        right.grid(False)
        right.set_xlabel("step")
        right.set_title("Over time")
        fig.colorbar(mesh, ax=right, label="log10 ||δ||")
    return fig


def distributions(charts: Any) -> Any:
    """Percentile bands per layer at the last chart, and points for the first: of the outputs, and of the errors."""
    seen = _seen("doctor.distributions", charts)
    last = next((chart for chart in reversed(seen) if _finite(chart)), seen[-1])
    with styled("doctor.distributions"):
        fig, (left, right) = figure(1, 2, width=WIDE, height=_height(seen), sharey=True)
        for axes, name, title in ((left, "output", "Outputs"), (right, "error", "Errors")):
            _bands(axes, getattr(last, f"{name}_percentiles"), getattr(seen[0], f"{name}_percentiles"))
            axes.set_title(f"{title}, {_when(int(last.step))}")
        left.set_xlabel("output of an entry")
        right.set_xlabel("δ of an entry, times examples")
        _name_layers(left, seen[0])
        handles, labels = left.get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=5)
    return fig


def dead_units(charts: Any) -> Any:
    """A row of pixels for every unit, over time, coloured by what keeps it from learning; one panel per layer."""
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    seen = _seen("doctor.dead_units", charts)
    names = [name for name in seen[0].names if name in seen[0].units]
    if not names:
        refuse("doctor.dead_units", "the charts have no layer with units (an activation, or weights that feed weights)")
    edges = _edges(_steps(seen))
    with styled("doctor.dead_units"):
        columns = min(len(names), 4)
        rows = -(-len(names) // columns)
        fig, grid = figure(rows, columns, width=WIDE, height=0.9 + 2.0 * rows, sharex=True, squeeze=False)
        colours, norm = ListedColormap(COLOURS), BoundaryNorm(np.arange(len(CAUSES) + 1) - 0.5, len(CAUSES))
        for axes, name in zip(grid.flat, names, strict=False):
            units = np.stack([chart.units[name] for chart in seen])  # [T, U]
            axes.pcolormesh(edges, np.arange(units.shape[1] + 1) - 0.5, units.T, cmap=colours, norm=norm)
            share = np.mean(units[-1] != ALIVE)
            axes.set_title(f"{name} ({share:.0%})", fontsize=11)
            axes.grid(False)
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        fig.suptitle("What keeps units from learning (their share at the end)", x=0.01, ha="left", fontweight="bold")
        for axes in grid[:, 0]:
            axes.set_ylabel("unit")
        for column in range(columns):
            last = (len(names) - 1 - column) // columns
            grid[last, column].set_xlabel("step")
            grid[last, column].tick_params(labelbottom=True)
        handles = [Patch(facecolor=colour, label=cause) for colour, cause in zip(COLOURS, CAUSES, strict=True)]
        fig.legend(handles=handles, loc="outside lower center", ncols=5)
    return fig


def update_ratio(charts: Any) -> Any:
    """||update|| / ||weight|| of every weight over time, the first layer dark and the last one light; 1e-3 is usual."""
    import matplotlib

    seen = _seen("doctor.update_ratio", charts)
    weights = _weights(seen[0])
    ratios = np.stack([chart.update_ratio for chart in seen])[:, weights]
    if not np.isfinite(ratios).any():
        refuse(
            "doctor.update_ratio", "the charts hold no updates; examine with optimizer=, or train with fit(doctor=10)"
        )
    steps = _steps(seen)
    with styled("doctor.update_ratio"):
        fig, axes = figure(width=WIDE, height=3.8)
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(weights)))
        for at, colour, values in zip(weights, colours, ratios.T, strict=True):
            shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
            axes.plot(steps, shown, color=colour, marker="" if len(seen) > 1 else "o", label=seen[0].parameters[at])
        axes.axhspan(USUAL_UPDATE / 10, USUAL_UPDATE * 10, color=GREEN, alpha=0.08, linewidth=0)
        axes.axhline(USUAL_UPDATE, color=GREEN, linewidth=1.2, linestyle="--", label="usual: 1e-3")
        axes.axhline(1, color=VERMILION, linewidth=1.0, linestyle=":", label="by all of itself")
        axes.set_yscale("log")
        finite = ratios[np.isfinite(ratios) & (ratios > 0)]
        if finite.size:
            axes.set_ylim(max(min(finite.min() / 2, 1e-5), 1e-12), min(max(finite.max() * 2, 2.0), 1e12))
        axes.set_xlabel("step")
        axes.set_ylabel("||update|| / ||weight||")
        axes.set_title("By how much of itself a weight moves in one step")
        handles, labels = axes.get_legend_handles_labels()
        kept = (
            range(len(labels)) if len(labels) <= 12 else [0, len(weights) // 2, *range(len(weights) - 1, len(labels))]
        )
        fig.legend([handles[i] for i in kept], [labels[i] for i in kept], loc="outside right upper")
    return fig


def jacobian_spectrum(charts: Any) -> Any:
    """The estimated singular values of every layer's Jacobian, at the first and the last chart that have them."""
    seen = [chart for chart in _seen("doctor.jacobian_spectrum", charts) if _has_spectrum(chart)]
    if not seen:
        refuse(
            "doctor.jacobian_spectrum", "the charts hold no singular values; make them with examine(..., spectrum=8)"
        )
    with styled("doctor.jacobian_spectrum"):
        fig, axes = figure(width=WIDE, height=_height(seen))
        ends = [(seen[0], SKY, 0.0)] if len(seen) == 1 else [(seen[0], SKY, -0.14), (seen[-1], PURPLE, 0.14)]
        for chart, colour, shift in ends:
            values = np.where(chart.spectrum > 0, chart.spectrum, np.nan)
            for place, row in enumerate(values):
                if np.isfinite(row).any():
                    axes.plot([np.nanmin(row), np.nanmax(row)], [place + shift] * 2, color=colour, alpha=0.5)
                label = _when(int(chart.step)) if place == 0 else None
                axes.plot(
                    row, [place + shift] * len(row), "|", color=colour, markersize=11, markeredgewidth=2, label=label
                )
        axes.axvline(1, color=INK, linewidth=0.9, linestyle=":")
        axes.set_xscale("log")
        _name_layers(axes, seen[0])
        axes.set_xlabel("singular value: what the layer makes of a direction (left of 1 it shrinks)")
        axes.set_title("Singular values of the Jacobians")
        axes.legend(loc="best")
    return fig


# ---- of all pictures


def _seen(where: str, charts: Any) -> list[Chart]:
    seen = unstacked("doctor.pictures", charts)
    if not seen:
        refuse(where, "got no charts, wanted at least one")
    return seen


def _weights(chart: Chart) -> list[int]:
    """The places of the weights among the parameters, or of all, where none is known as one."""
    found = [at for at, spread in enumerate(chart.weight_spread) if not np.isnan(spread)]
    return found or list(range(len(chart.parameters)))


def _has_spectrum(chart: Chart) -> bool:
    return bool(np.isfinite(chart.spectrum).any())


def _finite(chart: Chart) -> bool:
    return int(chart.first_not_finite) == 0


def _steps(seen: list[Chart]) -> np.ndarray:
    """Of the charts; their number where no step was given."""
    steps = np.asarray([int(chart.step) for chart in seen])
    return steps if (np.diff(steps) > 0).all() and steps[0] >= 0 else np.arange(len(seen))


def _when(step: int) -> str:
    return "this batch" if step < 0 else f"step {step}"


def _edges(steps: np.ndarray) -> np.ndarray:
    """Between which the columns of a heat map stand: halfway between steps."""
    if len(steps) == 1:
        return np.asarray([steps[0] - 0.5, steps[0] + 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middle[0]], middle, [2 * steps[-1] - middle[-1]]])


def _log10(values: np.ndarray) -> np.ndarray:
    """NaN where a value is not finite, -inf at 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isfinite(values), np.log10(values), np.nan)


def _height(seen: list[Chart]) -> float:
    return float(np.clip(1.2 + 0.24 * len(seen[0].names), 3.4, 12.0))


def _name_layers(axes: Any, chart: Chart) -> None:
    """The layers on the vertical axis, the first one, into which the data goes, at the top."""
    every = -(-len(chart.names) // 48)
    places = range(0, len(chart.names), every)
    axes.set_yticks(list(places), [chart.names[place] for place in places], fontsize=9)
    axes.set_ylim(len(chart.names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def _bands(axes: Any, values: np.ndarray, before: np.ndarray) -> None:
    """Percentiles [L, E] as nested bars, symmetric-logarithmic; points for the middle 90 % of another moment."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    linear = 10.0 ** np.floor(np.log10(max(float(np.median(sizes)) if sizes.size else 1.0, 1e-30)) - 1)
    axes.set_xscale("symlog", linthresh=linear)
    most = np.ceil(np.log10(max(sizes.max(initial=linear), linear * 10)))
    ends = 10.0 ** np.arange(most, np.log10(linear) + 0.5, -np.ceil((most - np.log10(linear)) / 3))  # or labels overlap
    axes.set_xticks([*-ends, 0, *ends[::-1]])
    axes.minorticks_off()
    places = np.arange(len(values))
    for low, high, alpha, label in ((0, 6, 0.2, "98 % of entries"), (1, 5, 0.35, "90 %"), (2, 4, 0.75, "50 %")):
        left, right = values[:, low], values[:, high]
        axes.barh(places, right - left, left=left, height=0.72, color=BLUE, alpha=alpha, linewidth=0, label=label)
    axes.plot(values[:, 3], places, "|", color=INK, markersize=9, markeredgewidth=2, label="median")
    for side, label in ((1, "90 % at the start"), (5, None)):
        axes.plot(before[:, side], places, "d", color=VERMILION, markersize=4, label=label)

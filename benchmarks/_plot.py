"""The speed of all peers in one picture: time over fdl's, per work, on a logarithmic axis."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._rows import Row
from benchmarks._store import Refused, Section

PANELS = (
    ("A training step, small networks", ("mlp",)),
    ("32 models at once, per model and step", ("sweep",)),
    ("Convolutional networks and layers", ("convnet", "conv")),
    ("Pooling and normalization", ("pool", "norm")),
    ("Gated recurrent unit, 128 inputs, batch 32", ("gru",)),
    ("Last layer and cross-entropy", ("linear_cross_entropy",)),
)


class Peer(NamedTuple):
    """How a peer is drawn: by the fastest of the variants that start so."""

    name: str
    starts: tuple[str, ...]
    colour: str
    marker: str
    filled: bool = True


_IN_A_LOOP = ("lax autodiff in a loop", "lax autodiff in a scan")


def peers() -> tuple[Peer, ...]:
    from fdl.doctor import style

    jax = ("JAX", "lax autodiff", "autodiff")
    return (
        Peer("JAX's gradients", jax, style.BLUE, "v"),
        Peer("the same in a loop", _IN_A_LOOP, style.BLUE, "v", False),
        Peer("PyTorch", ("PyTorch", "torch.func"), style.VERMILION, "o"),
        Peer("Keras", ("Keras",), style.PURPLE, "^"),
        Peer("Flax", ("Flax", "NNX"), style.GREEN, "s"),
        Peer("Equinox", ("Equinox",), style.ORANGE, "D"),
        Peer("optax", ("optax",), style.INK, "P"),
    )


def fastest(peer: Peer, rows: Sequence[Row]) -> Row | None:
    mine = [row for row in rows if row.ratio is not None and row.peer.startswith(peer.starts)]
    mine = [row for row in mine if peer.starts == _IN_A_LOOP or row.peer not in _IN_A_LOOP]
    return min(mine, key=lambda row: row.ratio or 0.0, default=None)


def panels(stored: Mapping[str, Section]) -> dict[str, dict[str, list[Row]]]:
    """{panel: {work: timed rows}}. Forward passes alone are left to the table."""
    found: dict[str, dict[str, list[Row]]] = {}
    for title, benchmarks in PANELS:
        rows = [row for name in benchmarks if name in stored for row in stored[name].rows if row.seconds is not None]
        works = {work: list(given) for work, given in itertools.groupby(rows, key=lambda row: row.work)}
        if shown := {short(work): given for work, given in works.items() if not work.endswith(", forward")}:
            found[title] = shown
    return found


def short(work: str) -> str:
    """A work as its label has it."""
    for said in (", forward and backward", "gru ", "32 x "):
        work = work.replace(said, "")
    return work


def plot(stored: Mapping[str, Section], path: Path) -> None:
    """Writes the picture. Refused if nothing that is stored was timed; fdl.errors.InputError without matplotlib."""
    from fdl.doctor import style

    found = panels(stored)
    if not found:
        raise Refused("nothing that is stored was timed: python -m benchmarks mlp --out benchmarks/results.json")
    with style.styled("python -m benchmarks --plot"):
        from matplotlib.figure import Figure

        columns = split(found)
        height = max(sum(1.15 + 0.34 * len(found[title]) for title in column) for column in columns) + 0.9
        figure = Figure(figsize=(style.WIDE if len(columns) == 1 else 13.5, height), layout="constrained")
        parts = figure.subfigures(1, len(columns), squeeze=False)[0]
        for part, column in zip(parts, columns, strict=True):
            heights = [1 + 0.4 * len(found[title]) for title in column]
            axes = part.subplots(len(column), 1, squeeze=False, height_ratios=heights)[:, 0]
            for ax, title in zip(axes, column, strict=True):
                draw(ax, title, found[title])
        legend(figure)
        figure.suptitle("Time of each peer over fdl's, every result checked first", x=0.01, ha="left", weight="bold")
        figure.savefig(path)


def split(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The panels in one column, or in two of about the same height."""
    titles = list(found)
    if len(titles) < 3:
        return [titles]
    sizes = [3 + len(found[title]) for title in titles]
    cut = min(range(1, len(titles)), key=lambda i: abs(sum(sizes[:i]) - sum(sizes[i:])))
    return [titles[:cut], titles[cut:]]


def draw(ax: Any, title: str, works: Mapping[str, Sequence[Row]]) -> None:
    from fdl.doctor import style

    low, high = 0.8, 1.25
    for y, rows in enumerate(works.values()):
        drawn = [(peer, row) for peer in peers() if (row := fastest(peer, rows)) is not None]
        for place, (peer, row) in enumerate(drawn):
            at = y + 0.56 * ((place + 0.5) / len(drawn) - 0.5)
            ratio = row.ratio or 1.0
            first, last = row.ratio_quartiles or [ratio, ratio]
            ax.plot([first, last], [at, at], color=peer.colour, linewidth=1.6, solid_capstyle="butt")
            face = peer.colour if peer.filled else "white"
            ax.plot(ratio, at, peer.marker, color=peer.colour, markerfacecolor=face, markersize=6.5, zorder=3)
            if row.target is not None:
                ax.plot(row.target, at, "|", color=peer.colour, markersize=11, markeredgewidth=1.6, zorder=2)
            low, high = min(low, first, row.target or low), max(high, last, row.target or high)
    ax.set(title=title, xscale="log", xlim=(low / 1.3, high * 1.3), ylim=(len(works) - 0.4, -0.6))
    ax.set_yticks(range(len(works)), list(works))
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    for y in range(1, len(works)):
        ax.axhline(y - 0.5, color="#E3E6EA", linewidth=0.8, zorder=0)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low / 1.3 <= t <= high * 1.3]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.axvspan(low / 1.3, 1, color="#F1F2F4", zorder=0)
    ax.axvline(1, color=style.INK, linewidth=1.2)


def legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    from fdl.doctor import style

    def sign(label: str, **look: Any) -> Any:
        return Line2D([], [], label=label, **{"linestyle": "", "color": style.GREY, **look})

    signs = [
        sign(p.name, color=p.colour, marker=p.marker, markersize=6.5, markerfacecolor=p.colour if p.filled else "white")
        for p in peers()
    ]
    signs += [
        sign("target", marker="|", markersize=11, markeredgewidth=1.6),
        sign("half of the rounds", linestyle="-", linewidth=1.6),
        sign("fdl = 1; grey: the peer is faster", color=style.INK, linestyle="-", linewidth=1.2),
    ]
    figure.legend(handles=signs, loc="outside lower center", ncols=5)

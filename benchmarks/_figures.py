"""The tables of the README, each made from the stored sections it needs."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks._explained import sentence
from benchmarks._rows import Row
from benchmarks._store import Section
from benchmarks._table import measure, target_text

Stored = Mapping[str, Section]


class Unavailable(ValueError):
    """What a table needs is not stored."""


def mlp(stored: Stored) -> str:
    return _times(stored, "mlp")


def sweep(stored: Stored) -> str:
    return _times(stored, "sweep")


def conv(stored: Stored) -> str:
    """Networks, convolutions, poolings and normalizations: time of the peer over fdl's."""
    benchmarks = {
        "convnet": ("lax autodiff", "lax autodiff in a scan"),
        "conv": ("lax autodiff", "lax autodiff in a loop"),
        "pool": ("JAX", ""),
        "norm": ("autodiff", ""),
    }
    lines, forward = [], {"`lax`": [], "PyTorch": []}
    for name, (jax, looped) in benchmarks.items():
        for work, rows in _works(_section(stored, name)).items():
            if work.endswith(", memory"):
                continue
            cells = [_ratio(rows, jax), _ratio(rows, "PyTorch")]
            if work.endswith(", forward"):
                for ratios, peer in zip(forward.values(), (jax, "PyTorch"), strict=True):
                    ratios += [row.ratio for row in _fastest(rows, peer) if row.ratio is not None]
                continue
            if (inside := _ratio(rows, looped)) != "-":
                cells[0] += f"; in a loop {inside}"
            lines.append((work.removesuffix(", forward and backward"), *cells))
    text = _markdown(("work", "`lax` with JAX's gradients", "PyTorch"), lines)
    alone = [f"{peer} {_range(ratios)}" for peer, ratios in forward.items() if ratios]
    sentences = [f"Forward alone, convolutions: {', '.join(alone)}."] if alone else []
    return text + _below(stored, tuple(benchmarks), sentences)


def gru(stored: Stored) -> str:
    """Time of the peer over fdl's, forward and backward, and temporary memory."""
    works, lines, forward = _works(_section(stored, "gru")), [], {"JAX": [], "PyTorch": []}
    peers = ("autodiff", "Keras", "Flax", "Equinox")
    for work, rows in works.items():
        found = re.fullmatch(r"gru T (\d+) D (\d+), forward( and backward)?", work)
        if not found:
            continue
        steps, features, backward = found.groups()
        best = min((row for peer in peers for row in _fastest(rows, peer)), key=_ratio_of, default=None)
        if not backward:
            forward["JAX"] += [best.ratio] if best and best.ratio else []
            forward["PyTorch"] += [row.ratio for row in _fastest(rows, "PyTorch") if row.ratio]
            continue
        used = {row.variant: row for row in works.get(f"gru T {steps} D {features}, memory", ())}
        memory = ", ".join(f"{row.figures['bytes'] / 2**20:.0f}" for row in used.values())
        jax = f"{_two(best.ratio)} ({best.peer})" if best and best.ratio else "-"
        lines.append((f"{int(steps):,}, {features}", jax, _ratio(rows, "PyTorch"), memory))
    head = ("steps, features", "fastest JAX peer", "PyTorch", 'MiB of fdl, with `keep="states"`, of autodiff')
    alone = [f"{peer} {_range(ratios)}" for peer, ratios in forward.items() if ratios]
    sentences = [f"Forward alone: {', '.join(alone)}."] if alone else []
    return _markdown(head, lines) + _below(stored, ("gru",), sentences)


def linear_cross_entropy(stored: Stored) -> str:
    """Temporary memory, and time of the peer over fdl's."""
    works, lines = _works(_section(stored, "linear_cross_entropy")), []
    for work, rows in works.items():
        if work.endswith(", memory"):
            continue
        used = {row.variant: row.figures["bytes"] / 2**20 for row in works.get(f"{work}, memory", ())}
        memory = f"{used['fdl']:.1f} MiB, of {used['optax']:,.0f}" if "fdl" in used and "optax" in used else "-"
        found = re.search(r"V(\d+)$", work)
        what = f"{int(found[1]):,} classes" if found else work
        lines.append((what, memory, *(_ratio(rows, peer) for peer in ("optax", "token chunks", "PyTorch"))))
    head = ("work", "temporary memory, of optax's", "optax", "plain JAX in chunks of examples", "PyTorch")
    return _markdown(head, lines) + _below(stored, ("linear_cross_entropy",))


def checkers(stored: Stored) -> str:
    rows, lines = _section(stored, "checkers").rows, []
    tools = [row for row in rows if row.figures]
    for row in tools:
        f = {name: f"{number:g}" for name, number in row.figures.items()}
        name = (
            f"**{row.variant.replace('fdl', 'fdl.check')}**"
            if row.peer == "fdl"
            else _TOOLS.get(row.variant, row.variant)
        )
        named = f["named"] if row.peer == "fdl" else "-"
        lines.append((name, f["caught"], f["alarms"], named, f["undecided"], f"{row.figures['seconds']:.2g}"))
    if not tools:
        raise Unavailable("no tool of `checkers` was counted")
    wrong, right = (f"{tools[0].figures[name]:g}" for name in ("wrong", "right"))
    head = (
        "tool",
        f"wrong ones caught, of {wrong}",
        f"right ones accused, of {right}",
        "the planted fault named",
        "undecided, or could not run",
        "seconds per case",
    )
    return _markdown(head, lines) + _below(stored, ("checkers",))


_TOOLS = {
    "check_grads": "`jax.test_util.check_grads`",
    "chex": "`chex.assert_numerical_grads`",
    "gradcheck": "`torch.autograd.gradcheck`, float64",
    "gradcheck fast": "the same, `fast_mode=True`",
}


def traps(stored: Stored) -> str:
    """The whole table, folded away under its counts."""
    works = _works(_section(stored, "traps"))
    libraries = list(dict.fromkeys(row.variant for rows in works.values() for row in rows))
    lines, right = [], {library: [0, 0] for library in libraries}
    for work, rows in works.items():
        by_library = {row.variant: row for row in rows}
        for row in rows:
            if row.status not in ("-", "not installed", "failed"):
                right[row.variant][0] += row.status not in ("wrong", "unequal")
                right[row.variant][1] += 1
        answers = [by_library[library].measured or "not run" for library in libraries]
        loss, _, name = work.partition(": ")
        mine = by_library["fdl"]
        lines.append((loss, name, mine.wanted, *answers, mine.note))
    counts = {library: f"{fine} of {all_}" if all_ else "not run" for library, (fine, all_) in right.items()}
    lines.append(("**right**", "", "", *counts.values(), ""))
    head = ("loss", "input", "right: value; gradient", *libraries, "why")
    others = [f"{library} {count if count == 'not run' else f'in {count}'}" for library, count in counts.items()]
    summary = f"fdl is right {', '.join(others).removeprefix('fdl ')}"
    return (
        f"<details>\n<summary>{summary}</summary>\n\n"
        "ok: value and gradient are right. Else both, and **bold** is wrong; (choice): another answer that can be defended; -: no\n"
        "such loss. The inputs were chosen because formulas break there: the last line counts these, and says nothing about others.\n\n"
        f"{_markdown(head, lines)}{_below(stored, ('traps',))}\n\n</details>"
    )


def missed(stored: Stored) -> str:
    """Every target that was not reached, and why."""
    lines = [
        (
            row.work,
            row.peer,
            measure(row) if row.ratio is None else f"{row.ratio:.2f}",
            target_text(row),
            sentence(name, row),
        )
        for name, row in missed_rows(stored)
    ]
    counts = [row for section in stored.values() for row in section.rows if row.reached is not None]
    text = f"{len(lines)} of {len(counts)} targets are missed"
    if not lines:
        return f"All of {len(counts)} targets are reached."
    return (
        f"{text} (a target without a unit is the least ratio of the peer's time or memory to fdl's):\n\n"
        + _markdown(("work", "peer", "measured", "target", "why"), lines)
    )


def missed_rows(stored: Stored) -> list[tuple[str, Row]]:
    return [(name, row) for name, section in stored.items() for row in section.rows if row.missed]


def features(stored: Stored) -> str:
    from benchmarks.features import render  # its table is its own source: nothing is stored

    return render().strip()


RENDERERS: dict[str, Callable[[Stored], str]] = {
    function.__name__: function
    for function in (mlp, sweep, conv, gru, linear_cross_entropy, checkers, traps, missed, features)
}


# ---- what the tables share


def _section(stored: Stored, name: str) -> Section:
    if name not in stored:
        raise Unavailable(f"no section `{name}` is stored: python -m benchmarks {name} --out benchmarks/results.json")
    return stored[name]


def _works(section: Section) -> dict[str, list[Row]]:
    """The rows by work, in their order."""
    works: dict[str, list[Row]] = {}
    for row in section.rows:
        works.setdefault(row.work, []).append(row)
    return works


def _ratio_of(row: Row) -> float:
    return row.ratio or 0.0


def _fastest(rows: Sequence[Row], peer: str) -> list[Row]:
    """The peer's fastest setting; none if it was not timed."""
    timed = [row for row in rows if row.peer == peer and row.ratio is not None]
    return [min(timed, key=_ratio_of)] if timed else []


def _ratio(rows: Sequence[Row], peer: str) -> str:
    return next((_two(row.ratio) for row in _fastest(rows, peer)), "-")


def _two(ratio: float | None) -> str:
    """Two digits."""
    return (
        "-" if ratio is None else f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2f}" if ratio < 0.995 else f"{ratio:.1f}"
    )


def _us(seconds: float | None) -> str:
    """Microseconds, in three digits."""
    us = (seconds or 0.0) * 1e6
    return f"{us:,.0f}" if us >= 100 else f"{us:.3g}"


def _range(values: Iterable[float]) -> str:
    """The least to the largest."""
    low, high = min(values), max(values)
    return _two(low) if _two(low) == _two(high) else f"{_two(low)} to {_two(high)}"


def _times(stored: Stored, name: str) -> str:
    """Time and ratio of every peer, its settings in one row; two columns for each work."""
    works = _works(_section(stored, name))
    peers = list(dict.fromkeys(row.peer for rows in works.values() for row in rows))
    head = ["loop", *(text for work, rows in works.items() for text in (f"{work}, us per {rows[0].unit}", "x fdl"))]
    lines = []
    for peer in peers:
        mine = [row for rows in works.values() for row in rows if row.peer == peer]
        settings = list(dict.fromkeys(row.variant.removeprefix(peer).removeprefix(", ") for row in mine))
        line = [f"{peer} ({'; '.join(settings)})" if any(settings) else f"**{peer}**" if peer == peers[0] else peer]
        for rows in works.values():
            of_peer = [row for row in rows if row.peer == peer]
            timed = [row for row in of_peer if row.seconds is not None]
            line.append("; ".join(f"{_us(row.seconds)}" for row in timed) or (of_peer[0].status if of_peer else "-"))
            line.append("; ".join(_two(row.ratio) for row in timed) or "-")
        lines.append(tuple(line))
    return _markdown(head, lines) + _below(stored, (name,))


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    shown = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in (head, *lines)]
    return "\n".join([shown[0], f"|{'---|' * len(head)}", *shown[1:]])


def _below(stored: Stored, names: Sequence[str], sentences: Sequence[str] = ()) -> str:
    """What it takes to believe a table: the command, the day, the machine, the versions, the spreads."""
    sections = [_section(stored, name) for name in names]
    versions: dict[str, list[str]] = {}
    for section in sections:
        for package, version in section.versions.items():
            if package not in ("python", "jaxlib", "chex") and version not in versions.setdefault(package, []):
                versions[package].append(version)
    days = sorted({section.date for section in sections})
    full = {section.full for section in sections}
    machines = {f"{section.machine['cores']} cores of {section.machine['processor']}" for section in sections}
    command = f"`python -m benchmarks {' '.join(names)}{' --full' if full == {True} else ''}`"
    parts = [command, " to ".join(dict.fromkeys((days[0], days[-1]))), *sorted(machines)]
    parts.append(", ".join(f"{package} {' and '.join(found)}" for package, found in versions.items()))
    spreads = [row.spread for section in sections for row in section.rows if row.spread is not None]
    if spreads:
        rounds = _integers(section.repeats for section in sections)
        parts.append(
            f"medians of the quieter half of {rounds} rounds, spreads of {_integers(100 * s for s in spreads)} %"
        )
    source = "; ".join(parts)
    return "\n\n" + " ".join([*sentences, f"({source})"])


def _integers(values: Iterable[float]) -> str:
    rounded = sorted({round(value) for value in values})
    return " to ".join(str(value) for value in dict.fromkeys((rounded[0], rounded[-1])))

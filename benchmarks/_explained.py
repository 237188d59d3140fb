"""Why a target was missed: one sentence for each row that missed one, by benchmark, work and peer."""

from collections.abc import Mapping

from benchmarks._rows import Row
from benchmarks._store import Section

_SMALL = "64-32-10 relu B32"
_LOADED = "Measured in few rounds beside other programs; on a quiet machine it is reached."

EXPLAINED: dict[str, dict[tuple[str, str], str]] = {
    "mlp": {
        (_SMALL, "PyTorch"): (
            "The target is a sketch's ratio on a day when an eager PyTorch step took 202 us; fdl's step takes less than the "
            "sketch's 12.7 us, but PyTorch's takes about 115 us here."
        ),
        (_SMALL, "Keras fit"): (
            "The target is a sketch's ratio on a day when a step of `fit` took 236 us; here it takes about 115 us."
        ),
        (_SMALL, "NNX jit"): (
            "The target is a sketch's ratio on a day when an `nnx.jit` step took 551 us; here it takes about 340 us."
        ),
        (_SMALL, "Equinox"): (
            "The target is a sketch's ratio on a day when a `filter_jit` step took 149 us; here, with synchronous dispatch, it "
            "takes about 75 us."
        ),
        (_SMALL, "fdl epochs, autodiff"): _LOADED,
        (_SMALL, "fdl step from Python"): _LOADED,
    },
}


def sentence(benchmark: str, row: Row) -> str:
    return EXPLAINED.get(benchmark, {}).get((row.work, row.peer), "")


def unexplained(stored: Mapping[str, Section]) -> list[str]:
    """The rows that missed their target without a sentence, and the sentences without such a row. A sentence about a
    benchmark, or about a larger case, that is not stored is not judged."""
    wrong = []
    for name, section in stored.items():
        missed = {(row.work, row.peer) for row in section.rows if row.missed}
        there = {(row.work, row.peer) for row in section.rows}
        given = EXPLAINED.get(name, {})
        wrong += [f"{name}, {work}, {peer}: missed, and not explained" for work, peer in sorted(missed - set(given))]
        judged = set(given) if section.full else set(given) & there
        wrong += [f"{name}, {work}, {peer}: explained, and not missed" for work, peer in sorted(judged - missed)]
    return wrong

"""Why a target was missed: for each benchmark, sentences by a pattern over "work, peer"; the first that matches holds.

Near the target a row misses in one run and not in the next, so a sentence may stand for rows of which none missed this time.
"""

import re
from collections.abc import Mapping

from benchmarks._rows import Row
from benchmarks._store import Section

_THIN = (
    "All are chains of the same thin matrix products, which XLA runs at the same speed; what is left is within the spread from run to "
    "run."
)
_TWO_CORES = "PyTorch's oneDNN kernels use both cores and blocked layouts; fdl is ahead of it on one thread, and XLA has no such kernel."

EXPLAINED: dict[str, tuple[tuple[str, str], ...]] = {
    "mlp": (
        (
            r".*, (PyTorch|Keras fit|NNX jit|Equinox)",
            "The target is a sketch's ratio against a step of 12.7 us on a day when the peers took 149 to 551 us; fdl's step is faster "
            "than the sketch's, and so are the peers' on this machine.",
        ),
        (r".*, fdl .*", "The loops differ by less than the spread from run to run."),
    ),
    "sweep": (
        (
            r".*, torch\.func\.vmap",
            "The target is a ratio against a run of PyTorch whose two threads sat on one core (1,046 us); with a core each it takes 25 to "
            "30 us, and XLA runs 32 small products as a loop of single ones.",
        ),
    ),
    "conv": ((r".*, PyTorch", _TWO_CORES),),
    "convnet": (
        (
            r".*, (lax autodiff.*|Flax)",
            "The target is the peer's speed on another day of the same kind of machine; fdl keeps its place before it, by less, because "
            "`lax` took less time here.",
        ),
        (r".*, PyTorch", _TWO_CORES),
    ),
    "pool": (
        (
            r".*, PyTorch",
            "Windows that overlap are read once per cell by PyTorch's kernel, several times by XLA's fused loops.",
        ),
    ),
    "norm": (
        (
            r".*, autodiff",
            "Both are bound by memory; fdl keeps a tenth of the temporary memory, but reads x as often here.",
        ),
        (
            r".*, PyTorch",
            "fdl takes the variance around a mean it knows, so that it is right at mean 1e4 and deviation 1e-2; PyTorch's kernel does it "
            "in one vectorized pass that XLA's fusions do not reach.",
        ),
    ),
    "gru": (
        (r".*, forward, .*", _THIN),
        (
            r".* D 256, .*",
            "At 256 features the products, the same for all, take most of the time; from about 6 MFLOP on XLA runs them on two threads.",
        ),
        (
            r".*, forward and backward, .*",
            "Everything outside the recurrent products is already one product over many steps; what remains is the chain itself, and the "
            "peers' time varies by a quarter from run to run.",
        ),
    ),
    "linear_cross_entropy": (
        (
            r"logits .*",
            "On logits that are there both read them from memory twice; fdl keeps the digits of labels that are almost sure, for a few "
            "percent of its time, and the spread is larger than that.",
        ),
    ),
    "stream": (
        (
            r".*",
            "On two cores the thread that loads takes time from the ones that train: there is nothing to hide a copy behind; against a "
            "slow disk the overlap is about half.",
        ),
    ),
}


def sentence(benchmark: str, row: Row) -> str:
    return next((why for pattern, why in EXPLAINED.get(benchmark, ()) if re.fullmatch(pattern, _called(row))), "")


def unexplained(stored: Mapping[str, Section]) -> list[str]:
    """The rows that missed their target without a sentence, and the sentences that speak of no row of a stored benchmark."""
    wrong = []
    for name, section in stored.items():
        there = {_called(row) for row in section.rows}
        wrong += [
            f"{name}, {_called(row)}: missed, and not explained"
            for row in section.rows
            if row.missed and not sentence(name, row)
        ]
        wrong += [
            f"{name}: {pattern!r} explains no row"
            for pattern, _ in EXPLAINED.get(name, ())
            if not any(re.fullmatch(pattern, called) for called in there)
        ]
    return wrong


def _called(row: Row) -> str:
    return f"{row.work}, {row.peer}"

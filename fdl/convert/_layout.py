"""Layouts: where each block of a layer's weights sits in one library. _read.py takes the blocks out, _write.py puts them elsewhere.

A block is one matrix or vector of the equations, named by its kind and its gate: "w_z" is what x is multiplied by in gate z. The
kind says its axes, {"w": "I D"}; "*" stands for any number of them. Blocks are kept as fdl has them, [I, O] and [*K, I, O].
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fdl.errors import refuse

Blocks = dict[str, np.ndarray]
Axes = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Layout:
    """arrays: path -> its blocks, in order along the outputs. "b_z b_r; s_z s_r" are two rows, "-w_z" is stored negated."""

    arrays: Mapping[str, str]
    outputs_first: bool = False  # [O, I] and [O, I, *K]
    listed: bool = False  # a list in the order of arrays
    columns: bool = False  # biases are [O, 1, ...], with an axis for each one in space
    form: str = ""  # which function the weights are of, where there are several

    def rows(self, path: str) -> list[list[str]]:
        return [row.split() for row in self.arrays[path].split(";")]

    @property
    def blocks(self) -> set[str]:
        return {plain(name) for path in self.arrays for row in self.rows(path) for name in row}

    def without(self, *kinds: str) -> "Layout":
        """The same without the arrays of these kinds."""
        kept = {path: names for path, names in self.arrays.items() if kind(names.split()[0]) not in kinds}
        return dataclasses.replace(self, arrays=kept)


def plain(name: str) -> str:
    return name.removeprefix("-")


def kind(block: str) -> str:
    return plain(block).partition("_")[0]


def require_known(where: str, table: Mapping[str, Sequence[Layout]], source: Any, target: Any) -> None:
    for name, layout in (("source", source), ("target", target)):
        if not isinstance(layout, str) or layout not in table:
            refuse(where, f"{name} is {layout!r}, wanted one of {', '.join(table)}")


def is_column(layout: Layout, path: str) -> bool:
    return layout.columns and kind(layout.arrays[path]) == "b"


def agrees(names: str, shape: tuple[int, ...], known: dict[str, Any]) -> bool:
    """Whether a block of this shape fits those before it, whose sizes are known; its own are added."""
    axes = names.split()
    if "*" in axes:  # the first, if any
        axes, lead = axes[1:], shape[: len(shape) - len(axes) + 1]
        shape = shape[len(lead) :]
        if not lead or known.setdefault("*", lead) != lead:
            return False
    return len(axes) == len(shape) and all(
        size > 0 and known.setdefault(axis, size) == size for axis, size in zip(axes, shape, strict=True)
    )

"""What an experiment receives (`Settings`) and what it may yield: progress lines, claims, figures and tables."""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["holds", "fails", "not run"]
Comparison = Literal["<", "<=", ">", ">=", "==", "!=", "in"]
Scalar = bool | int | float | str

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "in": lambda value, bounds: bounds[0] <= value <= bounds[1],
}


@dataclass(frozen=True)
class Settings:
    """What the command line decides. `full` asks for the long version; `data_dir` holds data sets in their formats."""

    seed: int = 0
    full: bool = False
    data_dir: Path | None = None
    processes: int = 1  # that train as one, where an experiment does so


@dataclass(frozen=True)
class Claim:
    """A sentence that may turn out false. Made by `claim` and `not_run`, so that its verdict is always computed."""

    name: str
    source: str
    expected: str
    measured: Scalar | None
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A matplotlib figure, saved as `<name>.png`. A `wide` one has a whole row of the page; the others share rows."""

    name: str
    figure: Any
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A small table. Cells are strings, numbers or booleans."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


Evidence = str | Claim | Figure | Table


def claim(
    name: str,
    measured: Any,
    comparison: Comparison,
    bound: Any,
    *,
    quantity: str = "",
    source: str = "",
    note: str = "",
) -> Claim:
    """A claim judged by `measured comparison bound`, where `in` takes the pair (low, high), both included.

    The stated expectation is built from the same comparison that is computed ("relative difference < 1e-12"), so that
    the two cannot differ. A measured NaN fails whatever the comparison. Values are scalars: numbers (of Python, numpy
    or jax), booleans, and strings under `==` and `!=`.
    """
    if comparison not in _COMPARE:
        raise ValueError(f"claim {name!r}: comparison is {comparison!r}, wanted one of {' '.join(_COMPARE)}")
    value = _scalar(name, "measured", measured)
    given = bound if comparison == "in" else (bound,)
    bounds = [_scalar(name, "bound", b) for b in given]
    if comparison == "in" and len(bounds) != 2:
        raise ValueError(f"claim {name!r}: 'in' needs a pair (low, high), got {len(bounds)} values")
    if any(_is_nan(b) for b in bounds):
        raise ValueError(f"claim {name!r}: the bound is NaN, which nothing can satisfy; give a number")
    if comparison not in ("==", "!=") and any(isinstance(v, str) for v in (value, *bounds)):
        raise TypeError(f"claim {name!r}: strings can be compared by == and != only, not by {comparison}")
    holds = not _is_nan(value) and _COMPARE[comparison](value, bounds if comparison == "in" else bounds[0])
    shown = f"[{_text(bounds[0])}, {_text(bounds[1])}]" if comparison == "in" else _text(bounds[0])
    expected = f"{quantity} {comparison} {shown}".strip()
    return Claim(name, source, expected, value, "holds" if holds else "fails", note)


def not_run(name: str, expected: str, reason: str, *, source: str = "") -> Claim:
    """A claim that this run did not look at, and why (data that is not there, a part that only `--full` does)."""
    return Claim(name, source, expected, None, "not run", reason)


def largest(values: Iterable[float]) -> float:
    """The largest of these; NaN if one is, which `max` would let pass."""
    import numpy as np

    return float(np.max(list(values)))


def relative_difference(got: Any, wanted: Any) -> float:
    """max|got - wanted| / max|wanted| over one array, in float64: how far two gradients are apart.

    The scale is that of the whole array, because a single entry that happens to be near 0 has no meaningful relative
    error of its own. Two arrays of zeros differ by 0, anything else and zeros by infinity; a NaN anywhere gives NaN.
    """
    import numpy as np

    a, b = np.asarray(got, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(
            f"relative_difference: got has shape {a.shape}, wanted has shape {b.shape}; they must be equal"
        )
    difference, scale = float(np.max(np.abs(a - b), initial=0.0)), float(np.max(np.abs(b), initial=0.0))
    if scale == 0.0:
        return difference if difference == 0.0 or math.isnan(difference) else math.inf
    return difference / scale


def _scalar(name: str, role: str, value: Any) -> Scalar:
    if getattr(value, "size", None) == 1:  # a numpy or jax scalar, or an array of one element
        value = value.item()
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"claim {name!r}: {role} is {type(value).__name__} {str(value)[:60]}, wanted one number, boolean or string"
        " (reduce an array first, for instance with max)"
    )


def _is_nan(value: Scalar) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _text(value: Scalar) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

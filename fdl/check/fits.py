"""How well an explanation predicts the error of a gradient, and how it is told.

The error is r = c - g for the gradient g and what the candidate returned, c. An explanation predicts r = o + a v, with a
coefficient a that is fitted by least squares, or is 1; the share of the error that is explained is

    1 - |r - prediction|^2 / |r|^2

An explanation is kept only if this is at least 99 % at every point, with the same a at all of them.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

ALL = 1 - 1e-6  # nothing is left to be explained better
_EXPLAINED = 0.99
_CLOSE = 1e-6  # two factors are the same; in float64 they agree to 1e-10, and after float32 the fit says how well
_ROUNDING = 1e-12
_PATIENCE = 4.0
_TRUE = "what is True"  # how counts of a mask are called


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """part: v at a draw; offset: o. simplicity and words are told the coefficient; the lowest is the simplest."""

    part: Callable[[int], np.ndarray]
    fitted: bool
    simplicity: Callable[[float], int]
    words: Callable[[float], str]
    exact: bool = False  # the words say everything: no share is added where it is all
    offset: Callable[[int], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    share: float
    simplicity: int
    words: str

    @property
    def order(self) -> tuple[int, int]:
        nines = 6 if self.share >= ALL else int(-math.log10(1 - self.share))
        return -nines, self.simplicity


class Budget:
    """How long explanations may be looked for: seconds of this thread's computing, so that a busy machine finds the same; on a
    very busy one, `_PATIENCE` times as long."""

    def __init__(self, seconds: float):
        self._left = seconds

    @property
    def is_spent(self) -> bool:
        return self._left < 0

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        computing, waiting = time.thread_time(), time.monotonic()
        try:
            yield
        finally:
            self._left -= max(time.thread_time() - computing, (time.monotonic() - waiting) / _PATIENCE)


def best(explanations: Iterable[Explanation], errors: Sequence[np.ndarray], known: Found | None = None) -> Found | None:
    found = [known] if known is not None else []
    found += [fit for explanation in explanations if (fit := _fit(explanation, errors)) is not None]
    return min(found, key=lambda fit: fit.order, default=None)


def _fit(explanation: Explanation, errors: Sequence[np.ndarray]) -> Found | None:
    share, factors = 1.0, []
    for k, error in enumerate(errors):
        offset = explanation.offset(k) if explanation.offset is not None else None
        explained, factor = _share(error, explanation.part(k), explanation.fitted, offset)
        share = min(share, explained)
        factors.append(factor)
        # the error that is left bounds how far a fitted factor can be off
        slack = max(_CLOSE, 2 * math.sqrt(max(0.0, 1 - share)))
        if share < _EXPLAINED or max(factors) - min(factors) > slack * max(map(abs, factors)):
            return None
    factor = factors[0]
    if explanation.fitted:
        factor = next((x for x in (-1.0, 1.0, -2.0) if abs(factor - x) <= math.sqrt(max(0.0, 1 - share))), factor)
    of_all = f"{100 * share:.4g} % of the error"
    words = explanation.words(factor)
    if explanation.exact:
        words += f" ({of_all})" if share < 0.9995 else ""
    else:
        words = f"{of_all} in {{d}} is {words}"
    return Found(share, explanation.simplicity(factor), words)


def _share(error: np.ndarray, part: np.ndarray, fitted: bool, offset: np.ndarray | None) -> tuple[float, float]:
    """(the share of the sum of squares that is explained, the factor `part` is taken with)."""
    top, size = float(np.max(np.abs(error))), float(np.max(np.abs(part), initial=0.0))
    if not (0 < size < math.inf):
        return -math.inf, 0.0
    with np.errstate(all="ignore"):
        r, v = error / top, part / size
        wanted = r if offset is None else r - offset / top
        factor = float(np.sum(wanted * v) / np.sum(v * v)) if fitted else size / top
        share = 1 - float(np.sum(np.square(wanted - factor * v)) / np.sum(np.square(r)))
        factor = factor * (top / size) if fitted else 1.0
    return (share, factor) if math.isfinite(share) and math.isfinite(factor) else (-math.inf, 0.0)


def error_of(got: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """c - g; None if it is nothing but rounding, or not finite."""
    error = difference(got, wanted) if got.shape == wanted.shape else np.asarray(math.nan)
    rounding = _ROUNDING * np.max(np.abs(wanted), initial=0.0)
    return error if np.isfinite(error).all() and np.max(np.abs(error), initial=0.0) > rounding else None


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return a - b


def is_same(a: np.ndarray, b: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.max(np.abs(a - b), initial=0.0) <= 1e-5 * np.max(np.abs(b), initial=0.0))


# ---- words ----


def near(x: float, y: float) -> bool:
    return abs(x - y) <= 1e-4 * abs(y)


def of_factor(k: float, sizes: dict[int, str], literals: Callable[[], dict[str, dict[float, str]]]) -> tuple[int, str]:
    """(simplicity, words) for a gradient that is k times what it should be.

    sizes: {count: what it counts}; literals: {"mul" or "div": {number that the reference multiplies or divides by: where}}.
    """
    if abs(k) < 1e-9:
        return 0, "{d} is zero: it is missing altogether"
    if near(k, -1.0):
        return 1, "{d} has the wrong sign"
    if near(k, 1.0):
        return 6, f"{{d}} is {times(k)} what it should be"
    for known, words in ((2.0, "twice"), (0.5, "half of")):
        if near(k, known):
            return 1, f"{{d}} is {words} what it should be" + _aside(k, sizes)
    known = literals()
    for number, where in known["mul"].items():
        if near(k * number, 1.0):
            return 2, f"{{d}} is {k:.4g} times what it should be: the factor {number:.4g} in {where} is missing"
    for m, counted in sizes.items():
        where = f"m = {m} ({counted})"
        if m > 2 and near(k - 1, 1 / (m - 1)):
            return 2, f"{{d}} is {m}/{m - 1} times what it should be: {_or_plain(k)}1/(m - 1) in place of 1/m, {where}"
        if near(k - 1, -1 / m):
            return 2, f"{{d}} is {m - 1}/{m} times what it should be: {_or_plain(k)}1/m in place of 1/(m - 1), {where}"
    if mean := _of_mean(k, sizes):
        return 3, f"{{d}} is {_fraction(k)} what it should be: {mean}"
    for number, where in known["div"].items():
        if near(k, number):
            return 4, f"{{d}} is {k:.4g} times what it should be: the division by {number:.4g} in {where} is missing"
    if k < 1 and near(1 / k, round(1 / k)) or near(k, round(k)):
        return 6, f"{{d}} is {_fraction(k)} what it should be"
    for m, counted in sizes.items():
        for known, root in ((m**0.5, f"sqrt({m})"), (m**-0.5, f"1/sqrt({m})")):
            if near(k, known):
                return 5, f"{{d}} is {root} times what it should be, {m} = {counted}"
    for m, counted in sizes.items():
        for n, other in sizes.items():
            if near(k, m / n):
                return (
                    5,
                    f"{{d}} is {m}/{n} times what it should be: divided by {n} ({other}) in place of {m} ({counted})",
                )
    return 6, f"{{d}} is {times(k)} what it should be"


def _or_plain(k: float) -> str:
    """The other reading of a factor that is a round number whatever is counted."""
    return f"a factor of {k:.4g}, or " if near(20 * k, round(20 * k)) else ""


def _of_mean(k: float, sizes: dict[int, str]) -> str:
    """How a factor may come from a sum in place of a mean, or the other way round."""
    for m, counted in sizes.items():
        if near(k, 1 / m):
            return f"a mean in place of a sum, or two means, over {counted}"
        if near(k, m):
            return f"a sum in place of a mean over {counted}"
    for m, counted in sizes.items():
        for n, other in sizes.items():
            if counted.startswith(_TRUE) and near(k, m / n):
                return f"divided by {n} ({other}) in place of {m} ({counted})"
    for m, counted in sizes.items():
        for n, other in sizes.items():
            if n > m and n % m == 0 and near(k, m / n):
                return f"a mean in place of a sum over {n // m}, that is {other} for each of {counted}"
    return ""


def _aside(k: float, sizes: dict[int, str]) -> str:
    """Twice and half have many reasons: which are possible."""
    if mask := next((m for m, counted in sizes.items() if counted.startswith(_TRUE)), 0):
        for n, other in sizes.items():
            if near(k, mask / n):
                return f" (divided by {n} ({other}) in place of {mask} ({sizes[mask]})?)"
    halves = [m for m in sizes if m == 2 or 2 * m in sizes]
    return f" ({'a mean in place of a sum' if k < 1 else 'a sum in place of a mean'} over 2?)" if halves else ""


def _fraction(k: float) -> str:
    return f"1/{round(1 / k)} of" if k < 1 else f"{round(k)} times"


def times(k: float) -> str:
    return f"{k:.4g} times" if abs(k - 1) > 1e-3 else f"1 {'+' if k > 1 else '-'} {abs(k - 1):.2g} times"


def simplicity_of_term(rank: int, sizes: dict[int, str]) -> Callable[[float], int]:
    """Missing terms first, then those whose coefficient can be named; among them in the order given."""
    return lambda a: rank + (100 if near(a, -1) else 140 if _count(a, sizes) else 200 if _is_nice(a) else 300)


def _is_nice(a: float) -> bool:
    return any(near(a, known) for known in (-2.0, 1.0, -0.5))


def _count(a: float, sizes: dict[int, str]) -> str:
    if _is_nice(a):
        return ""
    for m, counted in sizes.items():
        if near(a, 1 / (m - 1)):
            return f"1/(m - 1) in place of 1/m, m = {m} ({counted})"
        if near(a, -1 / m):
            return f"1/m in place of 1/(m - 1), m = {m} ({counted})"
        if near(a, 1 / m - 1):
            return f"averaged in place of summed, over {m} ({counted})"
        if near(a, m - 1):
            return f"summed in place of averaged, over {m} ({counted})"
    return ""


def words_of_term(through: str, sizes: dict[int, str]) -> Callable[[float], str]:
    def words(a: float) -> str:
        coefficient = f"coefficient {a:+.2f}" if near(a, round(a)) else f"coefficient {a:+.3g}"
        missing = f"{'the' if through.startswith('paths') else 'a'} missing {through}"
        said = {-1.0: missing, -2.0: f"the {through} with the wrong sign", 1.0: f"the {through} twice"}
        for known, what in said.items():
            if near(a, known):
                return f"{what}, {coefficient}"
        counted = _count(a, sizes)
        return f"the {through}" + (f", {counted}" if counted else "") + f", {coefficient}"

    return words

"""Which term of a wrong gradient is missing, or wrong: the diagnosis in a report.

With the true gradient g of a leaf and what the candidate returned, c, the error is r = c - g. Every explanation predicts it:

    a stock mistake      r = p - g    p is what the mistake would return: -g, g.T, the gradient for a cotangent of ones, ...
    a constant factor    r = (k - 1) g
    a factor left out    r = p - g    p is the gradient without the derivative of one operation
    a term               r = a v      v is what the paths through one value contribute to g (see `fdl.check.paths`);
                                      a = -1 where they are missing, 1 where they count twice, -2 where their sign is wrong

The factor k and the coefficient a are fitted by least squares, and the share of the error that is explained is

    1 - |r - prediction|^2 / |r|^2

An explanation is given only if this is at least 99 % at two points that differ in the arguments and in the cotangents, with
the same k or a at both. Of several that explain the same, the simplest is given. Stock mistakes come first, and the terms
(which take a compilation) only where those do not explain all; two terms together only where no single one does.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fdl.check.evaluate import Evaluation, Measured, Point
from fdl.check.paths import Gated, Site, sites
from fdl.check.subject import Differentiated, Layout, is_countable

_EXPLAINED = 0.99
_ALL = 1 - 1e-6  # nothing is left to be explained better
_CLOSE = 1e-6  # two factors are the same; in float64 they agree to 1e-10, and after float32 the fit says how well
_SECONDS = 0.6  # after that no further explanation is evaluated: the likely ones come first
_SITES = 64
_ROUNDING = 1e-12
_TOGETHER = 8  # of the largest terms, in pairs


@dataclasses.dataclass(frozen=True, eq=False)
class _Draw:
    """One point and the truth there."""

    point: Point
    values: list[np.ndarray]
    wanted: list[np.ndarray]  # the gradients of the active leaves

    @staticmethod
    def at(point: Point, truth: Measured) -> "_Draw":
        arrays = truth(point).arrays
        values = len(arrays) - len(point.active)
        return _Draw(point, arrays[:values], arrays[values:])


@dataclasses.dataclass(frozen=True, eq=False)
class _Explanation:
    """parts: at each draw, the error predicted, or its direction where a factor is to be fitted."""

    parts: list[np.ndarray]
    fitted: bool
    simplicity: Callable[[float], int]  # from the fitted factor; the lowest is the simplest
    words: Callable[[float], str]
    exact: bool = False  # the words say everything: no share is added where it is all


@dataclasses.dataclass(frozen=True)
class _Found:
    share: float
    simplicity: int
    words: str

    @property
    def order(self) -> tuple[int, int]:
        nines = 6 if self.share >= _ALL else int(-math.log10(1 - self.share))
        return -nines, self.simplicity


class Terms:
    """Explains errors at two points. `truth` runs the reference; its first outputs get a cotangent each."""

    def __init__(self, reference: Differentiated, truth: Measured, points: Sequence[Point]):
        self.reference, self.truth = reference, truth
        self.draws = [_Draw.at(point, truth) for point in points]
        self.layout: Layout = reference.layout
        self.outputs = [w.shape for w in points[0].w]
        self._alternatives: dict[str, list[list[np.ndarray]]] = {}
        self._contributions: _Contributions | None = None
        self._end = time.monotonic() + _SECONDS

    def diagnosis(self, place: int, got: Sequence[np.ndarray]) -> str:
        """What is wrong with the gradient of active leaf `place`, `got` at each point; empty if nothing explains it."""
        errors = [_error(c, draw.wanted[place]) for c, draw in zip(got, self.draws, strict=True)]
        if any(error is None for error in errors):
            return ""
        leaf = self.layout.active[place]
        name = f"d{leaf}" if leaf.isidentifier() else f"the gradient of {leaf}"
        best = _best(self._stock(place), errors)
        if best is None or best.share < _ALL:
            best = _best(self._terms(place), errors, best)
        if best is None:
            best = _best(self._two_terms(place), errors)
        return best.words.replace("{d}", name) if best is not None else ""

    # ---- stock mistakes ----

    def _stock(self, place: int) -> Iterator[_Explanation]:
        wanted = [draw.wanted[place] for draw in self.draws]
        sizes = self._sizes(place)
        yield _Explanation(wanted, True, lambda a: _factor(1 + a, sizes)[0], lambda a: _factor(1 + a, sizes)[1], True)
        for words, returned in self._returned(place):
            yield _Explanation(
                [p - g for p, g in zip(returned, wanted, strict=True)], False, lambda _: 4, lambda _, w=words: w, True
            )

    def _returned(self, place: int) -> Iterator[tuple[str, list[np.ndarray]]]:
        """(what a mistake is called, what it returns at each draw)."""
        wanted = [draw.wanted[place] for draw in self.draws]
        shape = wanted[0].shape
        yield "{d} has lost its sign: it is the absolute value", [np.abs(g) for g in wanted]
        yield from self._with_factors(place)
        if len(shape) > 1 and shape[-1] == shape[-2] > 1:
            yield "{d} is transposed", [np.swapaxes(g, -1, -2) for g in wanted]
        for axis, size in enumerate(shape):
            if size > 1:
                along = f"along axis {axis}" if len(shape) > 1 else "from end to start"
                yield f"{{d}} is in reverse order {along}", [np.flip(g, axis) for g in wanted]
                for by in (1, -1):
                    yield (
                        f"{{d}} is moved by {by} along axis {axis}, around the end",
                        [np.roll(g, by, axis) for g in wanted],
                    )
                for by in (1, -1):
                    moved = f"one step {'late' if by > 0 else 'early'}"
                    yield f"{{d}} is {moved} along axis {axis}", [_shifted(g, by, axis) for g in wanted]
        for other, leaf in enumerate(self.layout.active):
            if other != place and self.draws[0].wanted[other].shape == shape:
                yield f"{{d}} is the gradient of {leaf}", [draw.wanted[other] for draw in self.draws]
        for words, change in self._cotangents():
            if found := self._alternative(words, lambda draw, change=change: self._for_cotangents(draw, change)):
                yield words, [gradients[place] for gradients in found]
        for axis, size in enumerate(shape):
            words = f"{{d}} runs through axis {axis} in the wrong direction"
            turn = lambda point, axis=axis: [np.flip(w, axis) if w.shape == shape else w for w in point.w]
            if size > 1 and (
                found := self._alternative(f"{words} {shape}", lambda draw, turn=turn: self._for_cotangents(draw, turn))
            ):
                yield words, [np.flip(gradients[place], axis) for gradients in found]
        yield from self._elsewhere(place)

    def _with_factors(self, place: int) -> Iterator[tuple[str, list[np.ndarray]]]:
        """An argument or an output too often or too rarely as a factor of every entry."""
        wanted = [draw.wanted[place] for draw in self.draws]
        values = [(name, [draw.point.active[p] for draw in self.draws]) for p, name in enumerate(self.layout.active)]
        values += [("the output", [draw.values[k] for draw in self.draws]) for k in range(len(self.outputs))]
        for name, factors in values:
            factors = [_aligned(np.asarray(m, np.float64), g) for m, g in zip(factors, wanted, strict=True)]
            if wanted[0].ndim == 0 or any(m is None for m in factors):
                continue
            with np.errstate(all="ignore"):
                yield (
                    f"{{d}} is multiplied by {name} once too often",
                    [g * m for g, m in zip(wanted, factors, strict=True)],
                )
                yield (
                    f"{{d}} is divided by {name} once too often",
                    [g / m for g, m in zip(wanted, factors, strict=True)],
                )

    def _cotangents(self) -> Iterator[tuple[str, Callable[[Point], list[np.ndarray]]]]:
        """Mistakes that are the gradient for other cotangents than those given."""
        yield (
            "{d} does not depend on the cotangent: it is the gradient for a cotangent of ones",
            lambda point: [np.ones_like(w) for w in point.w],
        )
        yield "{d} has the cotangent squared", lambda point: [np.square(w) for w in point.w]
        for k, shape in enumerate(self.outputs):
            for other in range(k):
                order = [{k: other, other: k}.get(i, i) for i in range(len(self.outputs))]
                if self.outputs[other] == shape:
                    words = f"{{d}} has the cotangents of outputs {other} and {k} swapped"
                    yield words, lambda point, order=order: [point.w[i] for i in order]
            if len(self.outputs) > 1:
                words = f"the cotangent of output {k} is missing in {{d}}"
                yield words, lambda point, k=k: [0 * w if i == k else w for i, w in enumerate(point.w)]
        for k, shape in enumerate(self.outputs):
            output = "the output" if len(self.outputs) == 1 else f"output {k}"
            for axis, size in enumerate(shape):
                if size < 2:
                    continue
                for index, called in ((0, "first"), (size - 1, "last")):
                    only, without = np.arange(size) == index, np.arange(size) != index
                    part = f"of the {size} along axis {axis} of {output}"
                    yield f"only the {called} {part} counts in {{d}}: a sum is missing", _masked(k, axis, only)
                    yield f"the {called} {part} is missing in {{d}}", _masked(k, axis, without)
            yield from self._repeated(k, shape)

    def _repeated(self, k: int, shape: tuple[int, ...]) -> Iterator[tuple[str, Callable]]:
        """Indices that occur more than once, where one occurrence overwrites the others."""
        fixed = [leaf.path for leaf in self.layout.leaves if not leaf.active]
        for name, x in zip(fixed, self.draws[0].point.fixed[0], strict=True):
            if not is_countable(x) or np.ndim(x) == 0 or np.shape(x) != shape[: np.ndim(x)]:
                continue
            flat = np.asarray(x).ravel()
            if len(np.unique(flat)) == flat.size:
                continue
            for called, order in (("last", -1), ("first", 1)):
                kept = np.zeros(flat.size, bool)
                kept[np.arange(flat.size)[::order][np.unique(flat[::order], return_index=True)[1]]] = True
                keep = kept.reshape(np.shape(x) + (1,) * (len(shape) - np.ndim(x)))
                words = f"of equal entries in {name} only the {called} counts in {{d}}: it overwrites the others"
                yield (
                    words,
                    lambda point, keep=keep: [w * keep if other == k else w for other, w in enumerate(point.w)],
                )

    def _elsewhere(self, place: int) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Residuals that are not what they should be: the derivative of something else than the argument."""
        leaf, shape = self.layout.active[place], self.draws[0].wanted[place].shape
        for k, value in enumerate(self.draws[0].values):
            if value.shape == shape:
                output = "the output" if len(self.outputs) == 1 else f"output {k}"
                found = self._alternative(
                    f"{place} at {k}", lambda draw, k=k: self._at(draw, place, draw.values[k].astype(np.float64))
                )
                if found:
                    yield f"{{d}} is the derivative at {output} in place of {leaf}", [g[place] for g in found]
        for other, name in enumerate(self.layout.active):
            if other != place and self.draws[0].wanted[other].shape == shape:
                found = self._alternative(
                    f"{place} from {other}", lambda draw, other=other: self._at(draw, place, draw.point.active[other])
                )
                if found:
                    yield f"{{d}} is the derivative at {name} in place of {leaf}", [g[place] for g in found]

        for other, name in enumerate(self.layout.active):
            x = self.draws[0].point.active[other]
            turned: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
            if x.ndim > 1 and x.shape[-1] == x.shape[-2] > 1:
                turned["transposed"] = lambda x: np.swapaxes(x, -1, -2)
            for axis in range(x.ndim if other != place and x.ndim < 5 else 0):
                turned[f"in reverse order along axis {axis}"] = lambda x, axis=axis: np.flip(x, axis)
            for how, turn in turned.items():
                run = lambda draw, other=other, turn=turn: self._at(draw, other, turn(draw.point.active[other]))
                if found := self._alternative(f"{name} {how}", run):
                    yield f"{{d}} is the derivative with {name} {how}", [g[place] for g in found]

    def _alternative(self, what: str, run: Callable[[_Draw], list[np.ndarray]]) -> list[list[np.ndarray]]:
        """What a mistake makes of all gradients at each draw; nothing if there is no time left."""
        if what not in self._alternatives:
            if time.monotonic() > self._end:
                return []
            self._alternatives[what] = [run(draw) for draw in self.draws]
        return self._alternatives[what]

    def _for_cotangents(self, draw: _Draw, change: Callable[[Point], list[np.ndarray]]) -> list[np.ndarray]:
        return _Draw.at(dataclasses.replace(draw.point, w=change(draw.point)), self.truth).wanted

    def _at(self, draw: _Draw, place: int, x: np.ndarray) -> list[np.ndarray]:
        """The gradients where one argument is another."""
        active = [x if p == place else own for p, own in enumerate(draw.point.active)]
        return self.truth.near(draw.point, active).arrays[len(draw.values) :]

    def _sizes(self, place: int) -> dict[int, str]:
        """The counts that a mean may be taken over, and what they count; those of the leaf itself first."""
        own = self.draws[0].point.active
        arrays = [(self.layout.active[p], own[p].shape) for p in (place, *(p for p in range(len(own)) if p != place))]
        arrays += [("the output", shape) for shape in self.outputs]
        sizes: dict[int, str] = {}
        for name, shape in arrays:
            for axis, size in enumerate(shape):
                sizes.setdefault(size, f"axis {axis} of {name}")
        for name, shape in arrays:
            sizes.setdefault(math.prod(shape), f"all of {name}")
            sizes.setdefault(math.prod(shape[:-1]), f"all axes of {name} but the last")
            sizes.setdefault(math.prod(shape[1:]), f"all axes of {name} but the first")
        return {size: counted for size, counted in sizes.items() if size > 1}

    # ---- terms ----

    def _terms(self, place: int) -> Iterator[_Explanation]:
        sizes = self._sizes(place)
        for rank, (site, parts) in enumerate(self._named_terms(place)):
            if site.is_bypass:
                words = f"the derivative of {self._name(site)} is taken as 1 in {{d}}"
                error = [-part for part in parts]
                yield _Explanation(error, False, lambda _, r=rank: 150 + r, lambda _, w=words: w, True)
            else:
                through = f"path through {self._name(site)}"
                yield _Explanation(parts, True, _of_term(rank, sizes), _words_of_term(through, sizes))

    def _two_terms(self, place: int) -> Iterator[_Explanation]:
        """Two gates shut at once: terms that flow through each other are not counted twice."""
        contributions, sizes = self._of_sites(), self._sizes(place)
        paths = [k for k in self._distinct(place) if not contributions.sites[k].is_bypass]
        largest = sorted(paths, key=lambda k: -float(np.linalg.norm(contributions.of(k)[0][place])))
        kept = sorted(largest[:_TOGETHER])
        for one in kept:
            for other in kept:
                if one < other and (found := contributions.of(one, other)):
                    names = [self._name(contributions.sites[k]) for k in (one, other)]
                    name = f"paths through {' and '.join(names)}"
                    parts = [gradients[place] for gradients in found]
                    yield _Explanation(parts, True, _of_term(0, sizes), _words_of_term(name, sizes))

    def _named_terms(self, place: int) -> Iterator[tuple[Site, list[np.ndarray]]]:
        contributions = self._of_sites()
        for k in self._distinct(place):
            yield contributions.sites[k], [gradients[place] for gradients in contributions.of(k)]

    def _distinct(self, place: int) -> list[int]:
        """The sites that contribute something, but not everything, each contribution under its best name."""
        contributions, kept = self._of_sites(), []
        known = {True: [], False: [self.draws[0].wanted[place]]}
        for k in range(len(contributions.sites)):
            found = contributions.of(k)
            if not found:
                break
            part, alike = found[0][place], known[contributions.sites[k].is_bypass]
            if np.isfinite(part).all() and part.any() and not any(_is_same(part, other) for other in alike):
                alike.append(part)
                kept.append(k)
        return kept

    def _of_sites(self) -> "_Contributions":
        if self._contributions is None:
            self._contributions = _Contributions(self.reference, self.truth, self.draws)
        return self._contributions

    def _name(self, site: Site) -> str:
        alike = {other.line for other in self._of_sites().sites if other.name == site.name}
        return site.name + (f" (line {site.line})" if len(alike) > 1 else "")


class _Contributions:
    """What the paths through each site, or through two of them, contribute to the gradients at the draws."""

    def __init__(self, reference: Differentiated, truth: Measured, draws: Sequence[_Draw]):
        self.draws = draws
        precision = truth.precision
        with precision.scope():
            active, fixed, _ = precision.operands(draws[0].point)
            found = sites(reference, active, fixed)
        self.sites: list[Site] = [
            site for bypass in (False, True) for site in [x for x in found if x.is_bypass == bypass][:_SITES]
        ]
        self._run = Evaluation(Gated(reference, tuple(site.place for site in self.sites)), precision, quick=True)
        self._known: dict[tuple[int, ...], list[list[np.ndarray]]] = {}
        self._all = [self._with_shut(draw) for draw in draws]
        if not all(_is_same(a, g) for own, draw in zip(self._all, draws, strict=True) for a, g in _pairs(own, draw)):
            self.sites = []  # taken apart, the reference is not the same function
        self._end = time.monotonic() + _SECONDS

    def of(self, *shut: int) -> list[list[np.ndarray]]:
        """At each draw the contribution to each leaf; nothing if there is no time left."""
        if shut not in self._known:
            if time.monotonic() > self._end:
                return []
            rest = [self._with_shut(draw, *shut) for draw in self.draws]
            self._known[shut] = [
                [_difference(a, b) for a, b in zip(full, left, strict=True)]
                for full, left in zip(self._all, rest, strict=True)
            ]
        return self._known[shut]

    def _with_shut(self, draw: _Draw, *shut: int) -> list[np.ndarray]:
        s = np.ones(len(self.sites))
        s[list(shut)] = 0.0
        return self._run(dataclasses.replace(draw.point, w=(draw.point.w, s))).arrays


def _pairs(own: list[np.ndarray], draw: _Draw) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(own, draw.wanted, strict=True)


# ---- fits ----


def _best(explanations: Iterator[_Explanation], errors: Sequence[Any], known: _Found | None = None) -> _Found | None:
    found = [known] if known is not None else []
    found += [fit for explanation in explanations if (fit := _fit(explanation, errors)) is not None]
    return min(found, key=lambda fit: fit.order, default=None)


def _fit(explanation: _Explanation, errors: Sequence[np.ndarray]) -> _Found | None:
    fits = [_share(e, part, explanation.fitted) for e, part in zip(errors, explanation.parts, strict=True)]
    share = min(share for share, _ in fits)
    factors = [factor for _, factor in fits]
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
    return _Found(share, explanation.simplicity(factor), words)


def _share(error: np.ndarray, part: np.ndarray, fitted: bool) -> tuple[float, float]:
    """(the share of the sum of squares that `part` explains, the factor it is taken with)."""
    top, size = float(np.max(np.abs(error))), float(np.max(np.abs(part), initial=0.0))
    if not (0 < size < math.inf):
        return -math.inf, 0.0
    with np.errstate(all="ignore"):
        r, v = error / top, part / size
        factor = float(np.sum(r * v) / np.sum(v * v)) if fitted else size / top
        share = 1 - float(np.sum(np.square(r - factor * v)) / np.sum(np.square(r)))
        factor = factor * (top / size) if fitted else 1.0
    return (share, factor) if math.isfinite(share) and math.isfinite(factor) else (-math.inf, 0.0)


def _error(got: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    """c - g; None if it is nothing but rounding, or not finite."""
    error = _difference(got, wanted) if got.shape == wanted.shape else np.asarray(math.nan)
    rounding = _ROUNDING * np.max(np.abs(wanted), initial=0.0)
    return error if np.isfinite(error).all() and np.max(np.abs(error), initial=0.0) > rounding else None


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return a - b


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.max(np.abs(a - b), initial=0.0) <= 1e-5 * np.max(np.abs(b), initial=0.0))


def _aligned(m: np.ndarray, g: np.ndarray) -> np.ndarray | None:
    """m in a shape that multiplies g: of the same trailing axes, or of the same leading ones."""
    if m.size == 1 or m.ndim > g.ndim:
        return None
    if m.shape == g.shape[g.ndim - m.ndim :]:
        return m
    return m.reshape(m.shape + (1,) * (g.ndim - m.ndim)) if m.shape == g.shape[: m.ndim] else None


def _shifted(g: np.ndarray, by: int, axis: int) -> np.ndarray:
    moved = np.roll(g, by, axis)
    np.moveaxis(moved, axis, 0)[0 if by > 0 else -1] = 0.0
    return moved


def _masked(k: int, axis: int, mask: np.ndarray) -> Callable[[Point], list[np.ndarray]]:
    def change(point: Point) -> list[np.ndarray]:
        shape = [-1 if a == axis else 1 for a in range(point.w[k].ndim)]
        return [w * mask.reshape(shape) if other == k else w for other, w in enumerate(point.w)]

    return change


# ---- words ----


def _near(x: float, y: float) -> bool:
    return abs(x - y) <= 1e-4 * abs(y)


def _factor(k: float, sizes: dict[int, str]) -> tuple[int, str]:
    """(simplicity, words) for a gradient that is k times what it should be."""
    if abs(k) < 1e-9:
        return 0, "{d} is zero: it is missing altogether"
    for known, words in (
        (-1.0, "has the wrong sign"),
        (2.0, "is twice what it should be"),
        (0.5, "is half of what it should be"),
    ):
        if _near(k, known):
            return 1, f"{{d}} {words}"
    for m, counted in sizes.items():
        where = f"m = {m} ({counted})"
        if _near(k - 1, 1 / (m - 1)):
            return 2, f"{{d}} is {m}/{m - 1} times what it should be: 1/(m - 1) in place of 1/m, {where}"
        if _near(k - 1, -1 / m):
            return 2, f"{{d}} is {m - 1}/{m} times what it should be: 1/m in place of 1/(m - 1), {where}"
        if _near(k, 1 / m):
            return 3, f"{{d}} is 1/{m} of what it should be: a mean in place of a sum, or two means, over {counted}"
        if _near(k, m):
            return 3, f"{{d}} is {m} times what it should be: a sum in place of a mean over {counted}"
    for m, counted in sizes.items():
        for known, root in ((m**0.5, f"sqrt({m})"), (m**-0.5, f"1/sqrt({m})")):
            if _near(k, known):
                return 5, f"{{d}} is {root} times what it should be, {m} = {counted}"
    if k < 1 and _near(1 / k, round(1 / k)):
        return 6, f"{{d}} is 1/{round(1 / k)} of what it should be"
    if _near(k, round(k)):
        return 6, f"{{d}} is {round(k)} times what it should be"
    times = f"{k:.4g} times" if abs(k - 1) > 1e-3 else f"1 {'+' if k > 1 else '-'} {abs(k - 1):.2g} times"
    return 6, f"{{d}} is {times} what it should be"


def _of_term(rank: int, sizes: dict[int, str]) -> Callable[[float], int]:
    """Missing terms first, then those whose coefficient can be named; among them in the order given."""
    return lambda a: rank + (100 if _near(a, -1) else 200 if _is_nice(a, sizes) else 300)


def _is_nice(a: float, sizes: dict[int, str]) -> bool:
    return any(_near(a, known) for known in (-2.0, 1.0, -0.5)) or bool(_count(a, sizes))


def _count(a: float, sizes: dict[int, str]) -> str:
    for m, counted in sizes.items():
        if _near(a, 1 / (m - 1)):
            return f"1/(m - 1) in place of 1/m, m = {m} ({counted})"
        if _near(a, -1 / m):
            return f"1/m in place of 1/(m - 1), m = {m} ({counted})"
    return ""


def _words_of_term(through: str, sizes: dict[int, str]) -> Callable[[float], str]:
    def words(a: float) -> str:
        coefficient = f"coefficient {a:+.2f}" if _near(a, round(a)) else f"coefficient {a:+.3g}"
        missing = f"{'the' if through.startswith('paths') else 'a'} missing {through}"
        said = {-1.0: missing, -2.0: f"the {through} with the wrong sign", 1.0: f"the {through} twice"}
        for known, what in said.items():
            if _near(a, known):
                return f"{what}, {coefficient}"
        counted = _count(a, sizes)
        return f"the {through}" + (f", {counted}" if counted else "") + f", {coefficient}"

    return words

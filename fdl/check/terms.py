"""Which term of a wrong gradient is missing, or wrong: the diagnosis in a report.

With the true gradient g of a leaf and what the candidate returned, c, the error is r = c - g. Every explanation predicts it:

    a stock mistake      r = p - g    p is what the mistake would return: -g, g.T, the gradient for a cotangent of ones, ...
    a constant factor    r = (k - 1) g
    a factor left out    r = p - g    p is the gradient without the derivative of one operation
    a term               r = a v      v is what the paths through one value contribute to g (see `fdl.check.paths`);
                                      a = -1 where they are missing, 1 where they count twice, -2 where their sign is wrong
    a region             r = 0        but at some entries, which have something in common
    a fault              r = p - g    p is what one wrong operation in the backward pass makes of g (see `fdl.check.faults`)

An explanation is given only if it explains at least 99 % of the error (see `fdl.check.fits`) at two points that differ in the
arguments and in the cotangents. Of several that explain the same, the simplest is given. Stock mistakes come first, and the terms
(which take a compilation) only where those do not explain all; two terms together only where no single one does; regions and
faults where no term is wrong as a whole.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from fdl.check.backward import EXACT, PART, Backward, Fault
from fdl.check.evaluate import Evaluation, Measured, Point
from fdl.check.faults import faults
from fdl.check.fits import (
    ALL,
    Budget,
    Explanation,
    Found,
    best,
    difference,
    error_of,
    is_same,
    near,
    simplicity_of_term,
    words_of_term,
)
from fdl.check.paths import Gated, Site, sites
from fdl.check.regions import region_of
from fdl.check.residuals import factors
from fdl.check.stock import Draw, Stock
from fdl.check.subject import Differentiated

_SECONDS = 0.6  # for terms; after that no further explanation is evaluated: the likely ones come first
_SECONDS_OF_FAULTS = 0.8
_SITES = 64
_TOGETHER = 8  # of the largest terms, in pairs
_FAULTS = 1000  # the simplicity of the simplest fault: any term is simpler


class Terms:
    """Explains errors at two points. `truth` runs the reference; its first outputs get a cotangent each."""

    def __init__(self, reference: Differentiated, truth: Measured, points: Sequence[Point]):
        self.reference, self.truth, self.layout = reference, truth, reference.layout
        self.draws = [Draw.at(point, truth) for point in points]
        self.stock = Stock(truth, reference.layout, self.draws, self._literals)
        self._contributions: _Contributions | None = None
        self._budget = Budget(_SECONDS_OF_FAULTS)

    def diagnosis(self, place: int, got: Sequence[np.ndarray]) -> str:
        """What is wrong with the gradient of active leaf `place`, `got` at each point; empty if nothing explains it."""
        leaf = self.layout.active[place]
        name = f"d{leaf}" if leaf.isidentifier() else f"the gradient of {leaf}"
        with np.errstate(all="ignore"):
            return self._said(place, got).replace("{d}", name)

    def _said(self, place: int, got: Sequence[np.ndarray]) -> str:
        errors = [error_of(c, draw.wanted[place]) for c, draw in zip(got, self.draws, strict=True)]
        known = [error for error in errors if error is not None]
        if len(known) < len(errors):
            finite = all(np.isfinite(c).all() for c in got)
            return "" if finite else _words_of_region(*region_of(place, self.layout, self.draws, got))
        found = best(self.stock.identities(place), known)
        is_identity = found is not None  # then what is left out has a better name, if it has any
        if not is_identity:
            found = best(self.stock.explanations(place), known)
        if is_identity or found is None or found.share < ALL:
            found = best(self._terms(place), known, found)
        if found is None:
            found = best(self._two_terms(place), known)
        if found is not None and found.share >= ALL:
            return found.words
        what, where = region_of(place, self.layout, self.draws, got)
        if what:
            return _words_of_region(what, where)
        found = self._fault(place, known, found)
        return found.words if found is not None else _words_of_region(what, where)

    # ---- faults ----

    def _fault(self, place: int, errors: list[np.ndarray], found: Found | None) -> Found | None:
        backward = self._backward
        if backward is None:
            return found
        for alike in faults(backward, place):
            found = best(self._of_faults(backward, alike, place), errors, found)
            if found is not None and found.share >= ALL:
                return found
        return best(self._of_factors(backward, place), errors, found)

    def _of_factors(self, backward: Backward, place: int) -> Iterator[Explanation]:
        wanted = [draw.wanted[place] for draw in self.draws]
        for words, factor in factors(backward, place):
            returned = lambda k, f=factor: wanted[k] * (f(k) - 1)
            yield Explanation(returned, False, lambda _: 2 * _FAULTS, lambda _, w=words: w, True)

    def _of_faults(self, backward: Backward, alike: Iterable[Fault], place: int) -> Iterator[Explanation]:
        wanted, sizes = [draw.wanted[place] for draw in self.draws], self.stock.sizes(place)
        for fault in alike:
            if self._budget.is_spent:
                return
            run = _Run(backward, fault, place, wanted, self._budget)
            rank = lambda _, r=_FAULTS + 100 + fault.rank: r
            if fault.kind == EXACT:
                yield Explanation(run.error, False, rank, lambda _, w=fault.words: w, True)
            elif fault.kind == PART:
                simplicity = simplicity_of_term(_FAULTS + fault.rank, sizes)
                yield Explanation(run.part, True, simplicity, words_of_term(fault.words, sizes))
            else:
                said = lambda a, w=fault.words: w + (f", {a:.4g}" if not near(a, 1.0) else "")
                simplicity = lambda a, r=_FAULTS + 100 + fault.rank: r + (0 if near(a, 1) else 200)
                yield Explanation(run.returned, True, simplicity, said, True, offset=lambda k: -wanted[k])

    @functools.cached_property
    def _traced(self) -> Backward | None:
        try:
            return Backward(self.reference, self.truth.precision, [draw.point for draw in self.draws])
        except (
            Exception
        ):  # whatever the reference does that cannot be traced: stock mistakes and terms have names all the same
            return None

    @functools.cached_property
    def _backward(self) -> Backward | None:
        """The backward pass to plant faults in; None if it is not the same function when it is replayed."""
        own = self._traced
        places = [(k, place) for k in range(len(self.draws)) for place in range(len(self.layout.active))]
        try:
            alike = own is not None and all(
                is_same(own.returned(None, *at), self.draws[at[0]].wanted[at[1]]) for at in places
            )
        except Exception:  # an operation that cannot be run by itself
            return None
        return own if alike else None

    def _literals(self) -> dict[str, dict[float, str]]:
        return self._traced.literals if self._traced is not None else {"mul": {}, "div": {}}

    # ---- terms ----

    def _terms(self, place: int) -> Iterator[Explanation]:
        sizes = self.stock.sizes(place)
        for rank, (site, parts) in enumerate(self._named_terms(place)):
            if site.is_bypass:
                name = self._name(site)
                error = [-part for part in parts]
                yield Explanation(
                    error.__getitem__,
                    True,
                    lambda a, r=rank: 150 + r + (0 if near(a, 1) else 300),
                    _words_of_bypass(name),
                    True,
                )
                inverted = [e - draw.wanted[place] for e, draw in zip(error, self.draws, strict=True)]
                words = f"{{d}} has the mask of {name} inverted"
                yield Explanation(inverted.__getitem__, False, lambda _, r=rank: 250 + r, lambda _, w=words: w, True)
            else:
                through = f"path through {self._name(site)}"
                yield Explanation(
                    parts.__getitem__, True, simplicity_of_term(rank, sizes), words_of_term(through, sizes)
                )

    def _two_terms(self, place: int) -> Iterator[Explanation]:
        """Two gates shut at once: terms that flow through each other are not counted twice."""
        contributions, sizes = self._of_sites(), self.stock.sizes(place)
        paths = [k for k in self._distinct(place) if not contributions.sites[k].is_bypass]
        largest = sorted(paths, key=lambda k: -float(np.linalg.norm(contributions.of(k)[0][place])))
        kept = sorted(largest[:_TOGETHER])
        for one in kept:
            for other in kept:
                if one < other and (found := contributions.of(one, other)):
                    names = [self._name(contributions.sites[k]) for k in (one, other)]
                    name = f"paths through {' and '.join(names)}"
                    parts = [gradients[place] for gradients in found]
                    yield Explanation(parts.__getitem__, True, simplicity_of_term(0, sizes), words_of_term(name, sizes))

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
            if np.isfinite(part).all() and part.any() and not any(is_same(part, other) for other in alike):
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

    def __init__(self, reference: Differentiated, truth: Measured, draws: Sequence[Draw]):
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
        if not all(is_same(a, g) for own, draw in zip(self._all, draws, strict=True) for a, g in _pairs(own, draw)):
            self.sites = []  # taken apart, the reference is not the same function
        self._budget = Budget(_SECONDS)

    def of(self, *shut: int) -> list[list[np.ndarray]]:
        """At each draw the contribution to each leaf; nothing if there is no time left."""
        if shut not in self._known:
            if self._budget.is_spent:
                return []
            with self._budget.spending():
                rest = [self._with_shut(draw, *shut) for draw in self.draws]
            self._known[shut] = [
                [difference(a, b) for a, b in zip(full, left, strict=True)]
                for full, left in zip(self._all, rest, strict=True)
            ]
        return self._known[shut]

    def _with_shut(self, draw: Draw, *shut: int) -> list[np.ndarray]:
        s = np.ones(len(self.sites))
        s[list(shut)] = 0.0
        return self._run(dataclasses.replace(draw.point, w=(draw.point.w, s))).arrays


def _pairs(own: list[np.ndarray], draw: Draw) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(own, draw.wanted, strict=True)


class _Run:
    """What a fault does to the gradient of a leaf, at each draw; nothing finite where it cannot be planted."""

    def __init__(self, backward: Backward, fault: Fault, place: int, wanted: Sequence[np.ndarray], budget: Budget):
        self.backward, self.fault, self.place, self.wanted, self.budget = backward, fault, place, wanted, budget

    def returned(self, k: int) -> np.ndarray:
        try:
            with self.budget.spending():
                return self.backward.returned(self.fault, k, self.place)
        except Exception:  # shapes do not fit together: nobody makes this mistake here
            return np.full_like(self.wanted[k], np.nan)

    def error(self, k: int) -> np.ndarray:
        return difference(self.returned(k), self.wanted[k])

    def part(self, k: int) -> np.ndarray:
        return -self.error(k)


def _words_of_region(what: str, where: str) -> str:
    return f"{{d}} {what or 'is wrong'} {where}; elsewhere it is right" if where else ""


def _words_of_bypass(name: str) -> Callable[[float], str]:
    def words(a: float) -> str:
        if near(a, 1):
            return f"the derivative of {name} is taken as 1 in {{d}}"
        return f"the derivative of {name} is off in {{d}}: {a:+.3g} of what it would keep back comes through"

    return words

"""Where a gradient is wrong, if it is right elsewhere: at an index, in a row, where a mask is False, where an argument is negative.

A region is told only if it holds the wrong entries and hardly any others, at every point; conditions on values are then more than
a coincidence, since the values differ from point to point.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fdl.check.arrays import aligned
from fdl.check.fits import times
from fdl.check.stock import Draw
from fdl.check.subject import Layout, is_countable

_WRONG = 1e-7  # of the largest error; the others are rounding
_FILLED = 0.9  # of a region is wrong
_ENOUGH = 3  # wrong entries, and right ones, from which a bound is read off

Region = tuple[str, list[np.ndarray]]  # where, and the entries at each draw


def region_of(place: int, layout: Layout, draws: Sequence[Draw], got: Sequence[np.ndarray]) -> tuple[str, str]:
    """(what is wrong, where) with the gradient of active leaf `place`; no where if it is wrong everywhere, or anyhow."""
    wanted = [draw.wanted[place] for draw in draws]
    if wanted[0].ndim == 0 or any(
        c.shape != g.shape or not np.isfinite(g).all() for c, g in zip(got, wanted, strict=True)
    ):
        return "", ""
    wrong = [_wrong(c, g) for c, g in zip(got, wanted, strict=True)]
    seen = [w | (c != 0) | (g != 0) for w, c, g in zip(wrong, got, wanted, strict=True)]  # where zero would be wrong
    if any(not w.any() or (w == s).all() and s.all() for w, s in zip(wrong, seen, strict=True)):
        return "", ""
    for where, entries in _regions(place, layout, draws, wrong):
        if all(_is_filled(w, s, region) for w, s, region in zip(wrong, seen, entries, strict=True)):
            return _what(got, wanted, wrong), where
    return "", ""


def _wrong(c: np.ndarray, g: np.ndarray) -> np.ndarray:
    if not np.isfinite(c).all():
        return ~np.isfinite(c)
    return np.abs(c - g) > _WRONG * np.max(np.abs(c - g))


def _is_filled(wrong: np.ndarray, seen: np.ndarray, region: np.ndarray) -> bool:
    inside = region & seen
    return (
        not (wrong & ~region).any()
        and bool((seen & ~region).any() or wrong.sum() < seen.sum())
        and wrong.sum() >= _FILLED * inside.sum()
    )


def _what(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> str:
    c, g = (np.concatenate([x[w] for x, w in zip(all_of, wrong, strict=True)]) for all_of in (got, wanted))
    if not np.isfinite(c).all():
        return "is not finite"
    if not c.any():
        return "is zero, and should not be,"
    if not g.any():
        return "is not zero, and should be: a missing mask,"
    if g.all():
        factor = float(np.median(c / g))
        if np.allclose(c, factor * g, rtol=1e-5 * abs(factor - 1), atol=0):
            return "has the wrong sign" if abs(factor + 1) < 1e-6 else f"is {times(factor)} what it should be"
    return ""


# ---- regions ----


def _regions(place: int, layout: Layout, draws: Sequence[Draw], wrong: Sequence[np.ndarray]) -> Iterator[Region]:
    shape = wrong[0].shape
    names = [leaf.path for leaf in layout.leaves if not leaf.active]
    for name, x in zip(names, draws[0].point.fixed[0], strict=True):
        if is_countable(x) and np.ndim(x):
            yield from _of_fixed(name, np.asarray(x), shape, len(draws))
    values = list(_values(place, layout, draws, shape))
    for name, xs in values:
        for words, test in _SIGNS.items():
            yield f"where {name} is {words}", [test(x) for x in xs]
    yield from _of_indices(wrong[0], len(draws))
    for name, xs in values:
        yield from _between(name, xs, wrong)


def _of_fixed(name: str, x: np.ndarray, shape: tuple[int, ...], count: int) -> Iterator[Region]:
    m = aligned(x, shape)
    if x.dtype == np.bool_:
        if m is not None:
            for value in (False, True):
                yield f"where {name} is {value}", [np.broadcast_to(m == value, shape)] * count
        return
    hit = np.isin(np.arange(shape[0]), x).reshape((-1,) + (1,) * (len(shape) - 1))
    yield f"where the row occurs in {name}", [np.broadcast_to(hit, shape)] * count
    yield f"where the row does not occur in {name}", [np.broadcast_to(~hit, shape)] * count


def _values(
    place: int, layout: Layout, draws: Sequence[Draw], shape: tuple[int, ...]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Arguments, outputs and cotangents that go with the entries; the argument itself first."""
    order = sorted(range(len(layout.active)), key=lambda p: p != place)
    outputs = len(draws[0].point.w)
    one = outputs == 1
    arrays = [(layout.active[p], [draw.point.active[p] for draw in draws]) for p in order]
    arrays += [("the cotangent" if one else f"cotangent {n}", [d.point.w[n] for d in draws]) for n in range(outputs)]
    arrays += [("the output" if one else f"output {n}", [d.values[n] for d in draws]) for n in range(outputs)]
    for name, xs in arrays:
        found = [aligned(np.asarray(x, np.float64), shape) for x in xs]
        if all(x is not None for x in found):
            yield name, [np.broadcast_to(x, shape) for x in found if x is not None]


_SIGNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "0": lambda x: x == 0,
    "negative": lambda x: x < 0,
    "positive": lambda x: x > 0,
    "above 1 or below -1": lambda x: np.abs(x) > 1,
}


def _of_indices(wrong: np.ndarray, count: int) -> Iterator[Region]:
    """The wrong entries have an index, or some of a few indices, along an axis."""
    rank = wrong.ndim
    if wrong.sum() == 1:
        index = [int(i) for i in np.argwhere(wrong)[0]]
        yield f"at {index} alone", [wrong] * count
    for axis, size in enumerate(wrong.shape):
        some = wrong.any(axis=tuple(a for a in range(rank) if a != axis))
        places = np.flatnonzero(some)
        region = np.broadcast_to(some.reshape([-1 if a == axis else 1 for a in range(rank)]), wrong.shape)
        along = f"along axis {axis}"
        if len(places) == 1:
            at = {0: "the first", size - 1: "the last"}.get(int(places[0]), "index")
            yield f"at index {places[0]} {along}" + (f", {at}" if at != "index" else ""), [region] * count
        elif len(places) == size - 1:
            yield f"everywhere but at index {np.flatnonzero(~some)[0]} {along}", [region] * count
        elif len(places) < size:
            if len(places) == places[-1] - places[0] + 1:
                yield f"from index {places[0]} to {places[-1]} {along}", [region] * count
            for every in range(2, size // 2 + 1 if len(places) >= _ENOUGH else 0):
                if (some == (np.arange(size) % every == places[0] % every)).all():
                    yield (
                        f"at every index {along} that leaves {places[0] % every} when divided by {every}",
                        [region] * count,
                    )


def _between(name: str, xs: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> Iterator[Region]:
    """Between two bounds, read off the wrong entries of all draws together."""
    if min(int(w.sum()) for w in wrong) < _ENOUGH or min(int((~w).sum()) for w in wrong) < _ENOUGH:
        return
    low = min(float(np.min(x[w])) for x, w in zip(xs, wrong, strict=True))
    high = max(float(np.max(x[w])) for x, w in zip(xs, wrong, strict=True))
    inside = [(x >= low) & (x <= high) for x in xs]
    if all((region == w).all() for region, w in zip(inside, wrong, strict=True)):
        lowest = min(float(np.min(x)) for x in xs) >= low
        highest = max(float(np.max(x)) for x in xs) <= high
        bounds = f"from {low:.3g} to {high:.3g}"
        where = f"{high:.3g} or less" if lowest else f"{low:.3g} or more" if highest else bounds
        yield f"where {name} is {where}", inside

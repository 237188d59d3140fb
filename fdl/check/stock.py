"""Stock mistakes: what a wrong gradient is when somebody made one of the mistakes that everybody makes.

Of the gradient itself: its sign, a factor, transposed, in reverse order, moved, another argument's. Of the cotangent: ones in
its place, squared, its sign, averaged, flipped, only a part of it. Of the values that it is the derivative at: another
argument, the output, a mask inverted. Of the function: the derivative of its square, of its exponential, of a maximum.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fdl.check.arrays import FUNCTIONS, REDUCTIONS, aligned, averaged, joined, shifted, turned
from fdl.check.evaluate import Measured, Point
from fdl.check.fits import Budget, Explanation, of_factor, times
from fdl.check.subject import Layout, is_countable

_SECONDS = 0.5  # after that nothing more is evaluated: the likely mistakes come first
_DIAGONAL = 64  # entries; the diagonal of a Jacobian takes a gradient for each

Mistake = tuple[str, Callable[[int], np.ndarray]]  # what it is called, and what it returns at a draw


@dataclasses.dataclass(frozen=True, eq=False)
class Draw:
    """One point and the truth there."""

    point: Point
    values: list[np.ndarray]
    wanted: list[np.ndarray]  # the gradients of the active leaves

    @staticmethod
    def at(point: Point, truth: Measured) -> "Draw":
        arrays = truth(point).arrays
        values = len(arrays) - len(point.active)
        return Draw(point, arrays[:values], arrays[values:])


class Stock:
    """literals: the numbers in the reference (see `of_factor`), asked for where a factor has to be explained."""

    def __init__(
        self,
        truth: Measured,
        layout: Layout,
        draws: Sequence[Draw],
        literals: Callable[[], dict[str, dict[float, str]]],
    ):
        self.truth, self.layout, self.draws, self.literals = truth, layout, draws, literals
        self.outputs = [w.shape for w in draws[0].point.w]
        self._known: dict[tuple[str, int], list[np.ndarray]] = {}
        self._budget = Budget(_SECONDS)

    def explanations(self, place: int) -> Iterator[Explanation]:
        wanted = [draw.wanted[place] for draw in self.draws]
        sizes = self.sizes(place)
        factor = lambda a: of_factor(1 + a, sizes, self.literals)
        yield Explanation(wanted.__getitem__, True, lambda a: factor(a)[0], lambda a: factor(a)[1], True)
        for rank, mistakes in enumerate((self._own(place), self._from_others(place))):
            for words, returned in mistakes:
                yield Explanation(
                    lambda k, p=returned: p(k) - wanted[k], False, lambda _, r=rank: 4 + r, lambda _, w=words: w, True
                )
        for words, direction in self._with_factors(place):
            said = lambda a, w=words: w if abs(a - 1) < 1e-4 else f"{w}, and {times(a)} what it should be"
            rank = lambda a: 4 if abs(a - 1) < 1e-4 else 6
            yield Explanation(direction, True, rank, said, True, offset=lambda k: -wanted[k])

    def sizes(self, place: int) -> dict[int, str]:
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
        for name, x in self._fixed():
            if x.dtype == np.bool_:
                sizes.setdefault(int(x.sum()), f"what is True in {name}")
        return {size: counted for size, counted in sizes.items() if size > 1}

    def _fixed(self) -> Iterator[tuple[str, np.ndarray]]:
        """Integer and boolean arguments."""
        names = [leaf.path for leaf in self.layout.leaves if not leaf.active]
        for name, x in zip(names, self.draws[0].point.fixed[0], strict=True):
            if is_countable(x) and np.ndim(x):
                yield name, np.asarray(x)

    # ---- mistakes with the gradient itself ----

    def _own(self, place: int) -> Iterator[Mistake]:
        wanted = [draw.wanted[place] for draw in self.draws]
        shape = wanted[0].shape
        of = lambda change: lambda k: change(wanted[k])
        yield "{d} has lost its sign: it is the absolute value", of(np.abs)
        for number in range(len(self.outputs)):
            yield from self._other_reductions(place, number)
        for one in range(len(shape)):
            for other in range(one + 1, len(shape)):
                if shape[one] == shape[other] > 1:
                    last = other == len(shape) - 1 and one == other - 1
                    axes = "" if last else f": axes {one} and {other} are swapped"
                    yield f"{{d}} is transposed{axes}", of(lambda g, a=one, b=other: np.swapaxes(g, a, b))
        for axis, size in enumerate(shape):
            if size < 2:
                continue
            along = f"along axis {axis}" if len(shape) > 1 else "from end to start"
            yield f"{{d}} is in reverse order {along}", of(lambda g, a=axis: np.flip(g, a))
            for by in (*range(1, min(size, 9)), -1):
                words = f"{{d}} is moved by {by} along axis {axis}, around the end"
                yield words, of(lambda g, a=axis, by=by: np.roll(g, by, a))
            for by in (1, -1):
                moved = f"one step {'late' if by > 0 else 'early'}"
                yield f"{{d}} is {moved} along axis {axis}", of(lambda g, a=axis, by=by: shifted(g, by, a))
            yield f"{{d}} is averaged over axis {axis}", of(lambda g, a=axis: averaged(g, a))
        for other, leaf in enumerate(self.layout.active):
            if other != place and self.draws[0].wanted[other].shape == shape:
                yield f"{{d}} is the gradient of {leaf}", lambda k, p=other: self.draws[k].wanted[p]

    def identities(self, place: int) -> Iterator[Explanation]:
        """The cotangent as it came: what a function leaves out has a better name if it has any."""
        wanted = [draw.wanted[place] for draw in self.draws]
        for number, out in enumerate(self.outputs):
            if math.prod(out) == wanted[0].size and wanted[0].ndim:
                reshaped = "" if out == wanted[0].shape else ", only reshaped"
                words = f"{{d}} is the cotangent of {self._output(number)}{reshaped}: the derivative of the function is left out"
                error = lambda k, n=number: self.draws[k].point.w[n].reshape(wanted[k].shape) - wanted[k]
                yield Explanation(error, False, lambda _: 500, lambda _, w=words: w, True)

    def _other_reductions(self, place: int, number: int) -> Iterator[Mistake]:
        """The gradient of a maximum, a minimum, a sum or a mean over an axis that the output has not."""
        shape, out = self.draws[0].wanted[place].shape, self.outputs[number]
        for axis in range(len(shape)):
            if shape[:axis] + shape[axis + 1 :] != out or shape[axis] < 2:
                continue
            for name, share in REDUCTIONS.items():

                def returned(k, axis=axis, share=share):
                    point = self.draws[k].point
                    return np.expand_dims(point.w[number], axis) * share(point.active[place], axis)

                yield f"{{d}} is the gradient of the {name} over axis {axis}", returned

    def _output(self, number: int) -> str:
        return "the output" if len(self.outputs) == 1 else f"output {number}"

    # ---- a factor too many, or one that is missing ----

    def _with_factors(self, place: int) -> Iterator[Mistake]:
        """An argument or an output too often or too rarely as a factor of every entry."""
        shape = self.draws[0].wanted[place].shape
        values = [(name, lambda k, p=p: self.draws[k].point.active[p]) for p, name in enumerate(self.layout.active)] + [
            (self._output(n), lambda k, n=n: self.draws[k].values[n]) for n in range(len(self.outputs))
        ]
        for name, value in values:
            if not shape or aligned(np.asarray(value(0)), shape) is None:
                continue
            factor = lambda k, value=value: aligned(np.asarray(value(k), np.float64), shape)
            for words, join in (("multiplied", np.multiply), ("divided", np.divide)):
                yield (
                    f"{{d}} is {words} by {name} once too often",
                    lambda k, f=factor, j=join: joined(j, self.draws[k].wanted[place], f(k)),
                )

    # ---- mistakes that are the gradient of something else ----

    def _from_others(self, place: int) -> Iterator[Mistake]:
        shape = self.draws[0].wanted[place].shape
        for words, change in self._cotangents():
            yield words, lambda k, w=words, c=change: self._for_cotangents(w, k, c)[place]
        for axis, size in enumerate(shape):
            if size > 1:
                words = f"{{d}} runs through axis {axis} in the wrong direction"
                turn = lambda point, axis=axis: [np.flip(w, axis) if w.shape == shape else w for w in point.w]
                yield (
                    words,
                    lambda k, w=words, t=turn, a=axis: np.flip(self._for_cotangents(f"{w} {shape}", k, t)[place], a),
                )
        yield from self._elsewhere(place)
        if shape in self.outputs and math.prod(shape) <= _DIAGONAL:
            words = "{d} has the diagonal of the Jacobian alone: what an entry does to the others is missing"
            yield words, lambda k: self._diagonal(k, place)

    def _diagonal(self, k: int, place: int) -> np.ndarray:
        """w[i] dy[i]/dx[i]"""
        draw, shape = self.draws[k], self.draws[k].wanted[place].shape
        number, found = self.outputs.index(shape), np.zeros(math.prod(shape))
        for i in range(found.size):
            only = [
                w * (np.arange(w.size) == i).reshape(w.shape) if n == number else 0 * w
                for n, w in enumerate(draw.point.w)
            ]
            found[i] = self._for_cotangents(f"entry {i}", k, lambda _, only=only: only)[place].ravel()[i]
        return found.reshape(shape)

    def _cotangents(self) -> Iterator[tuple[str, Callable[[Point], list[np.ndarray]]]]:
        """Mistakes that are the gradient for other cotangents than those given."""
        each = lambda change: lambda point: [change(w) for w in point.w]
        yield "{d} does not depend on the cotangent: it is the gradient for a cotangent of ones", each(np.ones_like)
        yield "{d} has the cotangent squared", each(np.square)
        yield "{d} has the absolute value of the cotangent: its sign is lost", each(np.abs)
        yield "{d} has the sign of the cotangent in place of the cotangent", each(np.sign)
        for k, shape in enumerate(self.outputs):
            yield from self._swapped(k, shape)
            if len(self.outputs) > 1:
                yield f"the cotangent of output {k} is missing in {{d}}", _changing(k, lambda w: 0 * w)
        for k in range(len(self.outputs)):
            yield from self._repeated(k)
        for k, shape in enumerate(self.outputs):
            output = self._output(k)
            for axis, size in enumerate(shape):
                if size > 1:
                    yield from _along(k, output, axis, size)
            for called, slope in FUNCTIONS.items():
                words = f"{{d}} is the gradient of {called} of {output}"
                yield (
                    words,
                    lambda point, k=k, f=slope: [
                        w * f(self._value(point, k)) if other == k else w for other, w in enumerate(point.w)
                    ],
                )

    def _value(self, point: Point, k: int) -> np.ndarray:
        return next(draw.values[k] for draw in self.draws if draw.point is point)

    def _swapped(self, k: int, shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[[Point], list[np.ndarray]]]]:
        for other in range(k):
            if self.outputs[other] != shape and () not in (self.outputs[other], shape):
                continue

            def swapped(point, other=other):
                pair = {k: other, other: k}
                own = [point.w[pair.get(i, i)] for i in range(len(point.w))]
                fit = lambda w, like: w if w.shape == like else np.broadcast_to(np.sum(w), like)
                return [fit(w, like) for w, like in zip(own, self.outputs, strict=True)]

            yield f"{{d}} has the cotangents of outputs {other} and {k} swapped", swapped

    def _repeated(self, k: int) -> Iterator[tuple[str, Callable[[Point], list[np.ndarray]]]]:
        """Indices that occur more than once, where one occurrence overwrites the others."""
        shape = self.outputs[k]
        for name, x in self._fixed():
            flat = x.ravel()
            if x.shape != shape[: x.ndim] or len(np.unique(flat)) == flat.size or x.dtype == np.bool_:
                continue
            for called, order in (("last", -1), ("first", 1)):
                kept = np.zeros(flat.size, bool)
                kept[np.arange(flat.size)[::order][np.unique(flat[::order], return_index=True)[1]]] = True
                keep = kept.reshape(x.shape + (1,) * (len(shape) - x.ndim))
                words = f"of equal entries in {name} only the {called} counts in {{d}}: it overwrites the others"
                yield words, _changing(k, lambda w, keep=keep: w * keep)

    def _elsewhere(self, place: int) -> Iterator[Mistake]:
        """Residuals that are not what they should be: the derivative of something else than the argument."""
        leaf, shape = self.layout.active[place], self.draws[0].wanted[place].shape
        for n, value in enumerate(self.draws[0].values):
            if value.shape == shape:
                words = f"{{d}} is the derivative at {self._output(n)} in place of {leaf}"
                other = lambda draw, n=n: draw.values[n].astype(np.float64)
                yield words, lambda k, w=words, o=other: self._at(w, k, place, o)[place]
        for p, name in enumerate(self.layout.active):
            if p != place and self.draws[0].wanted[p].shape == shape:
                words = f"{{d}} is the derivative at {name} in place of {leaf}"
                other = lambda draw, p=p: draw.point.active[p]
                yield words, lambda k, w=words, o=other: self._at(w, k, place, o)[place]
        for p, name in enumerate(self.layout.active):
            for how, turn in turned(self.draws[0].point.active[p], p == place):
                words = f"{{d}} is the derivative with {name} {how}"
                other = lambda draw, p=p, turn=turn: turn(draw.point.active[p])
                yield words, lambda k, w=words, o=other, p=p: self._at(w, k, p, o)[place]
        for name, mask in self._fixed():
            if mask.dtype == np.bool_:
                for how, turn in (("inverted", np.logical_not), ("forgotten: True everywhere", np.ones_like)):
                    words = f"{{d}} is the gradient with the mask {name} {how}"
                    yield words, lambda k, w=words, n=name, t=turn: self._with_fixed(w, k, n, t)[place]

    # ---- gradients of something else ----

    def _gradients(self, what: str, k: int, run: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
        """All gradients that a mistake makes at a draw; not finite, so that they explain nothing, if no time is left."""
        if (what, k) not in self._known:
            if self._budget.is_spent:
                return [np.full_like(g, np.nan) for g in self.draws[k].wanted]
            with self._budget.spending():
                self._known[what, k] = run()
        return self._known[what, k]

    def _for_cotangents(self, what: str, k: int, change: Callable[[Point], list[np.ndarray]]) -> list[np.ndarray]:
        point = self.draws[k].point
        return self._gradients(what, k, lambda: Draw.at(dataclasses.replace(point, w=change(point)), self.truth).wanted)

    def _at(self, what: str, k: int, place: int, other: Callable[[Draw], np.ndarray]) -> list[np.ndarray]:
        """The gradients where one argument is another."""
        draw = self.draws[k]

        def run():
            active = [other(draw) if p == place else own for p, own in enumerate(draw.point.active)]
            return self.truth.near(draw.point, active).arrays[len(draw.values) :]

        return self._gradients(what, k, run)

    def _with_fixed(self, what: str, k: int, name: str, change: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
        point = self.draws[k].point
        names = [leaf.path for leaf in self.layout.leaves if not leaf.active]
        leaves, arrays = point.fixed
        leaves = [change(np.asarray(x)) if own == name else x for own, x in zip(names, leaves, strict=True)]
        return self._gradients(
            what, k, lambda: Draw.at(dataclasses.replace(point, fixed=(leaves, arrays)), self.truth).wanted
        )


def _changing(k: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Point], list[np.ndarray]]:
    """The cotangents with that of output k changed."""
    return lambda point: [change(w) if other == k else w for other, w in enumerate(point.w)]


def _along(k: int, output: str, axis: int, size: int) -> Iterator[tuple[str, Callable[[Point], list[np.ndarray]]]]:
    """Mistakes with the cotangent along one axis of output k."""
    masked = lambda keep: _changing(k, lambda w: w * keep.reshape([-1 if a == axis else 1 for a in range(w.ndim)]))
    part, places = f"of the {size} along axis {axis} of {output}", np.arange(size)
    for index, called in ((0, "first"), (size - 1, "last")):
        yield f"only the {called} {part} counts in {{d}}: a sum is missing", masked(places == index)
        yield f"the {called} {part} is missing in {{d}}", masked(places != index)
    yield f"the cotangent is averaged over axis {axis} of {output} in {{d}}", _changing(k, lambda w: averaged(w, axis))
    yield (
        f"the cotangent is in reverse order along axis {axis} of {output} in {{d}}",
        _changing(k, lambda w: np.flip(w, axis)),
    )
    for every in range(2, min(size, 5)):
        if size % every == 0:
            for start, called in ((0, "first"), (every - 1, "last")):
                words = f"only the {called} of every {every} {part} counts in {{d}}: a sum is missing"
                yield words, masked(places % every == start)
        if size % every == 0 or size // every * every == size:
            for rows in {every, size // every}:
                order = places.reshape(rows, -1).T.ravel()
                wrong, right = f"{rows} times {size // rows}", f"{size // rows} times {rows}"
                words = f"{{d}} has the cotangent along axis {axis} of {output} in the order of {wrong}, not of {right}"
                yield words, _changing(k, lambda w, order=order: np.take(w, order, axis))
    for by in (1, -1, 2, -2, 3, -3):
        if abs(by) < size:
            words = f"the cotangent is moved by {by} along axis {axis} of {output} in {{d}}"
            yield words, _changing(k, lambda w, by=by: np.roll(w, by, axis))

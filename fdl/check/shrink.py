"""The smallest arguments at which a backward is wrong for the same reason, and a pytest file that shows it.

    shrunk = fdl.check.shrink(candidate, x, w, reference=plain)
    shrunk = fdl.check.shrink(model, x)                                       a whole Layer, as fdl.check.layer takes it
    shrunk.args      print(shrunk.report)      shrunk.save("test_wrong_gradient.py")

Axes are cut to one, two or three entries, those of equal size together (a size has to fit wherever it occurs); leading axes
of size one are dropped; numbers become zeros, ones, small whole numbers, or few digits; and one entry of the output is
enough if the gradient for it is wrong. A step is taken if a check still says "wrong" for the same reason: the same quantity
of the same leaf, with the same diagnosis but for the numbers in it, and of no other leaf than before.

The file has to pass once the candidate is repaired. So a check also has to say "right" of a right candidate at the smaller
arguments: of the reference itself, or where there is none of the candidate differentiated by JAX instead of by its own rules,
if that is right at the arguments that were given. Without a reference other leaves may be undecided where this one is
right, so the file then asks for the accused leaf alone.

A check takes a second and compiling most of it. So what to try is chosen by one run of candidate and right candidate, whose
relative error must not fall below a tenth of what it was, and checks only confirm. What one run does not show (an error that is
raised, a mode that fails alone, a Layer) is searched by checks alone, in fewer steps.
"""

import dataclasses
import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check.evaluate import WIDE, Evaluation, Point, native_precision
from fdl.check.gradients import names_of
from fdl.check.layer import autodiff_of, report_on
from fdl.check.modes import MODES
from fdl.check.primal import without_rules
from fdl.check.report import RIGHT, WRONG, Failure, Report
from fdl.check.subject import Differentiated, Layout, is_constant, layout_of, signed
from fdl.check.testfile import Call, written
from fdl.check.trial import Outputs
from fdl.errors import refuse, shown
from fdl.files import write_whole
from fdl.layer import Layer
from fdl.op import Op

_SECONDS = 20.0
_FOR_SHAPES = 0.6  # of them
_CHECKS = 40
_EVALUATIONS = 3000
_KEPT = 0.1  # of the relative error
_ENTRIES = 64  # leaves up to this size are simplified entry by entry
_OUTPUT_ENTRIES = 3  # tried as the only one
_AS_ALWAYS = ("float64", "eager", "central differences", "complex step")  # modes in which a wrong formula is wrong


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """The smallest failing case that was found. `source` is the text of a pytest file that fails for the same reason.

    entry: the entry of the output that is enough, (leaf, index), or None for all of it. standalone: the file needs no editing.

        >>> wrong = fdl.Op(lambda x: x**2, lambda x: (x * x, x), lambda x, dy: (-2 * x * dy,), name="square")
        >>> fdl.check.shrink(wrong, jnp.float32([3, 1])).save("test_square.py").name
        'test_square.py'
    """

    args: tuple
    options: Mapping[str, Any]
    report: Report
    sentence: str
    source: str
    standalone: bool
    entry: tuple[int, tuple[int, ...]] | None = None

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the file, all of it or nothing, and makes the folder it is in. Errors: OSError."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.source)
        return path


def shrink(
    candidate: Any,
    *args: Any,
    reference: Callable | None = None,
    options: Mapping[str, Any] | None = None,
    modes: str = "quick",
    key: Any = 0,
) -> Shrunk:
    """Shrinks a failing case: the arguments of `fdl.check.gradients`, for which its verdict is "wrong".

    Of a Layer: the arguments of `fdl.check.layer`; target, loss and train may be options, too.

    It takes up to 20 seconds, and returns the best that was found until then. Errors: InputError if the verdict is not "wrong"
    (then there is nothing to shrink), and what `fdl.check.gradients` raises.

        >>> wrong = fdl.Op(lambda x: x**2, lambda x: (x * x, x), lambda x, dy: (-2 * x * dy,), name="square")
        >>> fdl.check.shrink(wrong, jnp.float32([[3, 1, 4], [1, 5, 9]])).args[0].shape
        ()
    """
    report = report_on(candidate, *args, reference=reference, options=options, modes=modes, key=key)
    if report.verdict != WRONG:
        refuse(
            "check.shrink",
            f"there is nothing to shrink: the verdict is {report.verdict}, wanted wrong ({report.sentence})",
        )
    reason = _Reason.of(_accused(report))
    enough = next(name for name in MODES if reason.mode in ("", *MODES[name]) or name == modes)
    search = _Search(_Checked(candidate, reference, dict(options or {}), enough, key), _Case.of(args), report, reason)
    search.run()
    return search.result()


def entry(function: Callable, leaf: int, index: tuple[int, ...]) -> Callable:
    """The function that returns one entry of one leaf of what `function` returns."""

    @functools.wraps(signed(function))
    def one(*args: Any, **options: Any) -> Any:
        return jax.tree.leaves(function(*args, **options))[leaf][index]

    return one


# ---- cases ----


@dataclasses.dataclass(frozen=True, eq=False)
class _Case:
    """Arguments, as the leaves of a tree, and the entry of the output that counts (None: all)."""

    structure: Any
    leaves: tuple[Any, ...]  # numpy arrays, keys, and constants
    sizes: tuple[tuple[int, ...], ...]  # the shapes at the beginning: axes that had the same size may be linked
    entry: tuple[int, tuple[int, ...]] | None = None

    @staticmethod
    def of(args: tuple) -> "_Case":
        leaves, structure = jax.tree.flatten(args, is_leaf=lambda x: x is None)
        leaves = tuple(np.asarray(x) if _is_numeric(x) else x for x in leaves)
        return _Case(structure, leaves, tuple(np.shape(x) if _is_numeric(x) else () for x in leaves))

    @property
    def args(self) -> tuple:
        # what has 64 bits is kept: jnp would cut it without x64
        as_jax = [jnp.asarray(x) if _is_numeric(x) and x.dtype.itemsize < 8 else x for x in self.leaves]
        return jax.tree.unflatten(self.structure, as_jax)

    @property
    def numbers(self) -> int:
        return sum(x.size for x in self.leaves if _is_numeric(x))

    @property
    def axes(self) -> list["_Axis"]:
        return [
            _Axis(i, axis, size, x.shape[axis])
            for i, (x, sizes) in enumerate(zip(self.leaves, self.sizes, strict=True))
            for axis, size in enumerate(sizes)
        ]

    def without_first_axis(self, places: tuple[int, ...]) -> "_Case":
        sizes = tuple(own[1:] if i in places else own for i, own in enumerate(self.sizes))
        return dataclasses.replace(self.with_leaves({i: self.leaves[i][0] for i in places}), sizes=sizes)

    def with_leaves(self, changed: Mapping[int, Any]) -> "_Case":
        return dataclasses.replace(self, leaves=tuple(changed.get(i, x) for i, x in enumerate(self.leaves)))


class _Axis(NamedTuple):
    """An axis of a leaf: its size at the beginning, and now."""

    leaf: int
    axis: int
    first: int
    size: int


def _is_numeric(x: Any) -> bool:
    return not is_constant(x) and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _is_float(x: Any) -> bool:
    return _is_numeric(x) and bool(jnp.issubdtype(x.dtype, jnp.floating))


# ---- the reason ----


@dataclasses.dataclass(frozen=True)
class _Reason:
    """Why a check says "wrong", without the numbers."""

    quantity: str
    leaf: str
    mode: str  # empty if it is wrong however it is run
    said: str  # the diagnosis, or what the wrong array looks like, or what was raised

    @staticmethod
    def of(failure: Failure) -> "_Reason":
        mode = "" if failure.mode in _AS_ALWAYS else failure.mode
        return _Reason(failure.quantity, failure.leaf, mode, _said(failure))

    @property
    def rounding(self) -> bool:
        return self.said == "rounding error"

    def holds(self, report: Report) -> bool:
        return any(map(self.is_that_of, report.failures))

    def is_refuted_by(self, report: Report, *, alone: bool) -> bool:
        """Whether a report says "right" of what was wrong; alone: whatever it says of the rest."""
        if not alone:
            return report.ok
        if self.quantity == "error":
            return bool(report.comparisons) and all(failure.quantity != "error" for failure in report.failures)
        return any(
            (leaf.quantity, leaf.leaf, leaf.verdict) == (self.quantity, self.leaf, RIGHT) for leaf in report.leaves
        )

    def is_that_of(self, failure: Failure) -> bool:
        other = _Reason.of(failure)
        # where nothing is known but the place, anything finite will do
        if not self.said and not other.rounding and other.said != "not finite":
            other = dataclasses.replace(other, said="")
        return self == other


def _accused(report: Report) -> Failure:
    """The failure that is shrunk: a gradient first, one that is wrong in every mode first."""
    return min(report.failures, key=lambda f: (f.quantity != "gradient", f.mode not in _AS_ALWAYS))


def _said(failure: Failure) -> str:
    if failure.quantity == "error":
        raised = re.match(r"raised \w+", failure.message)
        return raised[0] if raised else _without_numbers(re.sub(r"\[.*?\]", "", failure.message))
    if "rounding error" in failure.message:
        return "rounding error"
    if failure.diagnosis:
        return _without_numbers(re.sub(r" \([\d.]+ % of the error\)", "", failure.diagnosis))
    what = failure.pattern.partition(", ")[0]
    return _without_numbers(what) if re.match("not finite|zero|transposed|factor", what) else ""


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d*)?(e[+-]?\d+)?", "#", text)


# ---- checks and single runs ----


@dataclasses.dataclass(frozen=True, eq=False)
class _Checked:
    """What is checked, and how."""

    candidate: Callable
    reference: Callable | None
    options: dict[str, Any]
    modes: str
    key: Any

    @property
    def plain(self) -> Callable | None:
        """What the candidate is held against, as a function; None where central differences decide, and of a Layer."""
        judged = self.candidate if self.reference is None else self.reference
        return judged.equation if isinstance(judged, Op) else self.reference

    @property
    def numerical(self) -> bool:
        return self.plain is None and not isinstance(self.candidate, Layer)

    @property
    def right_ones(self) -> list[Any]:
        """What should be right in the candidate's place."""
        if isinstance(self.candidate, Layer):
            return [autodiff_of(self.candidate)]
        return [without_rules(self.candidate) if self.plain is None else self.plain]

    def report(self, case: _Case, candidate: Callable, modes: str) -> Report:
        reference = self.plain if case.entry else self.reference
        if case.entry:
            candidate = entry(candidate, *case.entry)
            reference = reference and entry(reference, *case.entry)
        return report_on(candidate, *case.args, reference=reference, options=self.options, modes=modes, key=self.key)

    def layout(self, args: tuple) -> Layout:
        return layout_of("check.shrink", names_of(self.candidate, self.reference, args), args)


class _Gauge:
    """The relative error of one array at one point: candidate against reference, without a verdict."""

    def __init__(self, checked: _Checked, reason: _Reason, args: tuple, plain: Callable):
        self.reason, self.layout = reason, checked.layout(args)
        self._reference = Differentiated(plain, self.layout, checked.options)
        self._native = native_precision(self.layout.split(args)[0])
        # a rounding error is there in the precision of the arguments alone
        judged = self._native if reason.rounding else WIDE
        self._truth = Evaluation(self._reference, WIDE, quick=True)
        self._run = Evaluation(Differentiated(checked.candidate, self.layout, checked.options), judged, quick=True)
        self._outputs: dict[tuple, Outputs] = {}  # by the shapes of the arguments

    def __call__(self, args: tuple) -> float:
        """nan where it cannot be told."""
        active, fixed = self.layout.split(args)
        active, fixed = [np.asarray(x) for x in active], (fixed, {})
        outputs = self._outputs_at(active, fixed)
        rng = np.random.default_rng(0)
        shapes = zip(outputs.shapes[: outputs.pulled], outputs.dtypes, strict=False)
        w = [np.asarray(rng.standard_normal(shape)).astype(dtype).astype(np.float64) for shape, dtype in shapes]
        point = Point(active, fixed, w)
        place = self._place(outputs)
        got, wanted = self._run(point).arrays[place], self._truth(point).arrays[place]
        with np.errstate(all="ignore"):
            known = np.isfinite(wanted)
            if not np.isfinite(got[known]).all():
                return np.inf
            error, size = (
                np.max(x[known], initial=0.0) for x in (np.abs(got - wanted), np.maximum(abs(got), abs(wanted)))
            )
            return float(error / size) if size > 0 else 0.0

    def _outputs_at(self, active: list, fixed: Any) -> Outputs:
        shapes = tuple(np.shape(x) for x in jax.tree.leaves((active, fixed)))
        if shapes not in self._outputs:
            with self._native.scope():
                self._outputs[shapes] = Outputs.of(self._reference, active, fixed, ("output", ""))
        return self._outputs[shapes]

    def _place(self, outputs: Outputs) -> int:
        if self.reason.quantity == "value":
            return outputs.names.index(self.reason.leaf)
        return len(outputs.names) + self.layout.active.index(self.reason.leaf)


# ---- the search ----


class _Search:
    """Goes from case to smaller case. `best` is the last one that a check confirmed."""

    def __init__(self, checked: _Checked, case: _Case, report: Report, reason: _Reason):
        self.checked, self.first, self.best, self.report, self.reason = checked, case, case, report, reason
        self.evaluations, self.checks = 0, 1
        self._leaves = {(failure.quantity, failure.leaf) for failure in report.failures}
        self._start = time.monotonic()
        # without a reference any leaf may be undecided while that of the candidate is right
        self.alone = checked.numerical
        self.right = next((one for one in checked.right_ones if self._is_right(one, case)), None)
        if self.right is None and not self.alone:
            self.alone = True
            self.right = next((one for one in checked.right_ones if self._is_right(one, case)), None)
        self._gauge, self._enough = self._made_gauge()

    def _is_right(self, one: Callable, case: _Case) -> bool:
        modes = self.checked.modes if self.reason.mode else "quick"
        try:
            return self.reason.is_refuted_by(self.checked.report(case, one, modes), alone=self.alone)
        except Exception:  # a candidate that cannot be traced has no derivative by JAX
            return False

    def _made_gauge(self) -> tuple[_Gauge | None, float]:
        if isinstance(self.checked.candidate, Layer) or self.reason.quantity not in ("gradient", "value"):
            return None, 0.0
        plain = self.checked.plain or self.right
        if plain is None or self.reason.mode:
            return None, 0.0
        try:
            gauge = _Gauge(self.checked, self.reason, self.best.args, plain)
            size = gauge(self.best.args)
        except Exception:  # what it cannot run is left to the checks
            return None, 0.0
        return (gauge, _KEPT * size) if size > 0 else (None, 0.0)

    @property
    def over(self) -> bool:
        return self.checks >= _CHECKS or self.evaluations >= _EVALUATIONS or self._spent > 1

    @property
    def _spent(self) -> float:
        return (time.monotonic() - self._start) / _SECONDS

    def run(self) -> None:
        self._shapes()
        self._values()
        self._output()

    def seems_wrong(self, case: _Case) -> bool:
        """Whether a check is worth its time."""
        if self.over:
            return False
        if self._gauge is None:
            return True
        self.evaluations += 1
        try:
            return self._gauge(case.args) >= self._enough
        except Exception:  # shapes that do not fit, an index that is out of range: no case
            return False

    def take(self, case: _Case) -> bool:
        """Makes it the best if a check finds the candidate wrong for the same reason, and a right one right."""
        if not self.seems_wrong(case):
            return False
        self.checks += 1
        try:
            report = self.checked.report(case, self.checked.candidate, self.checked.modes)
        except Exception:  # the reference does not run at these arguments
            return False
        others = {(failure.quantity, failure.leaf) for failure in report.failures} - self._leaves
        if not self.reason.holds(report) or others or not (self.right is None or self._is_right(self.right, case)):
            return False
        self.best, self.report = case, report
        return True

    def _shapes(self) -> None:
        seen: list = []
        smaller = True
        while smaller:
            smaller = False
            for (*what, how), case in _cuts(self.best, self._worst()):
                if self.over or self._spent > _FOR_SHAPES:
                    return
                # what a check has refused is refused whichever entries are kept
                if what in seen or (*what, how) in seen:
                    continue
                checks = self.checks
                if smaller := self.take(case):
                    break
                seen.append(what if self.checks > checks else (*what, how))

    def _worst(self) -> tuple[int, tuple[int, ...]]:
        """(leaf, index) of the worst entry of the gradient; (-1, ()) if it is not one of an argument."""
        failure = next(f for f in self.report.failures if self.reason.is_that_of(f))
        # the input of a Layer is its first argument, and the parameters are none
        paths = ["x"] if isinstance(self.checked.candidate, Layer) else self._paths()
        return (paths.index(failure.leaf), failure.index) if failure.leaf in paths else (-1, ())

    def _paths(self) -> list[str]:
        return [leaf.path for leaf in self.checked.layout(self.best.args).leaves]

    def _values(self) -> None:
        rounded = {i: _rounded(x, 1) for i, x in enumerate(self.best.leaves) if _is_float(x)}
        if not all(_same(x, self.best.leaves[i]) for i, x in rounded.items()):
            self.take(self.best.with_leaves(rounded))  # all at once, in case that time runs out
        for place, x in enumerate(self.best.leaves):
            if not _is_numeric(x) or not x.size:
                continue
            for change in _simpler(x):
                simple = change(x)
                if _same(simple, x) or self.take(self.best.with_leaves({place: simple})):
                    break
            if self._gauge is not None and 1 < x.size <= _ENTRIES:
                self.take(self._entry_by_entry(place))

    def _entry_by_entry(self, place: int) -> _Case:
        """Halves, quarters, ... and single entries made simple, as long as it seems wrong."""
        case = self.best
        size = case.leaves[place].size
        pieces = 2
        while pieces <= 2 * size:
            for piece in np.array_split(np.arange(size), min(pieces, size)):
                for change in _simpler(case.leaves[place]):
                    x = case.leaves[place]
                    simple = x.copy()
                    simple.flat[piece] = change(x.ravel()[piece])
                    if _same(simple, x):
                        break
                    if self.seems_wrong(smaller := case.with_leaves({place: simple})):
                        case = smaller
                        break
            pieces *= 2
        return case

    def _output(self) -> None:
        """One entry of the output, if it is enough."""
        if isinstance(self.checked.candidate, Layer):
            return
        try:
            function = functools.partial(self.checked.candidate, **self.checked.options)
            leaves = jax.tree.leaves(jax.eval_shape(lambda: function(*self.best.args)))
        except Exception:
            return
        if sum(x.size for x in leaves) == 1:
            return
        floating = [(i, x.shape) for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]
        entries = ((i, index) for i, shape in floating for index in np.ndindex(*shape))
        for _, chosen in zip(range(_OUTPUT_ENTRIES), entries, strict=False):
            case = dataclasses.replace(self.best, entry=chosen)
            gauge, self._gauge = self._gauge, None  # it looks at all outputs
            found = self.take(case)
            self._gauge = gauge
            if found:
                return

    def result(self) -> Shrunk:
        checked, case = self.checked, self.best
        args = case.args
        sentence = (
            f"shrunk from {_summary(self.first)} to {_summary(case)}: {self.first.numbers:,} numbers became "
            f"{case.numbers:,}, in {self.checks} checks and {self.evaluations} single runs"
        )
        failure = next(f for f in self.report.failures if self.reason.is_that_of(f))
        story = [
            f"{part}." for part in (failure.diagnosis, f"S{sentence[1:]}", f"Judged by {self.report.reference}") if part
        ]
        if self.alone:
            story.append("Other leaves may be undecided: the test asks for this one alone.")
        if self.right is None:
            story.append("Whether it passes once the candidate is repaired could not be tried.")
        layer = isinstance(checked.candidate, Layer)
        given = ("x", "target", "loss")[: len(args)] if layer else names_of(checked.candidate, checked.reference, args)
        call = Call(checked.candidate, checked.reference, given, args, checked.options, checked.modes, checked.key)
        alone = (self.reason.quantity, self.reason.leaf) if self.alone else None
        call = dataclasses.replace(call, entry=case.entry, alone=alone)
        source, standalone = written(call, f"A wrong gradient: {self.report.sentence}.", story)
        return Shrunk(args, checked.options, self.report, sentence, source, standalone, case.entry)


def _summary(case: _Case) -> str:
    leaves = [shown(x) for x in case.leaves if not is_constant(x)]
    return ", ".join(leaves[:4]) + (f" and {len(leaves) - 4} more" if len(leaves) > 4 else "")


# ---- smaller shapes ----


def _cuts(case: _Case, worst: tuple[int, tuple[int, ...]]) -> Iterator[tuple[tuple, _Case]]:
    """(what is done and how, the case): all axes cut; linked ones, large ones first; then leading axes of size one dropped."""
    for kept in (1, 2, 3):
        if any(axis.size > kept for axis in case.axes):
            yield ("all", kept, ""), _all_cut(case, kept)
    for chosen, size in _linked(case.axes):
        for kept in sorted({1, 2, 3, size // 2} - {0}):
            for rows in _windows(size, kept, chosen, worst) if kept < size else []:
                yield (chosen, kept, rows), case.with_leaves(_cut(case, chosen, size, rows))
    flat = [i for i, x in enumerate(case.leaves) if _is_numeric(x) and x.ndim and x.shape[0] == 1]
    for chosen in dict.fromkeys([tuple(flat), *((i,) for i in flat)]):
        if chosen:
            yield (chosen, "dropped", [case.leaves[i].shape for i in chosen]), case.without_first_axis(chosen)


def _all_cut(case: _Case, kept: int) -> _Case:
    for first in sorted({axis.first for axis in case.axes}, reverse=True):
        for size in {axis.size for axis in case.axes if axis.first == first and axis.size > kept}:
            chosen = tuple(axis for axis in case.axes if (axis.first, axis.size) == (first, size))
            case = case.with_leaves(_cut(case, chosen, size, range(kept)))
    return case


def _linked(axes: list[_Axis]) -> Iterator[tuple[tuple[_Axis, ...], int]]:
    """(axes that may have to be cut together, their size): those of one size, with the multiples of it, or one or two alone."""
    groups = sorted({(axis.size, axis.first) for axis in axes if axis.size > 1}, reverse=True)
    alike = {(size, first): tuple(a for a in axes if (a.size, a.first) == (size, first)) for size, first in groups}
    yield from ((own, size) for (size, _), own in alike.items())
    for (size, first), own in alike.items():
        multiples = tuple(a for a in axes if a.first > first and a.first * size == a.size * first)
        if multiples:
            yield own + multiples, size
    for (size, _), own in alike.items():
        if len(own) > 1:
            yield from (((axis,), size) for axis in own)
        if 2 < len(own) <= 4:
            yield from (((one, other), size) for k, one in enumerate(own) for other in own[:k])


def _windows(size: int, kept: int, chosen: tuple[_Axis, ...], worst: tuple[int, tuple[int, ...]]) -> list[range]:
    """Which entries are kept: around the worst one, the first, the last."""
    leaf, index = worst
    starts = [min(index[a.axis] % size, size - kept) for a in chosen if a.leaf == leaf and a.axis < len(index)]
    return [range(start, start + kept) for start in dict.fromkeys([*starts, 0, size - kept])]


def _cut(case: _Case, chosen: tuple[_Axis, ...], size: int, rows: range) -> dict[int, Any]:
    """The leaves that change. Whole numbers that fit the axis may be indices into it, and have to fit it again."""
    changed: dict[int, Any] = {}
    for i, axis, _, own in chosen:
        # of a multiple, as the gates of a recurrent cell, the same part of every block
        index = [block * size + row for block in range(own // size) for row in rows]
        changed[i] = np.take(changed.get(i, case.leaves[i]), index, axis)
    for i, x in enumerate(case.leaves):
        if _is_numeric(x) and x.dtype.kind in "iu" and x.size and len(rows) <= x.max() < size:
            x = changed.get(i, x)
            inside = np.clip(x, rows.start, rows.stop - 1) - rows.start
            changed[i] = np.where(x < 0, x, inside).astype(x.dtype)
    return changed


# ---- simpler numbers ----


def _digits(x: np.ndarray, count: int) -> np.ndarray:
    """Rounded to so many significant digits, in its own dtype."""
    return np.asarray([float(f"{float(v):.{count - 1}e}") for v in x.flat]).reshape(x.shape).astype(x.dtype)


def _rounded(x: np.ndarray, decimals: int) -> np.ndarray:
    wide = x.astype(np.float64)
    return np.where(np.isfinite(wide), np.round(wide, decimals), wide).astype(x.dtype)


# from the simplest on
_SIMPLER: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    np.zeros_like,
    np.ones_like,
    lambda x: _rounded(x, 0),
    lambda x: _rounded(x, 1),
    lambda x: _digits(x, 1),
    lambda x: _digits(x, 2),
)


def _simpler(x: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], ...]:
    if _is_float(x):
        return _SIMPLER
    return _SIMPLER[:2] if x.dtype == bool else _SIMPLER[:1]  # a one may be out of range where zero is not


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    return x.tobytes() == y.tobytes()

"""Running a subject: at a point, in a precision, compiled or not, and how much rounding its results carry."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check.rounding import Shaken, draw, ones, unit_roundoff, working_precision
from fdl.check.subject import Result, Subject, is_countable
from fdl.errors import is_array

DRAWS = 6  # the largest of six normal numbers is below 0.1 once in four million
DELTA = 8  # units of roundoff by which a draw shakes: more than what rounding itself does, so that it is seen above it

# what is compiled here runs a few times: compiling is the cost. Shaken cross-entropy takes 0.16 s so, else 0.26 s
_QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """Arguments in their own precision, and cotangents (float64, exact in the narrowest output dtype)."""

    active: list[np.ndarray]
    fixed: Any
    w: Any  # a list of arrays; (list, list) for second derivatives


@dataclasses.dataclass(frozen=True)
class Precision:
    """Float64 for every floating leaf (`wide`), or the precision of the arguments."""

    wide: bool
    x64: bool

    def scope(self) -> contextlib.AbstractContextManager:
        return jax.enable_x64(True) if self.x64 else contextlib.nullcontext()

    def operands(self, point: Point) -> tuple[list, Any, Any]:
        carrier = np.float64 if self.x64 else np.float32
        w = jax.tree.map(lambda x: x.astype(carrier), point.w)
        if not self.wide:
            return [jnp.asarray(x) for x in point.active], point.fixed, w
        return [_widened(x) for x in point.active], jax.tree.map(_widened, point.fixed), w


WIDE = Precision(wide=True, x64=True)


def native_precision(active: Sequence[Any]) -> Precision:
    """That of the arguments. float64 arguments need x64, whether or not the caller has it on."""
    return Precision(wide=False, x64=any(x.dtype == np.float64 for x in active))


def _widened(x: Any) -> Any:
    return jnp.asarray(np.asarray(x).astype(np.float64)) if is_array(x) and jnp.issubdtype(x.dtype, jnp.floating) else x


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What came out: the values and then the gradients as float64, their own dtypes, and the outputs that are not floating."""

    arrays: list[np.ndarray]
    dtypes: list[np.dtype]
    others: list[np.ndarray]

    @staticmethod
    def of(result: Result) -> "Outcome":
        floats = [*result.values, *result.gradients]
        return Outcome(
            [np.asarray(x).astype(np.float64) for x in floats],
            [np.dtype(x.dtype) for x in floats],
            [_plain(x) for x in result.others],
        )

    def example(self, index: int) -> "Outcome":
        """One example of a batch."""
        return Outcome([x[index] for x in self.arrays], self.dtypes, [x[index] for x in self.others])


def _plain(x: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def stacked(points: Sequence[Point]) -> Point:
    """The points as one batch; keys, state and options are those of the first."""

    def fixed(first, *rest):
        return np.stack([np.asarray(x) for x in (first, *rest)]) if is_countable(first) else first

    return Point(
        [np.stack(leaves) for leaves in zip(*(p.active for p in points), strict=True)],
        jax.tree.map(fixed, *(p.fixed for p in points)),
        jax.tree.map(lambda *w: np.stack(w), *(p.w for p in points)),
    )


class Evaluation:
    """A subject in one precision, op by op or compiled; `quick`: compiled without optimisation."""

    def __init__(self, subject: Subject, precision: Precision, *, compiled: bool = True, quick: bool = False):
        self.precision = precision
        # jit remembers functions: a new one each time, or a helper that was redefined since would not be seen
        run: Callable[..., Result] = lambda *operands: subject(*operands)  # noqa: E731
        self._run = jax.jit(run, compiler_options=_QUICK_TO_COMPILE if quick else None) if compiled else run

    def __call__(self, point: Point) -> Outcome:
        with self.precision.scope():
            return Outcome.of(self._run(*self.precision.operands(point)))


class Measured:
    """A subject in one precision, with the rounding scale of every entry of its results (see `fdl.check.rounding`)."""

    def __init__(self, subject: Subject, precision: Precision, rng: np.random.Generator):
        self.subject, self.precision = subject, precision
        self.note = ""  # why the rounding inside could not be shaken, if so
        self._rng = rng
        self._run: Callable[[Any, tuple], Result] | None = None
        self._known: dict[int, tuple[Point, Outcome, list[np.ndarray]]] = {}
        self._u: list[float] = []
        self._delta = 0.0
        self._pools: list[np.ndarray] = []

    def __call__(self, point: Point) -> Outcome:
        return self._at(point)[1]

    def scale(self, point: Point) -> list[np.ndarray]:
        """Per value and gradient: its rounding error in units of roundoff. Infinite where a draw was not finite."""
        return self._at(point)[2]

    def precisions(self, point: Point) -> list[float]:
        """Per value and gradient: the unit roundoff of the coarsest precision it was computed in."""
        self._at(point)
        return self._u

    def _at(self, point: Point) -> tuple[Point, Outcome, list[np.ndarray]]:
        if id(point) not in self._known:
            with self.precision.scope():
                outcome, scale = self._measure(self.precision.operands(point))
            self._known[id(point)] = (point, outcome, scale)
        return self._known[id(point)]

    def _measure(self, operands: tuple) -> tuple[Outcome, list[np.ndarray]]:
        carrier = np.float64 if self.precision.x64 else np.float32
        if self._run is None:
            self._run, result = self._first_run(ones(carrier), operands)
            self._u = self._working_precision(result, operands)
            self._delta = DELTA * max(self._u, default=unit_roundoff(np.float64))
            self._pools = [draw(self._rng, self._delta, carrier) for _ in range(DRAWS)]
        else:
            result = self._run(ones(carrier), operands)
        outcome = Outcome.of(result)
        shaken = [Outcome.of(self._run(pool, operands)) for pool in self._pools]
        columns = zip(outcome.arrays, *(x.arrays for x in shaken), strict=True)
        return outcome, [_scale(y, draws, self._delta) for y, *draws in columns]

    def _first_run(self, pool: Any, operands: tuple) -> tuple[Callable, Result]:
        """The best way to run that works: with rounding shaken inside, compiled, or op by op."""
        ways: list[Callable[[], Callable]] = [
            lambda: _compiled(Shaken(self.subject)),
            lambda: _shaking_inputs(_compiled(lambda _, *operands: self.subject(*operands))),
            lambda: _shaking_inputs(lambda _, operands: self.subject(*operands)),
        ]
        for way in ways[:-1]:
            try:
                run = way()
                return run, run(pool, operands)
            except Exception as error:  # whatever it is, the last way raises it again
                self.note = self.note or brief(error)
        run = ways[-1]()
        return run, run(pool, operands)

    def _working_precision(self, result: Result, operands: tuple) -> list[float]:
        floats = [*result.values, *result.gradients]
        own = [unit_roundoff(x.dtype) for x in floats]
        try:
            found = working_precision(lambda *operands: self.subject(*operands)._replace(others=[]), *operands)
        except Exception:  # a function that cannot be traced
            return own
        return [u or v for u, v in zip(found, own, strict=True)]


def _compiled(run: Callable) -> Callable:
    compiled = jax.jit(lambda pool, *operands: run(pool, *operands), compiler_options=_QUICK_TO_COMPILE)
    return lambda pool, operands: compiled(pool, *operands)


def _shaking_inputs(run: Callable) -> Callable:
    """The stand-in where the operations inside cannot be shaken: the arguments and cotangents are."""

    def shaken(pool, operands):
        active, fixed, w = operands
        taken = iter(range(0, 1 << 30, 977))

        def shake(x):
            return (x * np.resize(np.roll(pool, -next(taken)), np.shape(x))).astype(x.dtype)

        return run(pool, (jax.tree.map(shake, active), fixed, jax.tree.map(shake, w)))

    return shaken


def _scale(y: np.ndarray, draws: list[np.ndarray], delta: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        moved = np.max([np.abs(x - y) for x in draws], axis=0) / delta
    # the result itself is rounded
    return np.where(np.isfinite(moved), np.maximum(moved, np.abs(y)), np.inf)


def brief(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__

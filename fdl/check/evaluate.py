"""Running a subject: at a point, in a precision, compiled or not, and how much rounding its results carry."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.check.rounding import POOL, Shaken, factors, ones, unit_roundoff, working_precision
from fdl.check.subject import Result, Subject, is_countable
from fdl.errors import is_array

DRAWS = 4
MORE_DRAWS = 32  # before a candidate is accused: four draws can all be small, and miss that a relu switches
DELTA = 8  # units of roundoff by which a draw shakes: more than what rounding itself does, so that it is seen above it

# What is compiled here runs a few times: compiling is the cost. Seconds on CPU for the equation and its gradient, shaken:
# conv 3x3 0.56 with the first two, 0.15 with all; gated recurrence 0.34, 0.12; attention 0.25, 0.09; layer norm 0.16, 0.06.
_QUICK_TO_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


@functools.cache
def quick_to_compile() -> dict[str, Any]:
    """The compiler options that this XLA knows: they are named by its release, and an unknown one is an error."""
    known = {}
    for name, value in _QUICK_TO_COMPILE.items():
        try:
            jax.jit(lambda: 0, compiler_options={name: value})()
        except jax.errors.JaxRuntimeError:
            continue
        known[name] = value
    return known


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
        w = jax.tree.map(
            lambda x: jnp.asarray(x.astype(carrier)), point.w
        )  # a backward may ask for a JAX array's methods
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
        run: Callable[..., Result] = lambda *operands: subject(*operands)
        self._run = jax.jit(run, compiler_options=quick_to_compile() if quick else None) if compiled else run

    def __call__(self, point: Point) -> Outcome:
        with self.precision.scope():
            operands = self.precision.operands(point)
            try:
                return Outcome.of(self._run(*operands))
            except jax.errors.JaxRuntimeError:
                # op by op, JAX runs a program that it cached in the other precision, with that one's NumPy constants
                jax.clear_caches()
                return Outcome.of(self._run(*operands))


class Measured:
    """A subject in one precision, with the rounding scale of every entry of its results (see `fdl.check.rounding`)."""

    def __init__(self, subject: Subject, precision: Precision, rng: np.random.Generator):
        self.subject, self.precision = subject, precision
        self.note = ""  # why the rounding inside could not be shaken, if so
        self._noise = [rng.standard_normal(POOL) for _ in range(MORE_DRAWS)]
        self._run: Callable[[Any, tuple], Result] | None = None
        self._outcomes: dict[int, tuple[Point, Outcome]] = {}
        self._moved: dict[tuple[int, float], tuple[int, list[np.ndarray]]] = {}  # (draws, the largest effect)
        self._u: list[float] = []

    def __call__(self, point: Point) -> Outcome:
        if id(point) not in self._outcomes:
            with self.precision.scope():
                operands, pool = self.precision.operands(point), ones(self._carrier)
                if self._run is None:
                    self._run, result = self._first_run(pool, operands)
                    self._u = self._working_precision(result, operands)
                else:
                    result = self._run(pool, operands)
                self._outcomes[id(point)] = (point, Outcome.of(result))
        return self._outcomes[id(point)][1]

    def scale(self, point: Point, u: float = 0.0, *, thorough: bool = False) -> list[np.ndarray]:
        """Per value and gradient: its rounding error in units of roundoff. Infinite where a draw was not finite.

        u: the roundoff that is asked about, if it is coarser than that of the subject: a decision that hangs on a rounded
        number, a relu near its kink, may stand in float64 and fall in bfloat16. thorough: many draws, before accusing.
        """
        outcome = self(point)
        delta = DELTA * max([u, *self._u])
        # at least |y|: the result itself is rounded
        draws, scale = self._moved.get((id(point), delta), (0, [np.abs(y) for y in outcome.arrays]))
        if draws < (wanted := MORE_DRAWS if thorough else DRAWS):
            with self.precision.scope():
                operands = self.precision.operands(point)
                for noise in self._noise[draws:wanted]:
                    assert self._run is not None
                    shaken = Outcome.of(self._run(factors(noise, delta, self._carrier), operands))
                    triples = zip(scale, shaken.arrays, outcome.arrays, strict=True)
                    scale = [np.maximum(old, _moved(x, y, delta)) for old, x, y in triples]
            scale = [np.where(np.isfinite(x), x, np.inf) for x in scale]
            self._moved[id(point), delta] = (wanted, scale)
        return scale

    def near(self, point: Point, active: list[np.ndarray]) -> Outcome:
        """The outcome at other arguments (float64), with the point's cotangents."""
        self(point)
        assert self._run is not None
        with self.precision.scope():
            operands = self.precision.operands(dataclasses.replace(point, active=active))
            return Outcome.of(self._run(ones(self._carrier), operands))

    def precisions(self, point: Point) -> list[float]:
        """Per value and gradient: the unit roundoff of the coarsest precision it was computed in."""
        self(point)
        return self._u

    @property
    def _carrier(self) -> Any:
        return np.float64 if self.precision.x64 else np.float32

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
    compiled = jax.jit(lambda pool, *operands: run(pool, *operands), compiler_options=quick_to_compile())
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


def _moved(shaken: np.ndarray, y: np.ndarray, delta: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.abs(shaken - y) / delta


def brief(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__

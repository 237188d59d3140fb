"""A row of the activation table: what is known of a function, and its formulas joined by JAX's rules of derivation."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.errors import refuse_type, require_number, shown
from fdl.op import accumulator

FADED = 0.01

Intervals = tuple[tuple[float, float], ...]


class Facts(NamedTuple):
    """What f' does, for one choice of the options.

    lipschitz: sup |f'|. saturation: the intervals where f' tends to 0, from |f'| = FADED * lipschitz on. dead: closed
    intervals where f' is exactly 0. kinks: pairs of x and the f' chosen there.
    """

    lipschitz: float
    saturation: Intervals = ()
    dead: Intervals = ()
    kinks: tuple[tuple[float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Activation:
    """A row of the table. `f`, `f1`, `f2` take (x, **options), and JAX differentiates f to f1 and f1 to f2."""

    name: str
    formula: str
    equation: Callable
    f: Callable
    f1: Callable
    f2: Callable
    facts_of: Callable[..., Facts]
    ranges: tuple[tuple[str, float, float, str], ...]  # numeric options: (name, low, high, remedy)
    notes: str
    source: str
    at: tuple[float, float, float]  # f at -2, 0 and 2 with the default options, to four digits

    def options(self, **given: Any) -> dict[str, Any]:
        """The given options over the defaults of `equation`, checked."""
        defaults = {p.name: p.default for p in _options(self.equation)}
        unknown = sorted(set(given) - set(defaults))
        if unknown:
            refuse_type(self.name, f"unknown option(s) {unknown}; its options are: {', '.join(defaults) or 'none'}")
        resolved = defaults | given
        for option, low, high, remedy in self.ranges:
            require_number(self.name, option, resolved[option], low, high, remedy=remedy)
        for option, default in defaults.items():
            if isinstance(default, bool) and not isinstance(resolved[option], bool):
                refuse_type(self.name, f"{option} is {shown(resolved[option])}, wanted True or False")
        return resolved

    def facts(self, **options: Any) -> Facts:
        """Lipschitz constant, saturation, dead region and kinks, with these options."""
        return self.facts_of(**self.options(**options))

    @property
    def lipschitz(self) -> float:
        """sup |f'| with the default options."""
        return self.facts().lipschitz

    @property
    def saturation(self) -> Intervals:
        return self.facts().saturation

    @property
    def dead(self) -> Intervals:
        return self.facts().dead

    @property
    def kinks(self) -> tuple[tuple[float, float], ...]:
        return self.facts().kinks


def _options(equation: Callable) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(equation).parameters.values() if p.kind is p.KEYWORD_ONLY]


# ---- from formulas in float32 and float64 to functions of every float dtype that JAX can differentiate


def wide(x):
    return x.astype(accumulator(x.dtype))


def _with_derivative(value: Callable, derivative: Callable) -> Callable:
    """value(x, *options), whose derivative in x is derivative(x, *options); 16-bit x in float32, rounded once."""

    @jax.custom_jvp
    def function(x, *options):
        return value(wide(x), *options).astype(x.dtype)

    @function.defjvp
    def _(primals, tangents):
        (x, *options), (dx, *_) = primals, tangents
        slope = derivative(wide(x), *options)
        return function(x, *options), (slope * dx.astype(slope.dtype)).astype(x.dtype)

    return function


def _derivative_of(function: Callable) -> Callable:
    """The derivative of an elementwise function by JAX's own rules."""
    return lambda x, *options: jax.jvp(lambda x: function(x, *options), (x,), (jnp.ones_like(x),))[1]


def chain(equation: Callable, f: Callable, f1: Callable, f2: Callable) -> tuple[Callable, Callable, Callable]:
    """f, f1 and f2 with each other as derivatives, taking their options by keyword."""
    names = [p.name for p in _options(equation) if not isinstance(p.default, bool)]
    plain = lambda x, *options: equation(x, **dict(zip(names, options, strict=True)))
    f2 = _with_derivative(f2, functools.reduce(lambda g, _: _derivative_of(g), range(3), plain))
    f1 = _with_derivative(f1, f2)
    f = _with_derivative(f, f1)

    def by_keyword(function):
        def call(x, **options):
            dtype = wide(x).dtype
            return function(x, *(jnp.asarray(options[name], dtype) for name in names))

        return call

    return by_keyword(f), by_keyword(f1), by_keyword(f2)

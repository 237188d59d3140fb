"""One entry of the zoo, and how an op's right backward pass and its wrong variants are written down once.

    zoo = Zoo("elementwise")
    tanh = zoo.op("tanh", equation, forward, backward, lambda r: (r.normal(7, 5),))      the right case "tanh"
    tanh.wrong("sign", "sign", lambda y, g: (-g * (1 - y * y),))                          the wrong case "tanh: sign"
    tanh.right("at 1e20", make=lambda r: (r.normal(7, 5, scale=1e20),))                  one more right case

A change is a whole backward pass; or a dict of keyword arguments for the right one, which then has a switch for the fault;
or `leaf(i, change)`, which alters one cotangent that the right one returns. Only floating arguments have a cotangent; the
others have None.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdl.op import Op

# What a diagnosis says of terms that are told alike wherever they are planted.
NAMES = {
    "sign": ("has the wrong sign",),
    "factor 2": ("is twice",),
    "factor 1/2": ("is half",),
    "factor 0.9": ("is 0.9 times",),
    "factor 0.95": ("is 0.95 times",),
    "factor 0.99": ("is 0.99 times",),
    "missing 1/m": ("a sum in place of a mean",),
    "1/m for a sum": ("a mean in place of a sum",),
    "1/(m-1) for 1/m": ("1/(m - 1) in place of 1/m",),
    "1/m for 1/(m-1)": ("1/m in place of 1/(m - 1)",),
    "broadcast not summed": ("only the first of the",),
    "broadcast averaged": ("a mean in place of a sum",),
    "cotangent ignored": ("does not depend on the cotangent",),
    "cotangent squared": ("has the cotangent squared",),
    "duplicate indices overwritten": ("it overwrites the others",),
    "wrong time order": ("in the wrong direction",),
    "overflow": ("not finite: first in `jnp.exp(x)`",),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A backward pass and the equation whose derivative it claims to be. `term`: what is wrong with it, in words that
    several cases share; empty for a right one. `names`: what was planted in the words of a diagnosis, of which a right
    diagnosis has one; those of the term where a case has none of its own. The place of a single wrong entry, or row, is
    its name."""

    name: str
    op: str
    family: str
    reference: Callable
    candidate: Callable
    make: Callable[["Draw"], tuple]
    term: str = ""
    source: str = ""  # the public bug of this kind
    kinks: bool = False  # right, with another subgradient than the reference's
    names: tuple[str, ...] = ()
    precision: bool = False  # wrong in the precision of its arguments only: the formula is right in exact arithmetic

    @property
    def wrong(self) -> bool:
        return bool(self.term)

    def is_named_by(self, diagnosis: str) -> bool:
        """Whether a diagnosis says what was planted. args[0] in the names is also the parameter, and its gradient."""
        parameters = list(inspect.signature(self.reference).parameters)
        for words in self.names or NAMES.get(self.term, ()):
            for prefix in ("", "d"):
                own = words
                for i, name in enumerate(parameters):
                    own = own.replace(f"args[{i}]", f"{prefix}{name}")
                if words in diagnosis or own in diagnosis:
                    return True
        return False

    def arguments(self, seed: int = 0) -> tuple:
        return self.make(Draw(np.random.default_rng([seed, *self.op.encode()])))


class Draw:
    """Random arguments."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0, dtype: Any = np.float32) -> jax.Array:
        return jnp.asarray(mean + scale * self.rng.standard_normal(shape)).astype(dtype)

    def positive(self, *shape: int, low: float = 0.3, high: float = 2.0, dtype: Any = np.float32) -> jax.Array:
        return jnp.asarray(self.rng.uniform(low, high, shape)).astype(dtype)

    def whole(self, *shape: int, low: int = -2, high: int = 3) -> jax.Array:
        """Small whole numbers as float32: full of ties and zeros."""
        return jnp.asarray(self.rng.integers(low, high, shape), np.float32)

    def integers(self, high: int, *shape: int) -> jax.Array:
        return jnp.asarray(self.rng.integers(0, high, shape), np.int32)

    def mask(self, *shape: int) -> jax.Array:
        """True and False, at least one of each along the last axis."""
        drawn = self.rng.random(shape) < 0.6
        drawn[..., 0], drawn[..., -1] = True, False
        return jnp.asarray(drawn)


class Leaf(NamedTuple):
    """A change of one leaf of the cotangents, numbered as jax.tree.leaves would."""

    index: int
    change: Callable

    def of(self, backward: Callable) -> Callable:
        def changed(residuals, g):
            leaves, structure = jax.tree.flatten(backward(residuals, g), is_leaf=lambda x: x is None)
            right = jnp.asarray(leaves[self.index])
            leaves[self.index] = self.change(right).astype(right.dtype)
            return jax.tree.unflatten(structure, leaves)

        return changed


leaf = Leaf  # reads better in the tables


def zero(g):
    return jnp.zeros_like(g)


def negated(g):
    return -g


def times(factor: float) -> Callable:
    return lambda g: g * jnp.asarray(factor, g.dtype)


def entry(index: tuple[int, ...], share: float) -> Callable:
    """One entry wrong by a share of itself."""
    return lambda g: g.at[index].multiply(jnp.asarray(1 + share, g.dtype))


Change = Callable | Mapping[str, Any] | Leaf


@dataclasses.dataclass(frozen=True)
class Subject:
    """An op of the zoo with its right backward pass, to which cases are added."""

    zoo: "Zoo"
    op: str
    equation: Callable
    forward: Callable
    backward: Callable
    make: Callable[[Draw], tuple]

    def right(self, name: str = "", backward: Change | None = None, make: Any = None, **facts: Any) -> None:
        self._add(name, backward if backward is not None else self.backward, make, facts)

    def wrong(self, name: str, term: str, change: Change, make: Any = None, **facts: Any) -> None:
        self._add(name, change, make, {"term": term, **facts})

    def _add(self, name: str, change: Change, make: Any, facts: Mapping[str, Any]) -> None:
        if isinstance(change, Leaf):
            backward = change.of(self.backward)
        elif callable(change):
            backward = change
        else:
            backward = functools.partial(_switched, self.backward, dict(change))
        candidate = self.zoo.made(self.equation, self.forward, backward, self.op)
        name = f"{self.op}: {name}" if name else self.op
        self.zoo.cases.append(
            Case(name, self.op, self.zoo.family, self.equation, candidate, make or self.make, **facts)
        )


def _switched(backward: Callable, switches: Mapping[str, Any], residuals: Any, g: Any) -> Any:
    return backward(residuals, g, **switches)


class Zoo:
    """The cases of one file. Half of the files make `jax.custom_vjp` functions, the others fdl's `Op`s."""

    def __init__(self, family: str, ops: bool = False):
        self.family, self.ops, self.cases = family, ops, []

    def op(
        self, name: str, equation: Callable, forward: Callable, backward: Callable, make: Callable[[Draw], tuple]
    ) -> Subject:
        """A new op, with its right case."""
        subject = Subject(self, name, equation, forward, backward, make)
        subject.right()
        return subject

    def made(self, equation: Callable, forward: Callable, backward: Callable, name: str) -> Callable:
        if self.ops:
            return Op(equation, forward, backward, name=name)
        function = jax.custom_vjp(lambda *args: forward(*args)[0])
        function.defvjp(forward, backward)
        return function

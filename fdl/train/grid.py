"""The settings of a sweep: which there are, who takes them, and which can be swept inside one compiled program.

A setting is taken by whoever has a parameter of its name: the model's factory, the loss (its options), the factory of the
optimizer, that of the penalty. Floating numbers enter the program as arrays, one entry per member. Whatever else
(whole numbers, strings, booleans, tuples, None) shapes it: members that differ there are trained one group after the other.

    "seed"          decides initial parameters, order and draws: the member trains as fit(key=jax.random.key(seed)) does
    "init_scale"    multiplies the initial parameters of rank 2 and more, unless a factory takes it
"""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from fdl.errors import refuse, refuse_type, require_number, shown
from fdl.layer import Layer
from fdl.op import Op, Static

SEED, INIT_SCALE = "seed", "init_scale"


def members(where: str, grid: Any) -> list[dict[str, Any]]:
    """One dict of settings per member: the product of a dict of lists (the last one varies fastest), or a list as it is."""
    if isinstance(grid, Mapping):
        for name, values in grid.items():
            if (
                isinstance(values, str)
                or not isinstance(values, Sequence)
                and not (hasattr(values, "tolist") and values.ndim)
            ):
                refuse_type(where, f"grid[{name!r}] is {shown(values)}, wanted a list of values")
            if len(values) == 0:
                refuse(where, f"grid[{name!r}] is empty; give it at least one value, or leave it out")
        lists = [values.tolist() if hasattr(values, "tolist") else list(values) for values in grid.values()]
        found = [dict(zip(grid, values, strict=True)) for values in itertools.product(*lists)]
    elif isinstance(grid, Sequence) and not isinstance(grid, str) and all(isinstance(row, Mapping) for row in grid):
        found = [dict(row) for row in grid]
    else:
        refuse_type(
            where, f'grid is {shown(grid)}, wanted a dict of lists, {{"learning_rate": [0.1, 0.3]}}, or a list of dicts'
        )
    if not found:
        refuse(where, "grid has no members; give at least one")
    for row in found:
        row.setdefault(SEED, 0)
    for number, row in enumerate(found):
        if row.keys() != found[0].keys():
            refuse(
                where,
                f"grid[{number}] has {sorted(row)}, grid[0] has {sorted(found[0])}; wanted the same settings in each",
            )
        if isinstance(row[SEED], bool) or not isinstance(row[SEED], int | np.integer) or not 0 <= row[SEED] < 2**32:
            refuse(where, f"the seed {row[SEED]!r} is no whole number from 0 to 4294967295")
        for name, value in row.items():
            if not isinstance(name, str):
                refuse_type(where, f"the setting {name!r} has no name, wanted a string")
            if not isinstance(value, Hashable):
                refuse_type(
                    where, f"{name} is {shown(value)}, which cannot be hashed; wanted a number, a string or a tuple"
                )
            if isinstance(value, float) and not np.isfinite(value):
                refuse(where, f"{name} is {value}, wanted a finite number")
    return found


def is_swept(name: str, value: Any) -> bool:
    """Whether a setting is an operand of the program rather than a part of it."""
    return name == SEED or isinstance(value, float | np.floating)


def groups(rows: list[dict[str, Any]]) -> list[list[int]]:
    """The numbers of the members that share a program, in order of their first member."""
    found: dict[Any, list[int]] = {}
    for number, row in enumerate(rows):
        shape = tuple(
            (name, type(value).__name__, repr(value)) for name, value in row.items() if not is_swept(name, value)
        )
        kinds = tuple(name for name, value in row.items() if is_swept(name, value))
        found.setdefault((shape, kinds), []).append(number)
    return list(found.values())


def swept_arrays(rows: list[dict[str, Any]], dtype: Any) -> dict[str, Any]:
    """{name: [M]} of a group."""
    names = [name for name, value in rows[0].items() if is_swept(name, value) and name != SEED]
    return {name: jnp.asarray([row[name] for row in rows], dtype) for name in names}


def fixed_settings(rows: list[dict[str, Any]]) -> tuple[tuple[str, Static], ...]:
    """What the members of a group have in common."""
    return tuple((name, Static(value)) for name, value in rows[0].items() if not is_swept(name, value))


def seeds(rows: list[dict[str, Any]]) -> Any:
    return jnp.asarray([row[SEED] for row in rows], jnp.uint32)


@dataclasses.dataclass(frozen=True)
class Takers:
    """Who takes which setting, and what they make of them. Two are equal where all of them are."""

    model: Any
    loss: Any
    make_optimizer: Any
    penalty: Any

    def _taken(self) -> dict[str, set[str]]:
        return {
            "model": _parameters(self.model, Layer),
            "loss": set(self.loss.option_names) if isinstance(self.loss, Op) else set(),
            "make_optimizer": _parameters(self.make_optimizer, optax_type=True),
            "penalty": _parameters(self.penalty, Op),
        }

    def require(self, where: str, names: Sequence[str]) -> None:
        """Errors: InputError for a setting that nobody takes."""
        taken = self._taken()
        for name in names:
            if name not in (SEED, INIT_SCALE) and not any(name in by for by in taken.values()):
                lists = [f"{who} takes {sorted(by)}" for who, by in taken.items() if by]
                known = "; ".join(lists) or "nobody takes any"
                remedy = "Give a factory with a parameter of that name"
                refuse(where, f"nobody takes the setting {name!r}: {known}. {remedy}")

    def make(self, settings: dict[str, Any]) -> tuple[Layer, Any, Any, Any]:
        """(model, loss, optimizer, penalty) of one member."""

        taken = self._taken()

        def of(who: str) -> dict[str, Any]:
            return {name: value for name, value in settings.items() if name in taken[who]}

        model = self.model if isinstance(self.model, Layer) else self.model(**of("model"))
        loss = self.loss.bind(**of("loss")) if of("loss") else self.loss
        optimizer = self.make_optimizer
        if not hasattr(optimizer, "update"):
            optimizer = optimizer(**of("make_optimizer"))
        penalty = self.penalty
        if penalty is not None and not isinstance(penalty, Op):
            penalty = penalty(**of("penalty"))
        return model, loss, optimizer, penalty

    @property
    def scales_init(self) -> bool:
        return INIT_SCALE not in self._taken()["model"]


def initial_scale(where: str, row: dict[str, Any]) -> float:
    """Of a member whose factory does not take it."""
    scale = row.get(INIT_SCALE, 1.0)
    require_number(where, INIT_SCALE, scale, -math.inf, math.inf, remedy="it multiplies the initial parameters")
    return scale


def _parameters(factory: Any, made: Any = None, *, optax_type: bool = False) -> set[str]:
    if not callable(factory) or (made is not None and isinstance(factory, made)):
        return set()
    if optax_type and hasattr(factory, "update"):
        return set()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in inspect.signature(factory).parameters.values() if p.kind in kinds}

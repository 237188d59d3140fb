"""The members of a sweep at work: their compiled programs, and how they are dealt out to threads or devices."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fdl.backprop import require_model, require_penalty
from fdl.layer import Layer
from fdl.op import Static
from fdl.train.evaluate import Metric, measure
from fdl.train.grid import INIT_SCALE, Takers, fixed_settings, seeds, swept_arrays
from fdl.train.loop import MOST_STEPS, cpu_options, steps_between
from fdl.train.precision import computed_in
from fdl.train.step import Carry, make_step, require_optimizer

LARGE = (
    65_536  # bytes of parameters from which members are trained one after the other on a CPU core: see fdl.train.sweep
)
MOST_LOSSES = 1 << 22  # kept on the device between two calls, over all members


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all members have in common."""

    takers: Takers
    gradient: str
    precision: str | None
    accumulate: int
    batch_size: int
    layout: str
    mesh: Any
    metrics: tuple[tuple[str, Metric], ...]

    def make(self, settings: dict[str, Any]) -> tuple[Layer, Any, Any, Any]:
        model, loss, optimizer, penalty = self.takers.make(settings)
        require_model("train.sweep", model)
        require_optimizer("train.sweep", optimizer)
        require_penalty("train.sweep", penalty)
        return (model if self.precision is None else computed_in(model, self.precision)), loss, optimizer, penalty


def _layout(layout: str, size: int) -> str:
    if layout != "auto":
        return layout
    return "map" if jax.default_backend() == "cpu" and size >= LARGE else "vmap"


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a group's members run, compiled: all of them at once."""

    start: Callable  # (hyper, seeds, x) -> (carry, keys)
    advance: Callable  # (hyper, carry, keys, x, target, first, last) -> (carry, losses [M, most])
    figures: Callable  # (hyper, carry, x, target) -> {name: [M]}


@functools.lru_cache(maxsize=64)
def programs(plan: Plan, fixed: tuple[tuple[str, Static], ...], layout: str, most: int) -> Programs:
    """The same plan and settings give the same compiled programs again."""
    settings = {name: kept.value for name, kept in fixed}

    def start(hyper, seed, x):
        model, _, optimizer, _ = plan.make(settings | hyper)
        init_key, train_key = jax.random.split(jax.random.key(seed))
        params, state = model.init(init_key, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        if INIT_SCALE in (known := settings | hyper) and plan.takers.scales_init:
            scale = jnp.asarray(known[INIT_SCALE])
            params = jax.tree.map(lambda a: a * scale.astype(a.dtype) if a.ndim > 1 else a, params)
        return Carry(params, state, optimizer.init(params), jnp.zeros((), jnp.int32)), train_key

    def advance(hyper, carry, key, x, target, first, last):
        model, loss, optimizer, penalty = plan.make(settings | hyper)
        step = make_step(model, loss, optimizer, penalty, plan.gradient, plan.accumulate)
        run = steps_between(step, plan.batch_size, stops=False, most=most)
        carry, _, values, *_ = run(carry, x, target, None, key, 0, first, last)
        return carry, values

    def figures(hyper, carry, x, target):
        model, loss, _, _ = plan.make(settings | hyper)
        return measure(model, loss, plan.metrics, 1024)(carry.params, carry.state, x, target)

    def over_members(one: Callable, batched: int, **how: Any) -> Callable:
        """The function of one member as one of many: its first `batched` arguments have a leading axis of members."""

        def many(*args):
            if layout == "map":
                return jax.lax.map(lambda own: one(*own, *args[batched:]), args[:batched])
            return jax.vmap(one, in_axes=(0,) * batched + (None,) * (len(args) - batched))(*args)

        if plan.mesh is None:
            return jax.jit(many, compiler_options=cpu_options(), **how)
        axis = tuple(plan.mesh.axis_names)

        def spread(*args):
            specs = tuple(P(axis) if place < batched else P() for place in range(len(args)))
            return jax.shard_map(many, mesh=plan.mesh, in_specs=specs, out_specs=P(axis), check_vma=False)(*args)

        return jax.jit(spread, **how)

    return Programs(
        start=jax.jit(jax.vmap(start, in_axes=(0, 0, None))),
        advance=over_members(advance, 3, donate_argnums=1),
        figures=over_members(figures, 2),
    )


class Team:
    """A group of members, dealt out to threads or devices."""

    def __init__(self, plan: Plan, rows: list[dict[str, Any]], x: Any, target: Any, valid: Any):
        self._plan, self._data, self._valid = plan, (x, target), valid
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
        self._hyper, fixed = swept_arrays(rows, dtype), fixed_settings(rows)
        self.most = max(1, min(MOST_LOSSES // len(rows), MOST_STEPS))
        self.carry, self._keys = programs(plan, fixed, "vmap", self.most).start(self._hyper, seeds(rows), x)
        size = sum(a[0].nbytes for a in jax.tree.leaves(self.carry.params))
        self._programs = programs(plan, fixed, _layout(plan.layout, size), self.most)
        self._resize(len(rows))

    def __len__(self) -> int:
        return self._size

    def _resize(self, size: int) -> None:
        """So many members are left."""
        if self._plan.mesh is not None:
            self._parts = 1
            self._padding = -size % math.prod(self._plan.mesh.shape.values())
        else:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            self._parts = min(cores, size) if jax.default_backend() == "cpu" else 1
            self._padding = 0
        self._size = size

    def keep(self, places: list[int]) -> None:
        """Only these members go on."""
        self._hyper, self.carry, self._keys = chosen((self._hyper, self.carry, self._keys), places)
        self._resize(len(places))

    def advance(self, first: int, last: int) -> np.ndarray:
        """Takes these steps; the losses [M, steps]."""
        own = (self._hyper, self.carry, self._keys)
        self.carry, values = self._dealt(self._programs.advance, own, (*self._data, first, last))
        return np.asarray(values)[:, : last - first]

    def figures(self) -> dict[str, np.ndarray]:
        """On the validation data, [M] each."""
        found = self._dealt(self._programs.figures, (self._hyper, self.carry), self._valid)
        return {name: np.asarray(values) for name, values in found.items()}

    def results(self) -> list[Carry]:
        """Every member's own arrays, as numpy; keys stay keys."""
        arrays = jax.tree.map(
            lambda a: a if jnp.issubdtype(a.dtype, jax.dtypes.extended) else np.asarray(a), self.carry
        )
        return [jax.tree.map(lambda a, place=place: a[place], arrays) for place in range(self._size)]

    def _dealt(self, program: Callable, own: tuple, shared: tuple) -> Any:
        if self._plan.mesh is not None:
            return self._spread(program, own, shared)
        if self._parts == 1:
            return program(*own, *shared)
        bounds = np.linspace(0, self._size, self._parts + 1).astype(int)
        shares = [chosen(own, np.arange(a, b)) for a, b in zip(bounds, bounds[1:], strict=False)]
        wide = jax.config.read("jax_enable_x64")

        def one(share: Any) -> Any:
            with jax.enable_x64(wide):  # which a context manager sets for its own thread alone
                return jax.block_until_ready(program(*share, *shared))

        with ThreadPoolExecutor(self._parts) as pool:
            done = list(pool.map(one, shares))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *done)

    def _spread(self, program: Callable, own: tuple, shared: tuple) -> Any:
        """On the mesh, where the number of members has to be a multiple of the devices: the last one is repeated."""
        last = self._size - 1
        own = chosen(own, np.minimum(np.arange(self._size + self._padding), last))
        own = jax.device_put(own, NamedSharding(self._plan.mesh, P(tuple(self._plan.mesh.axis_names))))
        shared = jax.device_put(shared, NamedSharding(self._plan.mesh, P()))
        return jax.tree.map(lambda a: a[: self._size], program(*own, *shared))


def chosen(tree: Any, members: Any) -> Any:
    """Some members of arrays that have one in each row."""
    return jax.tree.map(lambda a: a[np.asarray(members)], tree)

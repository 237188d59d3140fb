"""The members of a sweep at work: their compiled programs, and how they are dealt out to threads or devices."""

import dataclasses
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
from fdl.train.evaluate import Metric, measure
from fdl.train.grid import Takers
from fdl.train.halving import Halving
from fdl.train.loop import cpu_options, steps_between
from fdl.train.precision import computed_in
from fdl.train.step import make_step, require_optimizer

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
    total: int  # steps
    per_epoch: int
    halving: Halving | None

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


class Team:
    """The compiled programs of a group, and how its members are dealt out to threads or devices."""

    def __init__(self, plan: Plan, fixed: dict[str, Any], bytes_each: int, size: int, x: Any, target: Any, valid: Any):
        self._plan, self._data, self._valid = plan, (x, target), valid
        self._layout = _layout(plan.layout, bytes_each)
        self.by_epoch = valid is not None or plan.halving is not None
        self.most = self.stride = max(1, min(MOST_LOSSES // size, plan.total, 16_384))

        def advance(hyper, carry, key, x, target, first, last):
            model, loss, optimizer, penalty = plan.make(fixed | hyper)
            step = make_step(model, loss, optimizer, penalty, plan.gradient, plan.accumulate)
            run = steps_between(step, plan.batch_size, stops=False, most=self.most)
            carry, _, values, _ = run(carry, x, target, None, key, 0, first, last)
            return carry, values

        def figures(hyper, carry, x, target):
            model, loss, _, _ = plan.make(fixed | hyper)
            return measure(model, loss, plan.metrics, 1024)(carry.params, carry.state, x, target)

        self._advance = self._over_members(advance, 3, donate=1)
        self._figures = self._over_members(figures, 2)
        self.resize(size)

    def _over_members(self, one: Callable, batched: int, donate: int | None = None) -> Callable:
        """The function of one member as one of many: its first `batched` arguments have a leading axis of members."""

        def many(*args):
            if self._layout == "map":
                return jax.lax.map(lambda own: one(*own, *args[batched:]), args[:batched])
            return jax.vmap(one, in_axes=(0,) * batched + (None,) * (len(args) - batched))(*args)

        if self._plan.mesh is None:
            return jax.jit(many, donate_argnums=() if donate is None else donate, compiler_options=cpu_options())
        axis = tuple(self._plan.mesh.axis_names)

        def spread(*args):
            specs = tuple(P(axis) if place < batched else P() for place in range(len(args)))
            return jax.shard_map(many, mesh=self._plan.mesh, in_specs=specs, out_specs=P(axis), check_vma=False)(*args)

        return jax.jit(spread, donate_argnums=() if donate is None else donate)

    def resize(self, size: int) -> None:
        """So many members are left."""
        if self._plan.mesh is not None:
            self._parts = 1
            self._padding = -size % math.prod(self._plan.mesh.shape.values())
        else:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            self._parts = min(cores, size) if jax.default_backend() == "cpu" else 1
            self._padding = 0
        self._size = size

    def advance(self, hyper: Any, carry: Any, keys: Any, first: int, last: int) -> tuple[Any, np.ndarray]:
        carry, values = self._dealt(self._advance, (hyper, carry, keys), (*self._data, first, last))
        return carry, np.asarray(values)[:, : last - first]

    def figures(self, hyper: Any, carry: Any) -> dict[str, np.ndarray]:
        return {
            name: np.asarray(values) for name, values in self._dealt(self._figures, (hyper, carry), self._valid).items()
        }

    def _dealt(self, program: Callable, own: tuple, shared: tuple) -> Any:
        if self._plan.mesh is not None:
            return self._spread(program, own, shared)
        if self._parts == 1:
            return program(*own, *shared)
        bounds = np.linspace(0, self._size, self._parts + 1).astype(int)
        shares = [chosen(own, np.arange(a, b)) for a, b in zip(bounds, bounds[1:], strict=False)]
        with ThreadPoolExecutor(self._parts) as pool:
            done = list(pool.map(lambda share: jax.block_until_ready(program(*share, *shared)), shares))
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

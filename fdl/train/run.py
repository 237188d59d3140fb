"""A run in progress: the steps between two calls of the compiled loop, and what is decided there.

    advance(last)      one call of the loop, checked: the loss of every step, and whether everything is finite
    end_of_epoch()     history, validation, early stopping, callbacks
    saved()/restored() the whole run as arrays and JSON, at any step

Nothing here changes what a step computes, nor depends on how the steps are split into calls: the mean loss of an epoch is
summed step after step in float64, whatever the calls were.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdl.layer import Layer
from fdl.op import Op
from fdl.train.early_stopping import Best
from fdl.train.guard import Divergence, Scaled, finite_leaves, first_bad_step, origin
from fdl.train.loop import MOST_STEPS, batches_in, compiled, epoch_order, examples_in, steps_between
from fdl.train.placement import Placement
from fdl.train.source import Block
from fdl.train.step import Carry, make_step
from fdl.train.watching import Watch, probe_of

MOST_CHARTS = 256  # on the device in one call of the loop
MOST_ROLLBACKS = 8  # then the updates are 1/256 of what was asked for
_MOMENT = 0.1  # seconds that a call should take: long beside the 0.2 ms it costs, short for a display or a signal


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a step is made of; equal recipes share a compiled program."""

    model: Layer  # as given
    computes: Layer  # the same in its precision
    loss: Op | Callable
    optimizer: Any
    penalty: Op | None
    gradient: str
    precision: str | None
    accumulate: int
    batch_size: int
    doctor: int | None  # chart every so many-th step

    @property
    def most(self) -> int:
        """Steps in one call: charts are larger than losses."""
        return MOST_STEPS if self.doctor is None else min(MOST_STEPS, MOST_CHARTS * self.doctor)


@functools.lru_cache(maxsize=64)
def _program(recipe: Recipe) -> Callable:
    return compiled(_steps(recipe, lambda rows: rows))


def _steps(recipe: Recipe, local: Callable) -> Callable:
    r = recipe
    step = make_step(r.computes, r.loss, r.optimizer, r.penalty, r.gradient, r.accumulate)
    probe = None if r.doctor is None else probe_of(r, r.doctor)
    return steps_between(step, r.batch_size, local=local, most=r.most, probe=probe)


@jax.jit
def copied(tree: Any) -> Any:
    """A copy that survives a donation, every array with a buffer and a firm dtype of its own."""

    def copy(a):
        return jnp.copy(a) if jnp.issubdtype(a.dtype, jax.dtypes.extended) else jnp.copy(a).astype(a.dtype)

    return jax.tree.map(copy, tree)


class Pace:
    """How many steps to ask of the next call, so that it takes about a moment."""

    def __init__(self, first: int):
        self.steps = first
        self._calls = 0
        self._since = time.perf_counter()

    def update(self, steps: int) -> None:
        """To be called after every call, with the steps that it took."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        self._calls += 1
        if self._calls == 1:  # it compiled, and tells nothing
            return
        wanted = int(steps * _MOMENT / max(seconds, 1e-9))
        self.steps = max(1, min(wanted, 4 * steps, MOST_STEPS))


class Mark(NamedTuple):
    """A run where an epoch began: what it had, and what was the best before it."""

    carry: Carry
    best_arrays: Any


class Run:
    """The state of a run between calls."""

    def __init__(self, recipe: Recipe, carry: Carry, source: Any, key: Any, placement: Placement):
        self.recipe, self.source, self.key, self.placement = recipe, source, key, placement
        self.carry, self.position = carry, 0
        self.epochs: list[dict[str, float]] = []  # the figures of every epoch that ended
        self._sum = self._weight = 0.0  # of the epoch in progress
        self.best: Best | None = None
        self.best_arrays: Any = None  # (params, state)
        self.divergence: Divergence | None = None
        self.bad_loss = math.nan  # of the step that diverged
        self.rollbacks = 0
        self.watch = None if recipe.doctor is None else Watch(recipe.doctor)
        self._previous: Any = None  # the gradient of the last step that was examined
        if recipe.doctor is not None:
            self._previous = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), carry.params)
        self.marks: tuple[Mark, Mark] | None = None  # the starts of the best epoch and of the present one
        self._bests: list[list[Any] | None] = []  # the numbers of the best epoch at these marks
        self.lowest = math.inf  # the mean loss of the best epoch
        self._finite_at_start = np.asarray(finite_leaves(carry))
        shardings = placement.of_carry(carry)
        if shardings is None:
            self._program = _program(recipe)
        else:
            self._program = compiled(
                _steps(recipe, placement.rows), out_shardings=(shardings, *(placement.replicated,) * 4)
            )

    # ---- steps ----

    @property
    def epoch(self) -> int:
        """The number of epochs that ended."""
        return self.position // self.source.per_epoch

    def advance(self, last: int) -> int:
        """Takes the steps up to `last`, or to the end of the block, or to the one that diverges. Returns how many."""
        block = self.source.block(self.position)
        last = min(last, self.position + self.recipe.most, *([] if block.end is None else [block.end]))
        before = copied(self.carry)
        carry, losses, counts, seen = self._call(block, self.carry, last)
        taken = len(losses)
        if not (taken == last - self.position and math.isfinite(losses[-1]) and self._is_finite(carry)):
            taken = self._diverged(block, before, losses)
            losses, counts = losses[:taken], counts[:taken]
        else:
            self.carry = carry
        self._count(losses, counts)
        if self.watch is not None:
            charts, self._previous = seen
            self.watch.add(charts, self.position, self.position + taken)
        self.position += taken
        return taken

    def _call(self, block: Block, carry: Carry, last: int) -> tuple[Carry, np.ndarray, np.ndarray, Any]:
        first, end = self.position - block.start, last - block.start
        carry, position, values, counts, seen = self._program(
            carry, block.x, block.target, block.weights, self.key, block.epoch, first, end, self._previous
        )
        losses = np.asarray(values)[: int(position) - first]
        if counts is not None:
            return carry, losses, np.asarray(counts)[: len(losses)], seen
        return carry, losses, examples_in(block.x.shape[0], self.recipe.batch_size, first, first + len(losses)), seen

    def _is_finite(self, carry: Carry) -> bool:
        # what an optimizer starts with at infinity (the best loss so far) may stay there
        return bool((np.asarray(finite_leaves(carry)) | ~self._finite_at_start).all())

    def _diverged(self, block: Block, before: Carry, losses: np.ndarray) -> int:
        """Goes to the last finite state, and says where the next step left the finite numbers. Returns the steps taken."""

        def replay(steps: int) -> Carry:
            return self._call(block, copied(before), self.position + steps)[0] if steps else copied(before)

        bad = len(losses)
        if math.isfinite(losses[-1]) or not self._is_finite(replay(bad - 1)):
            bad = first_bad_step(replay, self._is_finite, bad)
        self.carry = replay(bad - 1)
        self.bad_loss = math.nan if math.isfinite(losses[bad - 1]) else float(losses[bad - 1])
        self.divergence = origin(
            *(self.recipe.model, self.recipe.loss, self.recipe.penalty, self.recipe.optimizer),
            *(self.recipe.gradient, self.recipe.precision, copied(self.carry), self._batch(block, bad - 1)),
            (self.position + bad - 1) // self.source.per_epoch + 1,
        )
        return bad - 1

    def _batch(self, block: Block, steps: int) -> tuple:
        """(x, target, mask, weights, noise) of the step so many after the present position."""
        order_key, noise_key = jax.random.split(self.key)
        n, size = block.x.shape[0], self.recipe.batch_size
        epoch, within = divmod(self.position - block.start + steps, batches_in(n, size))
        order, mask = epoch_order(order_key, block.epoch + epoch, n, size)
        rows = order[within]
        noise = jax.random.fold_in(noise_key, self.position + steps) if self.recipe.model.stochastic else None
        weights = None if block.weights is None else block.weights[rows]
        return block.x[rows], block.target[rows], None if mask is None else mask[within], weights, noise

    # ---- epochs ----

    def _count(self, losses: np.ndarray, counts: np.ndarray) -> None:
        """Adds the steps to their epochs, one after the other: how they came in calls makes no difference."""
        position, per_epoch = self.position, self.source.per_epoch
        while len(losses):
            here = min(len(losses), per_epoch - position % per_epoch)
            weights = counts[:here].astype(np.float64)
            with np.errstate(over="ignore"):
                terms = np.where(weights > 0, losses[:here].astype(np.float64) * weights, 0.0)
            self._sum = float(np.add.accumulate(np.concatenate([[self._sum], terms]))[-1])
            self._weight = float(np.add.accumulate(np.concatenate([[self._weight], weights]))[-1])
            position, losses, counts = position + here, losses[here:], counts[here:]
            if position % per_epoch == 0:
                self.close_epoch()

    def close_epoch(self) -> None:
        """The mean loss of the steps since the last epoch ended becomes a row of the history."""
        self.epochs.append({"loss": self._sum / self._weight if self._weight else 0.0})
        self._sum = self._weight = 0.0

    @property
    def has_open_epoch(self) -> bool:
        return self.position % self.source.per_epoch != 0

    def loss_so_far(self) -> float | None:
        """Of the epoch in progress, or the last one that ended."""
        if self._weight:
            return self._sum / self._weight
        return self.epochs[-1]["loss"] if self.epochs else None

    # ---- going back ----

    def mark(self) -> None:
        """To be called where an epoch ends, and at the start, in a run that can go back: to the start of its best epoch, for
        when the loss overflows the parameters have been on their way there for long."""
        now, best = Mark(copied(self.carry), self.best_arrays), self._best_so_far()
        if self.marks is None:
            self.marks, self._bests = (now, now), [best, best]
            return
        kept = 0
        if self.epochs[-1]["loss"] < self.lowest:
            kept, self.lowest = 1, self.epochs[-1]["loss"]
        self.marks, self._bests = (self.marks[kept], now), [self._bests[kept], best]

    def roll_back(self, factor: float) -> bool:
        """Goes back to the start of the best epoch with smaller updates; False if that was done too often."""
        if self.marks is None or self.rollbacks == MOST_ROLLBACKS:
            return False
        self.divergence = None
        self.rollbacks += 1
        carry, self.best_arrays = self.marks[0]
        self._set_best(self._bests[0])
        scaled: Scaled = carry.opt_state
        lower = jnp.asarray(factor**self.rollbacks, scaled.factor.dtype)
        carry = carry._replace(opt_state=scaled._replace(factor=lower))
        mark = Mark(carry, self.best_arrays)
        self.marks, self._bests, self.carry = (mark, mark), [self._bests[0]] * 2, copied(carry)
        self.position, self.lowest = int(carry.step), math.inf
        self._sum = self._weight = 0.0
        del self.epochs[self.epoch :]
        if self.watch is not None:
            self.watch.forget_from(self.position)
        return True

    # ---- the whole run as a value ----

    def arrays(self) -> dict[str, Any]:
        kept = {"carry": self.carry, "key": jax.random.key_data(self.key)}
        return kept | {
            name: tree for name, tree in (("best", self.best_arrays), ("marks", self.marks)) if tree is not None
        }

    def facts(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "epoch_so_far": [repr(self._sum), repr(self._weight)],
            "epochs": [{name: repr(float(value)) for name, value in row.items()} for row in self.epochs],
            "best_so_far": self._best_so_far(),
            "best_at_marks": self._bests,
            "rollbacks": [self.rollbacks, repr(self.lowest)],
        }

    def restore(self, arrays: dict[str, Any], facts: dict[str, Any]) -> None:
        self.carry = Carry(*arrays["carry"])
        self.best_arrays, self.marks = arrays.get("best"), arrays.get("marks")
        self.position, (self.rollbacks, lowest) = facts["position"], facts["rollbacks"]
        self.lowest = float(lowest)
        self._sum, self._weight = map(float, facts["epoch_so_far"])
        self.epochs = [{name: float(value) for name, value in row.items()} for row in facts["epochs"]]
        self._set_best(facts["best_so_far"])
        self._bests = facts["best_at_marks"]

    def _best_so_far(self) -> list[Any] | None:
        return None if self.best is None else [repr(self.best.value), self.best.epoch, self.best.waited]

    def _set_best(self, kept: list[Any] | None) -> None:
        if self.best is not None and kept is not None:
            value, self.best.epoch, self.best.waited = kept
            self.best.value = float(value)

"""The hot loop: one compiled program takes the steps from one position to another, across epochs.

Between two calls from Python the device waits: 100 to 200 microseconds, half of an epoch of 44 small steps. So `fit` asks for
as many steps per call as pass in a moment; how many changes no bit of the result, for first and last are operands of one
program. (A loop with a fixed number of steps, `lax.scan`, gave the same bits in the same time: 8.6 and 8.9 microseconds per
step on a 64-32-10 MLP, 296 and 295 on a 784-100x3-10 one.)

The data stay on the device whole; a step gathers its rows by index, which was faster than a shuffled copy (9.0 against 9.8
microseconds per step on a 64-32-10 MLP, batch 32, two cores) and needs no second copy. Unroll is 1 everywhere: 2 gained 1 %
on that net and lost 7 % on a 784-100x3-10 one, 4 and 8 lost on both; and bits depend on it.

Randomness is a function of (key, epoch) for the order and of (key, step) for the layers, never of how the steps are split
into calls.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.train.shuffle import permutation
from fdl.train.step import Step, weight_of

MOST_STEPS = 16_384  # in one call: the length of its array of losses


def batches_in(examples: int, batch_size: int) -> int:
    return math.ceil(examples / batch_size)


def examples_in(examples: int, batch_size: int, first: int, end: int) -> np.ndarray:
    """[end - first] how many examples the batches of these steps hold, counted from the start of an epoch."""
    per_epoch = batches_in(examples, batch_size)
    is_last = np.arange(first, end) % per_epoch == per_epoch - 1
    return np.where(is_last, examples - (per_epoch - 1) * batch_size, batch_size)


def epoch_order(key: Any, epoch: Any, examples: int, batch_size: int) -> tuple[jax.Array, jax.Array | None]:
    """(indices [steps, N], mask [steps, N] or None): a fresh permutation, its last batch padded and masked if partial."""
    order = permutation(jax.random.fold_in(key, epoch), examples)
    steps = batches_in(examples, batch_size)
    padding = steps * batch_size - examples
    if padding == 0:
        return order.reshape(steps, batch_size), None
    order = jnp.concatenate([order, jnp.zeros(padding, jnp.int32)])
    counts = jnp.arange(steps * batch_size) < examples
    return order.reshape(steps, batch_size), counts.reshape(steps, batch_size)


@dataclasses.dataclass(frozen=True)
class Probe:
    """Every so many steps `step(carry, x, target, mask, weights, key, previous)` is taken instead, and returns (carry, value, what
    it saw, what the next one gets as `previous`)."""

    every: int
    step: Callable

    def slots(self, most: int) -> int:
        return most // self.every + 1


def steps_between(
    step: Step,
    batch_size: int,
    *,
    stops: bool = True,
    local: Callable = lambda rows: rows,
    most: int = MOST_STEPS,
    probe: Probe | None = None,
) -> Callable:
    """run(carry, x, target, weights, key, epoch, first, last, previous=None) -> (carry, position, values, counts, seen), not compiled.

    Takes the steps first .. last-1, numbered from the start of `epoch`; last - first is at most `most`. values [most]: the loss
    of each; counts: what its batch weighs in the mean of an epoch (None without weights); seen: with a probe, what it saw, with a
    leading axis of `probe.slots(most)`, and the last `previous`. stops: after a step whose loss is not finite; `position` is then
    the number of the step that would have been next. local: what is done to a batch's indices, for example to spread them over
    devices.
    """

    def run(carry, x, target, weights, key, epoch, first, last, previous=None):
        order_key, noise_key = jax.random.split(key)
        per_epoch = batches_in(x.shape[0], batch_size)

        def batch(order, mask, i):
            rows, counts = jax.tree.map(lambda a: local(_at(a, i)), (order, mask))
            return _rows(x, rows), _rows(target, rows), counts, None if weights is None else _rows(weights, rows)

        def noted(kept, arrays, value, slot):
            """The loss and the weight of a step, written down."""
            values, counts, seen = kept
            values = jax.lax.dynamic_update_index_in_dim(values, value, slot, 0)
            if counts is not None:
                _, _, mask_here, weights_here = arrays
                weight = weight_of(mask_here, weights_here, batch_size)
                counts = jax.lax.dynamic_update_index_in_dim(counts, weight, slot, 0)
            return values, counts, seen

        def an_epoch(kept):
            carry, position, *books = kept
            within = position % per_epoch
            end = jnp.minimum(per_epoch, within + last - position)
            order, mask = epoch_order(order_key, epoch + position // per_epoch, x.shape[0], batch_size)
            before = position - within - first

            def goes_on(kept, end=end):
                i, _, value, _ = kept
                return (i < end) & (jnp.isfinite(value) if stops else True)

            def body(kept):
                i, carry, _, books = kept
                arrays = batch(order, mask, i)
                carry, value = step(carry, *arrays, noise_key)
                return i + 1, carry, value, noted(books, arrays, value, before + i)

            def probed(kept, probe: Any = probe):
                i, carry, _, (values, counts, (seen, previous)) = kept
                arrays = batch(order, mask, i)
                slot = (carry.step - started) // probe.every
                carry, value, found, previous = probe.step(carry, *arrays, noise_key, previous)
                seen = jax.tree.map(lambda a, one: jax.lax.dynamic_update_index_in_dim(a, one, slot, 0), seen, found)
                return i + 1, carry, value, noted((values, counts, (seen, previous)), arrays, value, before + i)

            def stretch(kept, probe: Any = probe):
                # the branch is taken apart from the plain steps, for a buffer that passes through one is copied
                kept = jax.lax.cond(kept[1].step % probe.every == 0, probed, lambda kept: kept, kept)
                until = jnp.minimum(end, kept[0] + -kept[1].step % probe.every)
                return jax.lax.while_loop(functools.partial(goes_on, end=until), body, kept)

            start = (within, carry, jnp.zeros_like(books[0][0]), tuple(books))
            i, carry, _, books = jax.lax.while_loop(goes_on, body if probe is None else stretch, start)
            return carry, position - within + i, *books

        def goes_on(kept):
            _, position, values, *_ = kept
            more = position < last
            return more & ((position == first) | jnp.isfinite(values[position - first - 1])) if stops else more

        first_batch = jax.eval_shape(lambda: batch(*epoch_order(order_key, epoch, x.shape[0], batch_size), 0))
        value = jax.eval_shape(lambda *arrays: step(carry, *arrays, noise_key)[1], *first_batch)
        counts = None if weights is None else jnp.zeros(most, jnp.float32)
        seen, started = None, carry.step
        if probe is not None:
            started = carry.step + -carry.step % probe.every  # the first step that is probed
            look, slots = probe.step, probe.slots(most)
            found = jax.eval_shape(lambda *arrays: look(carry, *arrays, noise_key, previous)[2], *first_batch)
            seen = jax.tree.map(lambda a: jnp.zeros((slots, *a.shape), a.dtype), found), previous
        return jax.lax.while_loop(goes_on, an_epoch, (carry, first, jnp.zeros(most, value.dtype), counts, seen))

    return run


def _at(array: jax.Array, i: Any) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(array, i, keepdims=False)


def _rows(array: jax.Array, rows: jax.Array) -> jax.Array:
    # rows come from a permutation, so they are in bounds
    return array.at[rows].get(mode="promise_in_bounds")


def compiled(run: Callable, **how: Any) -> Callable:
    """The program of `steps_between`, which donates the carry."""
    return jax.jit(run, donate_argnums=0, compiler_options=cpu_options(), **how)


@functools.lru_cache(maxsize=1)
def cpu_options() -> dict[str, Any] | None:
    """Compiler options for the loop on CPU; None elsewhere, or where this jaxlib does not know them.

    Measured per step on two cores: 64-32-10 batch 32: 9.0 to 7.8 microseconds; 784-100x3-10 batch 60: 183 to 166. Without
    multi-threaded Eigen, x^T dy runs in the same library as the other products and skips a thread-pool hand-off that costs
    more than the product; large products still use both cores (784-1024-1024-10 batch 256: no difference).
    """
    if jax.default_backend() != "cpu":
        return None
    options = {
        "xla_cpu_multi_thread_eigen": False,
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    }
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except Exception:  # an option that this jaxlib lacks is refused at compile time, with no narrower type
        return None
    return options

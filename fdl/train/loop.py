"""The hot loop: an epoch is one `lax.scan` over its batches, and one compiled program runs epoch after epoch.

Between two calls from Python the device waits: 100 to 200 microseconds, half of an epoch of 44 small steps. So `fit` asks for
as many epochs per call as pass in a moment; how many changes no bit of the result.

The data stay on the device whole; a step gathers its rows by index, which was faster than a shuffled copy (9.0 against 9.8
microseconds per step on a 64-32-10 MLP, batch 32, two cores) and needs no second copy. Unroll is 1 everywhere: 2 gained 1 %
on that net and lost 7 % on a 784-100x3-10 one, 4 and 8 lost on both; and bits depend on it.

Randomness is a function of (key, epoch) for the order and of (key, step) for the layers, never of how the steps are split
into calls.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.backprop import value_and_grad
from fdl.layer import Layer
from fdl.losses.mean import mean
from fdl.op import Op
from fdl.train.shuffle import permutation


class Carry(NamedTuple):
    """What a step changes."""

    params: Any
    state: Any
    opt_state: Any
    step: jax.Array


def make_step(model: Layer, loss: Op | Callable, optimizer: Any, penalty: Op | None, gradient: str) -> Callable:
    """step(carry, x, target, mask, weights, key) -> (carry, value): one gradient, one update."""
    import optax

    gradients = value_and_grad(model, loss, penalty, gradient=gradient)

    def step(carry: Carry, x, target, mask, weights, key) -> tuple[Carry, jax.Array]:
        noise = jax.random.fold_in(key, carry.step) if model.stochastic else None
        (value, state), grads = gradients(carry.params, carry.state, x, target, noise, mask, weights)
        updates, opt_state = optimizer.update(grads, carry.opt_state, carry.params)
        params = optax.apply_updates(carry.params, updates)
        return Carry(params, state, opt_state, carry.step + 1), value

    return step


def batches_in(examples: int, batch_size: int) -> int:
    return math.ceil(examples / batch_size)


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


MOST_EPOCHS = 128  # in one call: the length of its array of losses


@functools.lru_cache(maxsize=64)
def epochs_program(
    model: Layer, loss: Op | Callable, optimizer: Any, penalty: Op | None, gradient: str, batch_size: int, steps: int
):
    """The compiled loop: (carry, x, target, weights, key, first, epochs) -> (carry, losses [MOST_EPOCHS], how many ran).

    Runs `epochs` epochs from the epoch `first` on, and stops early after one whose loss is not finite. A loss is the mean
    over the epoch's examples, weighted as they are. steps: how many of an epoch's batches to run. The same arguments give
    the same compiled program again. `carry` is donated.
    """
    step = make_step(model, loss, optimizer, penalty, gradient)

    def one_epoch(carry, x, target, weights, key, epoch):
        order_key, noise_key = jax.random.split(key)
        indices, mask = epoch_order(order_key, epoch, x.shape[0], batch_size)

        def body(carry, batch):
            rows, mask = batch
            weights_here = None if weights is None else _rows(weights, rows)
            carry, value = step(carry, _rows(x, rows), _rows(target, rows), mask, weights_here, noise_key)
            return carry, value

        first = jax.tree.map(lambda a: a[:steps], (indices, mask))
        carry, values = jax.lax.scan(body, carry, first)
        rows, mask = first
        return carry, mean.forward(values, _weights_of_batches(weights, rows, mask, values.dtype))[0]

    def run(carry, x, target, weights, key, first, epochs):
        def goes_on(kept):
            _, losses, done = kept
            return (done < epochs) & ((done == 0) | jnp.isfinite(losses[done - 1]))

        def body(kept):
            carry, losses, done = kept
            carry, value = one_epoch(carry, x, target, weights, key, first + done)
            return carry, losses.at[done].set(value), done + 1

        value = jax.eval_shape(one_epoch, carry, x, target, weights, key, first)[1]
        return jax.lax.while_loop(goes_on, body, (carry, jnp.zeros(MOST_EPOCHS, value.dtype), 0))

    return jax.jit(run, donate_argnums=0, compiler_options=cpu_options())


def _weights_of_batches(weights, indices, mask, dtype):
    """What each batch counts in the epoch: its number of examples, or their weights; None if all count alike."""
    if weights is None:
        return None if mask is None else mask.sum(axis=1).astype(dtype)
    rows = _rows(weights, indices).astype(dtype)  # [steps, N, ...]
    if mask is not None:
        rows = jnp.where(mask.reshape(mask.shape + (1,) * (rows.ndim - 2)), rows, jnp.zeros((), dtype))
    return rows.reshape(rows.shape[0], -1).sum(axis=1)


def _rows(array: jax.Array, rows: jax.Array) -> jax.Array:
    # rows come from a permutation, so they are in bounds
    return array.at[rows].get(mode="promise_in_bounds")


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

"""One step of training: the gradient of a batch, and the optimizer's update.

With accumulate=k the batch is cut into k parts that are differentiated one after the other, for batches that do not fit in
memory at once. The cost of a batch is a weighted mean, so the parts enter with their share of its weight W = sum_k W_k:

    C = sum_k (W_k / W) C_k        dC/dparams = sum_k (W_k / W) dC_k/dparams

Layers that look across the batch (batch normalization) see one part at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.backprop import value_and_grad
from fdl.errors import refuse_type, shown
from fdl.layer import Layer
from fdl.op import Op


class Carry(NamedTuple):
    """What a step changes."""

    params: Any
    state: Any
    opt_state: Any
    step: jax.Array  # int32, how many were taken


Step = Callable[..., tuple[Carry, jax.Array]]


def make_step(
    model: Layer, loss: Op | Callable, optimizer: Any, penalty: Op | None, gradient: str, accumulate: int = 1
) -> Step:
    """step(carry, x, target, mask, weights, key) -> (carry, value): one gradient, one update.

    An optimizer that asks for more than gradients gets this batch's value, grad and value_fn (a line search, a plateau).
    """
    import optax

    asks_for_more = isinstance(optimizer, optax.GradientTransformationExtraArgs)

    gradients = value_and_grad(model, loss, penalty, gradient=gradient)
    if accumulate > 1:
        gradients = accumulated(gradients, accumulate)

    def step(carry: Carry, x, target, mask, weights, key) -> tuple[Carry, jax.Array]:
        noise = jax.random.fold_in(key, carry.step) if model.stochastic else None
        batch = (carry.state, x, target, noise, mask, weights)
        (value, state), grads = gradients(carry.params, *batch)
        more: dict[str, Any] = {}
        if asks_for_more:
            more = {"value": value, "grad": grads, "value_fn": lambda params: gradients(params, *batch)[0][0]}
        updates, opt_state = optimizer.update(grads, carry.opt_state, carry.params, **more)
        params = optax.apply_updates(carry.params, updates)
        return Carry(params, state, opt_state, carry.step + 1), value

    return step


def accumulated(gradients: Callable, parts: int) -> Callable:
    """`gradients`, as `fdl.backprop.value_and_grad` makes them, computed part by part."""

    def cut(array):
        return array.reshape(parts, array.shape[0] // parts, *array.shape[1:])

    def over_parts(params, state, x, target, key, mask, weights):
        x, target, mask, weights = jax.tree.map(cut, (x, target, mask, weights))
        counts = jax.vmap(lambda mask, weights: weight_of(mask, weights, x.shape[1]), axis_size=parts)(mask, weights)
        total = counts.sum()
        shares = counts / jnp.where(total > 0, total, jnp.ones_like(total))

        def part(kept, batch):
            state, total, sums = kept
            index, share, x, target, mask, weights = batch
            noise = None if key is None else jax.random.fold_in(key, index)
            (value, state), grads = gradients(params, state, x, target, noise, mask, weights)
            sums = jax.tree.map(lambda s, g: s + share.astype(g.dtype) * g, sums, grads)
            return (state, total + share.astype(value.dtype) * value, sums), None

        batches = (jnp.arange(parts), shares, x, target, mask, weights)
        first = jax.tree.map(lambda a: a[0], batches[2:])
        (value, _), _ = jax.eval_shape(gradients, params, state, first[0], first[1], key, *first[2:])
        start = (state, jnp.zeros((), value.dtype), jax.tree.map(jnp.zeros_like, params))
        (state, value, grads), _ = jax.lax.scan(part, start, batches)
        return (value, state), grads

    return over_parts


def weight_of(mask: Any, weights: Any, examples: int) -> jax.Array:
    """What a batch counts in a mean: its number of examples, or their weights."""
    if weights is None:
        return jnp.asarray(examples, jnp.float32) if mask is None else mask.sum().astype(jnp.float32)
    if mask is not None:
        weights = jnp.where(
            mask.reshape(mask.shape + (1,) * (weights.ndim - mask.ndim)), weights, jnp.zeros_like(weights)
        )
    return weights.sum().astype(jnp.float32)


def require_optimizer(where: str, optimizer: Any) -> None:
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        refuse_type(where, f"optimizer is {shown(optimizer)}, wanted an optax transformation such as optax.sgd(0.1)")

"""The proximal step of L1: exact zeros, as an optax transformation at the end of a chain.

    optimizer = optax.chain(optax.sgd(0.1), fdl.regularizers.proximal_l1(1e-3, learning_rate=0.1))

The gradient step goes first, by the loss alone; then every weight moves towards 0 by learning_rate * strength and stops
there:

    w <- prox(w + update),   prox(v) = argmin_w (w - v)^2 / 2 + t |w| = sign(v) max(|v| - t, 0),   t = learning_rate strength

Derivation. Where w > 0 the slope w - v + t is 0 at w = v - t, which is above 0 if v > t; mirrored below 0. In between, 0
is the minimum: the subgradients -v + [-t, t] contain 0 if |v| <= t.

After plain SGD this is ISTA, which descends to the minimum of loss + strength sum |w|; the penalty itself then does not
belong in the loss. After Adam it is decoupled L1, to `l1` what AdamW is to `l2`: every weight moves by the same t, and the
minimum is another one than that of loss + penalty. Adam's steps are about learning_rate long however small the gradient,
so that a strength well below 1 does not hold a weight at 0 until the learning rate or the gradients' noise has died down.

Limits.
| w + update | new w          | why                                                                                         |
|------------|----------------|---------------------------------------------------------------------------------------------|
| within t   | exactly 0      | the update is -w, and w + (-w) = 0 in every precision; +-t included                         |
| +-inf, NaN | +-inf, NaN     | loud                                                                                        |

Strength and learning rate are numbers, traced scalars, or schedules (functions step -> number, as optax's), with the same
count of steps, from 0, as the optimizer's own. Errors: InputError for a negative number, missing params, or a filter that
matches nothing. Source: Parikh & Boyd 2014, sections 4.2 and 6.5.2; Beck & Teboulle 2009, section 2 (ISTA).
"""

from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse
from fdl.regularizers._chosen import Filter, chosen, like, weights_only, wide
from fdl.regularizers.scheduled import Steps, at_step, require_number_or_schedule


def soft_threshold(v: Any, threshold: Any) -> Any:
    """sign(v) max(|v| - threshold, 0): exactly 0 where |v| <= threshold.

    >>> fdl.regularizers.soft_threshold(jnp.float32([-2, 0.5, 3]), 1.0)
    Array([-1.,  0.,  2.], dtype=float32)
    """
    shrunk = jnp.maximum(jnp.abs(v) - like(threshold, v), jnp.zeros((), v.dtype))
    return jnp.where(shrunk == 0, jnp.zeros_like(v), jnp.sign(v) * shrunk)


def proximal_l1(
    strength: Any,
    learning_rate: Any,
    *,
    filter: Filter = weights_only,
) -> Any:
    """An optax transformation, last in a chain: the new weights are soft_threshold(w + update, learning_rate strength).

    >>> optimizer = optax.chain(optax.sgd(0.1), fdl.regularizers.proximal_l1(1.0, 0.1))
    >>> params = {"w": jnp.float32([[0.05, 2]])}
    >>> updates, _ = optimizer.update({"w": jnp.zeros((1, 2), jnp.float32)}, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"]
    Array([[0. , 1.9]], dtype=float32)
    """
    import optax

    where = "regularizers.proximal_l1"
    require_number_or_schedule(where, "strength", strength)
    require_number_or_schedule(where, "learning_rate", learning_rate)

    def update(updates, state, params=None):
        if params is None:
            refuse(where, "params are missing; call optimizer.update(grads, state, params)")
        factors = [at_step(factor, state.count) for factor in (strength, learning_rate)]

        def shrink(seen, w, update):
            if not seen:
                return update
            t = like(factors[0], wide(w)) * like(factors[1], wide(w))
            return (soft_threshold(wide(w) + wide(update), t) - wide(w)).astype(update.dtype)

        pairs = chosen("proximal_l1", params, filter)
        leaves, structure = jax.tree.flatten(updates)
        new = [shrink(seen, w, u) for (seen, w), u in zip(pairs, leaves, strict=True)]
        return jax.tree.unflatten(structure, new), Steps(optax.safe_increment(state.count))

    def init(params):
        chosen("proximal_l1", params, filter)  # a filter that matches nothing fails here already
        return Steps(jnp.zeros((), jnp.int32))

    return optax.GradientTransformation(init, update)

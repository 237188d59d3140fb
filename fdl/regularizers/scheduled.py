"""A penalty whose strength follows a schedule: a function step -> strength, as optax's.

A penalty is a pure function of the parameters and does not know the step. Two ways to give it one:

- in a training step of one's own, where the step is at hand, a penalty is made there, with a traced strength:

      penalty = fdl.regularizers.l2(schedule(step))

- else, as with `fdl.train.fit`, in the optimizer, which counts its steps. First in a chain, it adds the gradient of the
  penalty, by its hand-written backward, to that of the loss:

      schedule = optax.linear_schedule(0.0, 1e-3, 1000)
      optimizer = optax.chain(fdl.regularizers.scheduled(fdl.regularizers.l2, schedule), optax.adam(1e-3))

  The updates are those of loss + penalty, the reported loss is the loss alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.errors import refuse, refuse_type, require_number, shown
from fdl.op import Op


class Steps(NamedTuple):
    """The state of these transformations: how many updates there have been."""

    count: Any


def scheduled(penalty: Callable[..., Op], strength: Any, **options: Any) -> Any:
    """An optax transformation, first in a chain: adds the gradient of penalty(strength(step), **options), step from 0.

    >>> decay = fdl.regularizers.scheduled(fdl.regularizers.l2, optax.linear_schedule(1.0, 0.0, 100))
    >>> params = {"w": jnp.float32([[1, 2]])}
    >>> decay.update({"w": jnp.zeros((1, 2), jnp.float32)}, decay.init(params), params)[0]["w"]
    Array([[2., 4.]], dtype=float32)
    """
    import optax

    where = "regularizers.scheduled"
    if not callable(strength):
        refuse_type(where, f"strength is {shown(strength)}, wanted a function of the step")

    def update(updates, state, params=None):
        if params is None:
            refuse(where, "params are missing; call optimizer.update(grads, state, params)")
        op = penalty(strength(state.count), **options)
        value, residuals = op.forward(params)
        (dparams,) = op.backward(residuals, jnp.ones_like(value))
        added = jax.tree.map(lambda u, d: u if d is None else u + d.astype(u.dtype), updates, dparams)
        return added, Steps(optax.safe_increment(state.count))

    return optax.GradientTransformation(lambda params: Steps(jnp.zeros((), jnp.int32)), update)


def at_step(value: Any, step: Any) -> Any:
    return value(step) if callable(value) else value


def require_number_or_schedule(where: str, name: str, value: Any) -> None:
    if not callable(value):
        require_number(where, name, value, 0, float("inf"), remedy="pass a number, or a function of the step")

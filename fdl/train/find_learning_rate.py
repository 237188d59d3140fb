"""A learning rate from one short run: the rate grows from step to step until the loss explodes.

    rate(i) = low (high / low)^(i / steps)

The loss against the rate is flat where the rate is too small to learn, falls where it learns, and rises where it diverges. What is
suggested is the rate at which the smoothed loss falls steepest per decade; training starts well there or a factor of 3 above.
Source: L. N. Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.backprop import require_loss, require_model, require_penalty
from fdl.errors import refuse, refuse_type, require_count, require_key, require_number, shown
from fdl.layer import Layer
from fdl.op import Op
from fdl.train.evaluate import checked_data
from fdl.train.fit import require_finite
from fdl.train.loop import compiled, steps_between
from fdl.train.step import Carry, make_step, require_optimizer

_SMOOTHED = 0.9  # share of the average that stays at each step
_EXPLODED = 4.0  # times the lowest loss: the end of the run


@dataclasses.dataclass(frozen=True)
class LearningRates:
    """rates, losses: [steps] up to where the loss exploded; smoothed: the losses' running mean. suggestion: a rate to start with.

    >>> data = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    >>> found = fdl.train.find_learning_rate(
    ...     fdl.dense(2), fdl.losses.mean_squared_error, optax.sgd, data, key=jax.random.key(0), steps=50
    ... )
    >>> found.rates.shape == found.losses.shape
    True
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float

    def __repr__(self) -> str:
        exploded = f"the loss was lowest at {self.rates[int(self.smoothed.argmin())]:.2g}"
        return f"LearningRates(suggestion={self.suggestion:.2g}; {exploded}, {len(self.rates)} steps)"


def find_learning_rate(
    model: Layer,
    loss: Op | Callable,
    make_optimizer: Callable[..., Any],
    data: tuple[Any, Any],
    *,
    key: Any,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    batch_size: int = 128,
    penalty: Op | None = None,
    gradient: str = "manual",
) -> LearningRates:
    """Trains once with growing rates. make_optimizer: of a learning rate, which may be a schedule, as optax.sgd is one.

    low, high: the first and the last rate. The rest as in `fit`. Errors: InputError where the loss never falls, with what to change.

        >>> data = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
        >>> found = fdl.train.find_learning_rate(
        ...     fdl.dense(2), fdl.losses.mean_squared_error, optax.sgd, data, key=jax.random.key(0), steps=50
        ... )
        >>> bool(1e-6 <= found.suggestion <= 10)
        True
    """
    where = "train.find_learning_rate"
    require_model(where, model)
    require_loss(where, loss, gradient)
    require_penalty(where, penalty)
    require_key(where, key, "pass key=jax.random.key(0)")
    require_count(where, "batch_size", batch_size)
    require_count(where, "steps", steps)
    if steps < 20:
        refuse(where, f"steps is {steps}, wanted at least 20, to tell a slope from noise")
    for name, rate in (("low", low), ("high", high)):
        require_number(where, name, rate, 0, math.inf, remedy="it is a learning rate", exclusive=True)
    if not callable(make_optimizer):
        refuse_type(
            where,
            f"make_optimizer is {shown(make_optimizer)}, wanted a function of a learning rate: optax.sgd, not optax.sgd(0.1)",
        )
    if not 0 < low < high < math.inf:
        refuse(where, f"low is {low} and high is {high}, wanted 0 < low < high")
    x, target = checked_data(where, data)
    require_finite(where, x, target, None)
    optimizer = make_optimizer(lambda step: low * (high / low) ** (step.astype(jnp.float32) / steps))
    require_optimizer(where, optimizer)
    init_key, train_key = jax.random.split(key)
    params, state = model.init(init_key, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    carry = Carry(params, state, optimizer.init(params), jnp.zeros((), jnp.int32))
    run = steps_between(make_step(model, loss, optimizer, penalty, gradient), min(batch_size, x.shape[0]), most=steps)
    _, taken, values, *_ = compiled(run)(carry, x, target, None, train_key, 0, 0, steps)
    return suggested(
        low * (high / low) ** (np.arange(int(taken)) / steps), np.asarray(values, np.float64)[: int(taken)]
    )


def suggested(rates: np.ndarray, losses: np.ndarray) -> LearningRates:
    """The rates up to the explosion, and the one at which the loss falls steepest."""
    finite = len(losses) if np.isfinite(losses).all() else int(np.argmin(np.isfinite(losses)))
    average, smoothed, lowest = 0.0, [], math.inf
    for i, value in enumerate(losses[:finite]):
        average = _SMOOTHED * average + (1 - _SMOOTHED) * value
        smoothed.append(average / (1 - _SMOOTHED ** (i + 1)))
        lowest = min(lowest, smoothed[-1])
        if i >= 10 and smoothed[-1] > _EXPLODED * max(lowest, 0.0) and smoothed[-1] > smoothed[0]:
            break
    curve = np.asarray(smoothed)
    bottom = int(curve.argmin()) if len(curve) else 0
    if bottom < 5:
        reason = "diverges from the start" if len(curve) < len(losses) else "does not fall at any rate"
        refuse(
            "train.find_learning_rate",
            f"the loss {reason}, between the rates {rates[0]:.2g} and {rates[max(len(curve) - 1, 0)]:.2g}; give a lower low or "
            "a higher high, or look at the model with fdl.doctor.examine",
        )
    slope = np.gradient(curve[: bottom + 1], np.log10(rates[: bottom + 1]))
    n = len(curve)
    return LearningRates(rates[:n], losses[:n], curve, float(rates[int(slope.argmin())]))

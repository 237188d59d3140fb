"""Poisson loss, per example: the negative log-likelihood of counts given predicted rates, less log(target!).

    loss = 1/D sum_d (pred[d] - target[d] log pred[d])

Backward. For a cotangent dloss

    dpred[d] = dloss/D (1 - target[d] / pred[d])          dtarget[d] = -dloss/D log pred[d]

computed as (pred - target) / pred, which keeps its digits near the minimum.

Limits.
| input                | loss | dpred | dtarget | why                                                |
|----------------------|------|-------|---------|----------------------------------------------------|
| pred 0, target 0     | 0    | 1/D   | inf     | target log pred is 0 where target is               |
| pred 0, target > 0   | inf  | -inf  | inf     | what happened was said to be impossible            |
| pred 1e-30, target 1 | 69.1 | -1e30 | 69.1    | no epsilon: the slope is alive                     |
| pred < 0             | NaN  | NaN   | NaN     | loud: no rate; make it one with exp or softplus    |
| target < 0           | NaN  | NaN   | NaN     | loud: no count; the loss would have no lower bound |
| pred inf             | inf  | 1/D   | -inf    | pred outgrows its logarithm                        |
| NaN                  | NaN  | NaN   | NaN     | loud                                               |

Where pred is 0 and target 1 Keras (log(pred + 1e-7)) gives 16.1 and the slope -1e7, PyTorch (1e-8) 18.4 and -1e8.

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors:
InputError for unequal shapes, InputTypeError for other dtypes. Source: Keras `poisson`, with the target second; PyTorch
`PoissonNLLLoss(log_input=False)`. optax lacks it.

    >>> fdl.losses.poisson(jnp.float32([[1]]), jnp.float32([[3]]))  # p - t log p
    Array([1.], dtype=float32)
"""

import jax.numpy as jnp

from fdl.losses._per_example import opened, through_mean, widened
from fdl.op import Op


def equation(pred, target):
    return jnp.mean(pred - target * jnp.log(pred), axis=-1)


def forward(pred, target):
    p, t = _in_domain(*opened("poisson", pred, target))
    log_rate = jnp.log(jnp.where(_without_logarithm(p, t), jnp.ones_like(p), p))
    return jnp.mean(p - t * log_rate, axis=-1), (pred, target)


def backward(residuals, dloss):
    pred, target = residuals
    p, t = _in_domain(*widened(pred, target))
    skipped = _without_logarithm(p, t)
    count = jnp.where(skipped, jnp.zeros_like(t), t)
    rate = jnp.where(skipped, jnp.ones_like(p), jnp.where(p == 0, jnp.zeros_like(p), p))  # -0.0 is a rate of 0
    # close to the count the difference is exact, above it 1 - t / p is, and so is its derivative t / p^2
    slope = jnp.where(rate > 2 * count, 1 - count / rate, (rate - count) / rate)
    dpred = through_mean(dloss, slope).astype(pred.dtype)
    return dpred, through_mean(dloss, -jnp.log(p)).astype(target.dtype)


def _without_logarithm(p, t):
    """Where target log pred is 0 log 0, or nothing beside an infinite pred."""
    return ((p == 0) & (t == 0)) | (p == jnp.inf)


def _in_domain(p, t):
    """NaN for both where the rate or the count is negative, or either is NaN."""
    good = (p >= 0) & (t >= 0)
    return jnp.where(good, p, jnp.full_like(p, jnp.nan)), jnp.where(good, t, jnp.full_like(t, jnp.nan))


poisson = Op(equation, forward, backward)

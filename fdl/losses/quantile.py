"""Quantile loss (pinball loss), per example: its minimiser over a constant is the q-quantile of the targets.

    loss = 1/D sum_d h(x[d])        x = pred - target        h(x) = (1 - q) x    for x >= 0 (predicted too much)
                                                             h(x) = -q x         for x < 0  (too little)

Backward. h is two lines, so for a cotangent dloss

    dpred[d] = dloss/D (1 - q) for x[d] > 0, -dloss/D q for x[d] < 0          dtarget = -dpred

At the minimum over a constant the slopes balance: (1 - q) times the share of targets below = q times the share above.

Limits.
| input          | loss      | gradient  | why                                                  |
|----------------|-----------|-----------|------------------------------------------------------|
| pred = target  | 0         | 0         | every slope in [-q, 1 - q] is a subgradient          |
| x = +-inf      | inf       | 1 - q, -q |                                                      |
| q = 0 or 1     | one-sided | one-sided | the free side costs 0, also for an infinite residual |
| inf - inf, NaN | NaN       | NaN       | loud                                                 |

q = 1/2 is half the mean absolute error.

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. q: a number in
[0, 1] or a scalar array. Errors: InputError for unequal shapes or another q, InputTypeError for other dtypes. Source:
Koenker & Bassett 1978, eq. 3.1; scikit-learn `mean_pinball_loss(alpha=q)`. Keras, optax and PyTorch lack it.

    >>> fdl.losses.quantile(jnp.float32([[1]]), jnp.float32([[3]]), q=0.75)  # too low costs three times as much
    Array([1.5], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_number
from fdl.losses._per_example import opened, through_mean, widened
from fdl.op import Op


def equation(pred, target, *, q=0.5):
    x, q = pred - target, jnp.asarray(q, pred.dtype)
    return jnp.mean(jnp.where(x >= 0, (1 - q) * x, -q * x), axis=-1)


def forward(pred, target, *, q):
    wide_pred, wide_target = opened("quantile", pred, target)
    require_number("quantile", "q", q, 0, 1, remedy="it is the share of the targets that lie below")
    x = wide_pred - wide_target
    slope = _slope(x, q)
    free = slope == 0  # 0 * inf
    return jnp.mean(slope * jnp.where(free, jnp.zeros_like(x), x), axis=-1), (pred, target)


def backward(residuals, dloss, *, q):
    pred, target = residuals
    wide_pred, wide_target = widened(pred, target)
    dpred = through_mean(dloss, _slope(wide_pred - wide_target, q)).astype(pred.dtype)
    return dpred, -dpred


def _slope(x, q):
    over, under = jnp.asarray(1 - q, x.dtype), jnp.asarray(-q, x.dtype)
    return jnp.where(x > 0, over, jnp.where(x < 0, under, jnp.sign(x)))  # the sign of NaN is NaN


quantile = Op(equation, forward, backward)

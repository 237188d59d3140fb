"""Mean absolute percentage error, per example, in percent of the target.

    loss = 100/D sum_d |(pred[d] - target[d]) / target[d]|

Backward. With r[d] = pred[d]/target[d] - 1 the terms are |r[d]|, and dr/dpred = 1/target, dr/dtarget = -pred/target^2.
The sign of r is that of (pred - target) target, so for a cotangent dloss and s[d] = sign(pred[d] - target[d])

    dpred[d] = 100 dloss/D s[d] / |target[d]|          dtarget[d] = -100 dloss/D s[d] pred[d]/target[d] / |target[d]|

Limits (t the target).
| input                | loss | dpred          | dtarget | why                                                    |
|----------------------|------|----------------|---------|--------------------------------------------------------|
| pred = target        | 0    | 0              | 0       | 0 is a subgradient                                     |
| t = 0, pred = 0      | 0    | 0              | 0       | no error is no error, and 0 is a subgradient           |
| t = 0, pred not 0    | inf  | sign(pred) inf | 0       | the limit; dtarget tends to -+inf from the two sides   |
| t = 1e-9, pred = 0   | 100  | -+1e11         | exact   | nothing is clipped                                     |
| pred = +-inf         | inf  | +-100/abs(t)   | -+inf   | the limit                                              |
| t = +-inf            | 100  | 0              | 0       | the limit                                              |
| 3e38 against -3e38   | 200  | exact          | exact   | the difference does not fit in float32, the ratio does |
| inf against inf, NaN | NaN  | NaN            | NaN     | loud                                                   |

Keras divides by max(|target|, 1e-7): with t = 0 it gives 1e9 |pred| and slopes of +-1e9, also where pred is 0.

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors:
InputError for unequal shapes, InputTypeError for other dtypes. Source: Keras `mean_absolute_percentage_error`, with the
target second.

    >>> fdl.losses.mean_absolute_percentage_error(jnp.float32([[3]]), jnp.float32([[4]]))
    Array([25.], dtype=float32)
"""

import jax.numpy as jnp

from fdl.losses._per_example import opened, through_mean, widened
from fdl.op import Op


def equation(pred, target):
    return 100 * jnp.mean(jnp.abs((pred - target) / target), axis=-1)


def forward(pred, target):
    p, t = opened("mean_absolute_percentage_error", pred, target)
    difference = p - t
    nonzero = jnp.where(difference == 0, jnp.ones_like(t), t)  # 0/0 where both are 0
    # p/t - 1 loses digits where the two are close, and serves only where their difference overflows
    ratio = jnp.where(jnp.isinf(difference), p / nonzero - 1, difference / nonzero)
    return 100 * jnp.mean(jnp.abs(ratio), axis=-1), (pred, target)


def backward(residuals, dloss):
    pred, target = residuals
    p, t = widened(pred, target)
    slope = 100 * jnp.sign(p - t) / jnp.abs(jnp.where(p == t, jnp.ones_like(t), t))
    at_zero = (t == 0) & ~jnp.isnan(p)
    ratio = p / jnp.where(at_zero, jnp.ones_like(t), t)
    dtarget = jnp.where(at_zero, jnp.zeros_like(t), -slope * ratio)
    return through_mean(dloss, slope).astype(pred.dtype), through_mean(dloss, dtarget).astype(target.dtype)


mean_absolute_percentage_error = Op(equation, forward, backward)

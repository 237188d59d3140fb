"""Mean squared error, per example: the squared Euclidean distance between prediction and target, divided by D.

    loss = 1/D sum_d (pred[d] - target[d])^2

Backward. Only the d-th term holds pred[d], so for a cotangent dloss

    dpred[d] = dloss 2/D (pred[d] - target[d])          dtarget = -dpred

Limits.
| input              | loss      | gradient          | why                                                      |
|--------------------|-----------|-------------------|----------------------------------------------------------|
| pred = target      | 0         | 0                 |                                                          |
| +-1e30 in float32  | inf       | 2/D (pred-target) | 1e60 does not fit; the gradient does                     |
| float16 300 vs 0   | 90000     | right             | 16-bit losses are computed and returned in float32       |
| inf - finite       | inf       | inf               |                                                          |
| inf - inf, NaN     | NaN       | NaN               | loud                                                     |

Shapes: pred, target [..., D] float, loss [...]; nothing is broadcast. Errors: InputError for unequal shapes,
InputTypeError for other dtypes. Same as Keras's `mean_squared_error`; optax's `squared_error` is not averaged over D.

    >>> fdl.losses.mean_squared_error(jnp.float32([[1, 3]]), jnp.float32([[0, 0]]))
    Array([5.], dtype=float32)
"""

import jax.numpy as jnp

from fdl.losses._per_example import opened, through_mean, widened
from fdl.op import Op


def equation(pred, target):
    return jnp.mean((pred - target) ** 2, axis=-1)


def forward(pred, target):
    wide_pred, wide_target = opened("mean_squared_error", pred, target)
    x = wide_pred - wide_target  # [..., D]
    return jnp.mean(x * x, axis=-1), (pred, target)


def backward(residuals, dloss):
    pred, target = residuals
    wide_pred, wide_target = widened(pred, target)
    dpred = through_mean(dloss, 2 * (wide_pred - wide_target)).astype(pred.dtype)
    return dpred, -dpred


mean_squared_error = Op(equation, forward, backward)

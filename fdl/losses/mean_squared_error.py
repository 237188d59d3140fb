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
"""

import jax.numpy as jnp

from fdl.errors import require_float, require_rank_at_least, require_same_dtype, require_same_shape
from fdl.op import Op, accumulator


def equation(pred, target):
    return jnp.mean((pred - target) ** 2, axis=-1)


def forward(pred, target):
    where = "mean_squared_error"
    require_float(where, "pred", pred)
    require_float(where, "target", target)
    require_rank_at_least(where, "pred", pred, 1, "the outputs of an example last")
    require_same_shape(where, "pred", pred, "target", target)
    require_same_dtype(where, "pred", pred, "target", target)
    wide = accumulator(pred.dtype)
    difference = pred.astype(wide) - target.astype(wide)  # [..., D]
    return jnp.mean(difference * difference, axis=-1), (pred, target)


def backward(residuals, dloss):
    pred, target = residuals
    difference = pred.astype(dloss.dtype) - target.astype(dloss.dtype)
    dpred = (2 / pred.shape[-1] * dloss[..., None] * difference).astype(pred.dtype)
    return dpred, -dpred


mean_squared_error = Op(equation, forward, backward)

"""Mean absolute error, per example.

    loss = 1/D sum_d |pred[d] - target[d]|

Backward. d|x|/dx is the sign of x, so for a cotangent dloss

    dpred[d] = dloss/D sign(pred[d] - target[d])          dtarget = -dpred

Limits.
| input           | loss     | gradient | why                                                                          |
|-----------------|----------|----------|------------------------------------------------------------------------------|
| pred = target   | 0        | 0        | every slope in [-1/D, 1/D] is a subgradient, and 0 keeps a fit that is exact |
| +-1e30, +-1e-30 | its size | +-1/D    | the slope does not shrink with the residual                                  |
| +-inf           | inf      | +-1/D    |                                                                              |
| inf - inf, NaN  | NaN      | NaN      | loud                                                                         |

At pred = target Keras, whose slope of abs at 0 is JAX's, gives -1/D, PyTorch 0.

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors:
InputError for unequal shapes, InputTypeError for other dtypes. Source: Keras `mean_absolute_error`, with the target
second.

    >>> fdl.losses.mean_absolute_error(jnp.float32([[1, 3]]), jnp.float32([[0, 0]]))
    Array([2.], dtype=float32)
"""

import jax.numpy as jnp

from fdl.losses._per_example import opened, through_mean, widened
from fdl.op import Op


def equation(pred, target):
    return jnp.mean(jnp.abs(pred - target), axis=-1)


def forward(pred, target):
    wide_pred, wide_target = opened("mean_absolute_error", pred, target)
    return jnp.mean(jnp.abs(wide_pred - wide_target), axis=-1), (pred, target)


def backward(residuals, dloss):
    pred, target = residuals
    wide_pred, wide_target = widened(pred, target)
    dpred = through_mean(dloss, jnp.sign(wide_pred - wide_target)).astype(pred.dtype)
    return dpred, -dpred


mean_absolute_error = Op(equation, forward, backward)

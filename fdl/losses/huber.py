"""Huber loss, per example: squared near 0, linear beyond delta, so that an outlier pulls no harder than delta.

    loss = 1/D sum_d h(x[d])        x = pred - target        h(x) = x^2 / 2                    for |x| <= delta
                                                             h(x) = delta (|x| - delta / 2)    beyond

Backward. h'(x) = x inside and delta sign(x) beyond: the residual, clipped. For a cotangent dloss

    dpred[d] = dloss/D clip(x[d], -delta, delta)          dtarget = -dpred

Limits.
| input          | loss         | gradient  | why                                                                     |
|----------------|--------------|-----------|-------------------------------------------------------------------------|
| pred = target  | 0            | 0         |                                                                         |
| x = +-delta    | delta^2 / 2  | +-delta/D | both pieces have this value and slope; the second derivative there is 1 |
| x = +-1e30     | delta abs(x) | +-delta/D | the square of the other piece is never formed                           |
| x = +-inf      | inf          | +-delta/D | Keras's gradient is NaN                                                 |
| inf - inf, NaN | NaN          | NaN       | loud                                                                    |

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. delta: a
positive number or a scalar array. Errors: InputError for unequal shapes or a delta that is not positive, InputTypeError
for other dtypes. Source: Huber 1964, section 5; Keras `huber`. optax's `huber_loss` is not averaged over D, PyTorch's
`HuberLoss` is the same.

    >>> fdl.losses.huber(jnp.float32([[2]]), jnp.float32([[0]]))  # delta (|x| - delta / 2)
    Array([1.5], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_number
from fdl.losses._per_example import opened, through_mean, widened
from fdl.op import Op


def equation(pred, target, *, delta=1.0):
    x, delta = jnp.abs(pred - target), jnp.asarray(delta, pred.dtype)
    return jnp.mean(jnp.where(x <= delta, x**2 / 2, delta * (x - delta / 2)), axis=-1)


def forward(pred, target, *, delta):
    wide_pred, wide_target = opened("huber", pred, target)
    remedy = "it is the size of the largest residual that is no outlier"
    require_number("huber", "delta", delta, 0, float("inf"), exclusive=True, remedy=remedy)
    x = wide_pred - wide_target
    delta = jnp.asarray(delta, x.dtype)
    inside = jnp.abs(x) <= delta
    square = jnp.where(inside, x, jnp.zeros_like(x))
    beyond = jnp.where(inside, jnp.zeros_like(x), jnp.abs(x))
    piece = jnp.where(inside, square * (square / 2), delta * (beyond - delta / 2))
    return jnp.mean(piece, axis=-1), (pred, target)


def backward(residuals, dloss, *, delta):
    pred, target = residuals
    wide_pred, wide_target = widened(pred, target)
    x = wide_pred - wide_target
    delta = jnp.asarray(delta, x.dtype)
    # not jnp.clip, whose derivative at +-delta is 1/2
    slope = jnp.where(jnp.abs(x) <= delta, x, delta * jnp.sign(x))
    dpred = through_mean(dloss, slope).astype(pred.dtype)
    return dpred, -dpred


huber = Op(equation, forward, backward)

"""Pseudo-Huber loss, per example: Huber's shape without a seam, smooth to every order.

    loss = 1/D sum_d h(x[d])        x = pred - target        h(x) = delta^2 (sqrt(1 + (x / delta)^2) - 1)

Backward. With s = sqrt(1 + (x / delta)^2), ds/dx = x / (delta^2 s), and for a cotangent dloss

    dpred[d] = dloss/D x[d] / s[d]          dtarget = -dpred

The slope is x near 0 and tends to +-delta. Forward. s - 1 loses its digits near 0, and (s - 1)(s + 1) = (x / delta)^2,
so

    h(x) = x^2 / (1 + s)                    and, to the last digit, delta (|x| - delta) where |x| > 1e10 delta

Limits.
| input             | loss         | gradient  | why                                  |
|-------------------|--------------|-----------|--------------------------------------|
| pred = target     | 0            | 0         |                                      |
| x = 1e-4, delta 1 | 5e-9         | 1e-4/D    | the plain formula gives 0 in float32 |
| x = +-1e30        | delta abs(x) | +-delta/D | the square is not formed there       |
| x = +-inf         | inf          | +-delta/D |                                      |
| inf - inf, NaN    | NaN          | NaN       | loud                                 |

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. delta: a
positive number or a scalar array. Errors: InputError for unequal shapes or a delta that is not positive, InputTypeError
for other dtypes. Source: Hartley & Zisserman 2003, appendix A6.8 (there 2 h); scipy.special.pseudo_huber. Keras, optax
and PyTorch lack it.

    >>> fdl.losses.pseudo_huber(jnp.float32([[0.75]]), jnp.float32([[0]]))  # sqrt(1 + 9/16) - 1
    Array([0.25], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_number
from fdl.losses._per_example import opened, through_mean, widened
from fdl.op import Op

_FAR = 1e10  # sqrt(1 + r^2) is r, and r - 1 the rest, to less than the rounding of a float64


def equation(pred, target, *, delta=1.0):
    delta = jnp.asarray(delta, pred.dtype)
    return jnp.mean(delta**2 * (jnp.sqrt(1 + ((pred - target) / delta) ** 2) - 1), axis=-1)


def forward(pred, target, *, delta):
    wide_pred, wide_target = opened("pseudo_huber", pred, target)
    remedy = "it is the slope that the loss tends to"
    require_number("pseudo_huber", "delta", delta, 0, float("inf"), exclusive=True, remedy=remedy)
    x = wide_pred - wide_target
    delta = jnp.asarray(delta, x.dtype)
    far, near, s = _parts(x, delta)
    beyond = jnp.where(far, jnp.abs(x), jnp.zeros_like(x))
    return jnp.mean(jnp.where(far, delta * (beyond - delta), near * (near / (1 + s))), axis=-1), (pred, target)


def backward(residuals, dloss, *, delta):
    pred, target = residuals
    wide_pred, wide_target = widened(pred, target)
    x = wide_pred - wide_target
    delta = jnp.asarray(delta, x.dtype)
    # two forms of one slope, so that the derivative of neither is a difference of almost equal numbers
    outside = jnp.abs(x) > delta
    inner = jnp.where(outside, jnp.zeros_like(x), x)
    outer = jnp.where(outside, x, delta)
    of_inner = inner / jnp.sqrt(1 + (inner / delta) ** 2)
    of_outer = delta * jnp.sign(outer) / jnp.sqrt(1 + (delta / outer) ** 2)
    dpred = through_mean(dloss, jnp.where(outside, of_outer, of_inner)).astype(pred.dtype)
    return dpred, -dpred


def _parts(x, delta):
    """(where x is far out, x elsewhere and 0 there, s of that)."""
    far = jnp.abs(x / delta) > _FAR
    near = jnp.where(far, jnp.zeros_like(x), x)
    return far, near, jnp.sqrt(1 + (near / delta) ** 2)


pseudo_huber = Op(equation, forward, backward)

"""Tversky loss: the overlap of two masks, with a price for each of the two ways to be wrong.

    loss = 1 - r        r = (sum_i p[i] t[i] + smooth) / S        S = sum_i p[i] t[i] + alpha missed + beta alarms + smooth

    missed = sum_i t[i] (1 - p[i])        alarms = sum_i p[i] (1 - t[i])

alpha weighs what was missed and beta the false alarms, as Keras computes it (its variable `fp` holds the sum of
t (1 - p), although its text says "false positives"); in the paper and in optax alpha weighs the false alarms. With alpha = beta = 0.5
it is the Dice loss with twice this `smooth`. The sums run over `axis`, as in `dice`.

Backward. dS/dp[i] = t[i] - alpha t[i] + beta (1 - t[i]) and dS/dt[i] = p[i] + alpha (1 - p[i]) - beta p[i]; the quotient rule gives

    dpred[i] = - dloss (t[i] - r dS/dp[i]) / S          dtarget[i] = - dloss (p[i] - r dS/dt[i]) / S

Limits.
| input                        | loss | gradient   | why                                                                       |
|------------------------------|------|------------|---------------------------------------------------------------------------|
| both masks empty, smooth 0   | 1    | 0          | the limit, as in `dice` and in Keras; smooth > 0 gives 0 and a live gradient |
| target empty, smooth 0       | 1    | 0 for pred | no overlap, however small pred is                                         |
| alpha 0, pred empty          | 1    | -t for pred | 0/0, what was missed is free: S is taken as 1; Keras divides by 1e-7     |
| beta 0, target empty         | 1    | -p for target | likewise                                                                |
| NaN, entries of 1e30         | NaN  | NaN        | 0 where dloss is 0: an example without weight does not count              |

Shapes: pred, target float of equal shape, loss: the axes that are not summed. Errors: InputError, InputTypeError.
Source: Salehi, Erdogmus & Gholipour 2017, eq. 3; Keras's `tversky`, without the 1e-7 in its denominator.

    >>> fdl.losses.tversky(jnp.float32([[1, 1, 0]]), jnp.float32([[1, 0, 0]]), alpha=0.0, beta=1.0).round(4)
    Array([0.5], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_number, require_pair
from fdl.losses._per_example import times, widened
from fdl.losses.dice import ratio, summed_axes
from fdl.op import Op


def equation(pred, target, *, alpha=0.5, beta=0.5, axis="example", smooth=0.0):
    axes = summed_axes("tversky", axis, pred.ndim)
    overlap = jnp.sum(pred * target, axis=axes)
    missed = jnp.sum(target * (1 - pred), axis=axes)
    alarms = jnp.sum(pred * (1 - target), axis=axes)
    return 1 - (overlap + smooth) / (overlap + alpha * missed + beta * alarms + smooth)


def forward(pred, target, *, alpha, beta, axis, smooth):
    require_pair("tversky", "pred", pred, "target", target, 1, "examples first")
    for name, value in (("alpha", alpha), ("beta", beta), ("smooth", smooth)):
        require_number("tversky", name, value, 0, float("inf"), remedy="a price is not negative")
    axes = summed_axes("tversky", axis, pred.ndim)
    p, t = widened(pred, target)
    alpha, beta, smooth = (jnp.asarray(value, p.dtype) for value in (alpha, beta, smooth))
    overlap = jnp.sum(p * t, axis=axes)
    wrong = alpha * jnp.sum(t * (1 - p), axis=axes) + beta * jnp.sum(p * (1 - t), axis=axes)
    share, size = ratio(overlap + smooth, overlap + wrong + smooth)
    return 1 - share, (pred, target, share, size)


def backward(residuals, dloss, *, alpha, beta, axis):
    pred, target, share, size = residuals
    axes = summed_axes("tversky", axis, pred.ndim)
    p, t = widened(pred, target)
    alpha, beta = jnp.asarray(alpha, share.dtype), jnp.asarray(beta, share.dtype)
    share, size, dloss = (jnp.expand_dims(x, axes) for x in (share, size, dloss))
    dpred = (share * (t - alpha * t + beta * (1 - t)) - t) / size
    dtarget = (share * (p + alpha * (1 - p) - beta * p) - p) / size
    return times(dloss, dpred).astype(pred.dtype), times(dloss, dtarget).astype(target.dtype)


tversky = Op(equation, forward, backward)

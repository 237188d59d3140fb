"""Mean squared logarithmic error, per example: the squared error of log(1 + x), for counts and sizes over many decades.

    loss = 1/D sum_d (log(1 + pred[d]) - log(1 + target[d]))^2

Backward. With l[d] the difference of the logarithms, and d log(1 + x)/dx = 1 / (1 + x), for a cotangent dloss

    dpred[d] = dloss 2/D l[d] / (1 + pred[d])          dtarget[d] = -dloss 2/D l[d] / (1 + target[d])

Forward. The logarithms of two close numbers are close, and their difference loses its digits. With a the smaller and b
the larger of the two, |l| = log((1 + b) / (1 + a)) = log1p((b - a) / (1 + a)) has all of them.

Limits.
| input                  | loss     | dpred    | why                                                               |
|------------------------|----------|----------|-------------------------------------------------------------------|
| pred 0, target 1       | log(2)^2 | -2 log 2 | alive at and below 0, where Keras has 0                           |
| -1 < pred < 0          | exact    | exact    | the logarithm goes on to -1                                       |
| pred -> -1             | inf      | -inf     | the logarithm's pole                                              |
| pred or target < -1    | NaN      | NaN      | loud: no logarithm                                                |
| pred = target          | 0        | 0        |                                                                   |
| 1000 against 1000.0001 | exact    | exact    | see Forward; the difference of the logarithms has lost all digits |
| 1e30 against 0         | exact    | exact    | the ratio is not formed where it would overflow                   |
| pred inf               | inf      | 0        | log(x) / x in the limit                                           |
| inf - inf, NaN         | NaN      | NaN      | loud                                                              |

Keras raises both to 1e-7 first: below it the value is that of 1e-7 and the gradient 0.

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors:
InputError for unequal shapes, InputTypeError for other dtypes. Source: Keras `mean_squared_logarithmic_error`, with the
target second.

    >>> (loss,) = fdl.losses.mean_squared_logarithmic_error(jnp.float32([[1]]), jnp.float32([[0]]))
    >>> f"{loss:.4f}"  # (log 2)^2
    '0.4805'
"""

import jax.numpy as jnp

from fdl.losses._per_example import opened, through_mean, widened
from fdl.op import Op

_FAR = 1e30  # beyond this ratio the logarithms differ by 69 and more, and their difference loses nothing


def equation(pred, target):
    return jnp.mean((jnp.log(1 + pred) - jnp.log(1 + target)) ** 2, axis=-1)


def forward(pred, target):
    difference = _log_ratio(*opened("mean_squared_logarithmic_error", pred, target))
    return jnp.mean(difference * difference, axis=-1), (pred, target)


def backward(residuals, dloss):
    pred, target = residuals
    p, t = widened(pred, target)
    twice = 2 * _log_ratio(p, t)
    dpred = through_mean(dloss, _over(twice, p)).astype(pred.dtype)
    dtarget = through_mean(dloss, -_over(twice, t)).astype(target.dtype)
    return dpred, dtarget


def _log_ratio(p, t):
    """log((1 + p) / (1 + t))."""
    above = p >= t
    low, high = jnp.where(above, t, p), jnp.where(above, p, t)
    ratio = (high - low) / (1 + low)
    far = ~(ratio < _FAR)
    near_log = jnp.log1p(jnp.where(far, jnp.zeros_like(ratio), ratio))
    far_log = jnp.log1p(jnp.where(far, high, jnp.zeros_like(high))) - jnp.log1p(
        jnp.where(far, low, jnp.zeros_like(low))
    )
    size = jnp.where(low < -1, jnp.full_like(low, jnp.nan), jnp.where(far, far_log, near_log))
    return jnp.where(above, size, -size)


def _over(twice, x):
    """twice / (1 + x); an infinite x carries an infinite logarithm, and the quotient tends to 0."""
    infinite = x == jnp.inf
    quotient = twice / (1 + jnp.where(infinite, jnp.zeros_like(x), x))
    return jnp.where(infinite & ~jnp.isnan(twice), jnp.zeros_like(x), quotient)


mean_squared_logarithmic_error = Op(equation, forward, backward)

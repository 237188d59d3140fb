"""Log-cosh loss, per example: x^2 / 2 near 0 and |x| - log 2 far out.

    loss = 1/D sum_d log cosh(x[d])        x = pred - target

Backward. d log(cosh x)/dx = sinh x / cosh x, so for a cotangent dloss

    dpred[d] = dloss/D tanh(x[d])          dtarget = -dpred

Forward. Near 0 log cosh x = log1p(cosh x - 1), with cosh x - 1 = x^2/2! + x^4/4! + ... summed without the 1; from |x| =
1 on log cosh x = |x| + log1p(exp(-2 |x|)) - log 2, which cannot overflow.

Limits.
| input             | loss           | gradient | why                                                             |
|-------------------|----------------|----------|-----------------------------------------------------------------|
| pred = target     | 0              | 0        |                                                                 |
| x = 1e-4          | 5e-9           | 1e-4/D   | optax and Keras give 0 in float32, and for x = 1e-3 7% too much |
| x = +-1e4, +-1e30 | abs(x) - log 2 | +-1/D    |                                                                 |
| x = +-inf         | inf            | +-1/D    | Keras gives NaN for -inf                                        |
| inf - inf, NaN    | NaN            | NaN      | loud                                                            |

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors:
InputError for unequal shapes, InputTypeError for other dtypes. Source: Keras `log_cosh`, with the target second.

    >>> (loss,) = fdl.losses.log_cosh(jnp.float32([[1]]), jnp.float32([[0]]))
    >>> f"{loss:.4f}"
    '0.4338'
"""

import math

import jax.numpy as jnp

from fdl.losses._per_example import opened, through_mean, widened
from fdl.op import Op


def equation(pred, target):
    return jnp.mean(jnp.log(jnp.cosh(pred - target)), axis=-1)


def forward(pred, target):
    wide_pred, wide_target = opened("log_cosh", pred, target)
    x = wide_pred - wide_target
    near = jnp.abs(x) < 1
    small = jnp.log1p(_cosh_minus_one(jnp.where(near, x, jnp.zeros_like(x))))
    a = jnp.where(near, jnp.ones_like(x), jnp.abs(x))
    large = a + jnp.log1p(jnp.exp(-2 * a)) - math.log(2)
    return jnp.mean(jnp.where(near, small, large), axis=-1), (pred, target)


def backward(residuals, dloss):
    pred, target = residuals
    wide_pred, wide_target = widened(pred, target)
    dpred = through_mean(dloss, _tanh(wide_pred - wide_target)).astype(pred.dtype)
    return dpred, -dpred


def _tanh(x):
    """tanh, far out as (1 - e) / (1 + e): the derivative of that keeps its digits, where 1 - tanh^2 cancels."""
    near = jnp.abs(x) < 1
    e = jnp.exp(-2 * jnp.where(near, jnp.ones_like(x), jnp.abs(x)))
    return jnp.where(near, jnp.tanh(jnp.where(near, x, jnp.zeros_like(x))), jnp.sign(x) * ((1 - e) / (1 + e)))


def _cosh_minus_one(x):
    """The power series for |x| < 1, to float64. (XLA's sinh, for 2 sinh^2(x / 2), is 5 ulps off in float32.)"""
    square = x * x
    total = jnp.ones_like(x)
    for n in range(16, 0, -2):
        total = 1 + total * square / ((n + 1) * (n + 2))
    return x * (x / 2) * total


log_cosh = Op(equation, forward, backward)

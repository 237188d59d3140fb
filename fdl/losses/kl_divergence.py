"""Kullback-Leibler divergence KL(t || p): the price of the code for p where t is the truth, above the entropy of t.

    loss = sum_v t[v] log(t[v] / p[v])

Backward. d/dp (- t log p) = -t / p, and d/dt (t log t - t log p) = log(t / p) + 1; so for a cotangent dloss

    dp[v] = - dloss t[v] / p[v]         dt[v] = dloss (log(t[v] / p[v]) + 1)

At p = t, dp = -1 in every entry: the derivative is of the formula, p is not tied to sum to 1.

Limits.
| input               | loss          | dp          | dt   | why                                                               |
|---------------------|---------------|-------------|------|-------------------------------------------------------------------|
| t = 0, p > 0        | leaves it out | 0           | -inf | x log x -> 0, with slope log x -> -inf                            |
| t = 0, p = 0        | leaves it out | 0           | 0    | a cell without an event; PyTorch and optax give NaN               |
| t > 0, p = 0        | inf           | -inf        | +inf | as scipy; Keras clips p at 1e-7: 16.1 t + t log t, dp = 0         |
| t or p < 0, inf, NaN| NaN           | NaN         | NaN  | not a probability: loud; Keras clips both to [1e-7, 1]            |
| sums other than 1   | the formula   | the formula |      | may then be negative                                              |

Shapes: pred p [..., V], target t [..., V], loss [...]. optax's `kl_divergence` takes log p. Errors: InputError,
InputTypeError. Source: Cover & Thomas 2006, section 2.3; Keras's `kl_divergence`.

    >>> fdl.losses.kl_divergence(jnp.float32([[0.5, 0.5]]), jnp.float32([[1, 0]])).round(4)  # log 2
    Array([0.6931], dtype=float32)
"""

import jax.numpy as jnp

from fdl.losses._per_example import opened, times, widened
from fdl.losses._probabilities import measure, ratio
from fdl.op import Op


def equation(pred, target):
    return jnp.sum(target * jnp.log(target / pred), axis=-1)


def forward(pred, target):
    p, t = map(measure, opened("kl_divergence", pred, target))
    excess = t * _log_quotient(t, p, t == 0)
    # p + t: what is no measure stays NaN where t = 0
    return jnp.sum(jnp.where(jnp.isnan(p + t), p + t, excess), axis=-1), (pred, target)


def backward(residuals, dloss):
    pred, target = residuals
    p, t = map(measure, widened(pred, target))
    dloss = dloss[..., None]
    empty = (t == 0) & (p == 0)
    slope = jnp.where(empty, jnp.zeros_like(t), _log_quotient(t, p, empty) + 1)
    return times(-dloss, ratio(t, p)).astype(pred.dtype), times(dloss, slope).astype(target.dtype)


def _log_quotient(t, p, skipped):
    """log(t / p), 0 where skipped; as log1p((t - p) / p) where t - p is exact, so that a p close to t keeps its digits."""
    one = jnp.ones_like(p)
    close = jnp.abs(t - p) < p / 2
    near = jnp.log1p(jnp.where(close, t - p, jnp.zeros_like(p)) / jnp.where(close, p, one))
    return jnp.where(close, near, jnp.log(jnp.where(skipped, one, t) / jnp.where(skipped, one, p)))


kl_divergence = Op(equation, forward, backward)

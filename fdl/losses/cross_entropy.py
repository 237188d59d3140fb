"""Cross-entropy of two distributions, in any base: H(t, p), the code length of t in a code made for p.

    loss = - sum_v t[v] log_b p[v]        b = e gives nats, 2 bits, 10 hartleys

With n[v] events of kind v among N and t = n / N, the probability that a model p gives to them all is P = prod_v p[v]^n[v], so
log P = sum_v n[v] log p[v] = - N H(t, p): the smallest H is the largest likelihood. And H(t, p) = H(t) + KL(t || p), so the
smallest H over p is at p = t (Gibbs).

Backward. log_b x = log x / log b, so for a cotangent dloss

    dp[v] = - dloss t[v] / (p[v] log b)         dt[v] = - dloss log_b p[v]

dp is the derivative of the formula, entry by entry: p is not tied to sum to 1.

Limits.
| input               | loss          | dp          | dt   | why                                                                   |
|---------------------|---------------|-------------|------|-----------------------------------------------------------------------|
| t = 0, p = 0        | leaves it out | 0           | +inf | t log p -> 0; the code has no word for this event                     |
| t > 0, p = 0        | inf           | -inf        | +inf | what happened was impossible; Keras clips p at 1e-7: 16.1 t, dp = 0   |
| t = 1, p = 1e-12    | 27.63         | -1e12       |      | nothing is clipped, the gradient is alive                             |
| p < 0, p = inf, NaN | NaN           | NaN         | NaN  | not a probability: loud                                               |
| sums other than 1   | the formula   | the formula |      | measures that are not normalised; Keras divides p by its sum          |

Shapes: pred p [..., V], target t [..., V], loss [...]. `base` is a number above 1, or a traced one. Errors: InputError,
InputTypeError. Source: Cover & Thomas 2006, sections 2.1 and 2.3; Keras's `categorical_crossentropy` has base e.

    >>> fdl.losses.cross_entropy(jnp.float32([[0.5, 0.5]]), jnp.float32([[0.5, 0.5]]), base=2)  # one bit
    Array([1.], dtype=float32)
"""

import math

import jax.numpy as jnp

from fdl.errors import require_number
from fdl.losses._per_example import opened, times, widened
from fdl.losses._probabilities import measure, ratio, surprise
from fdl.op import Op


def equation(pred, target, *, base=math.e):
    return -jnp.sum(target * jnp.log(pred), axis=-1) / jnp.log(jnp.asarray(base, pred.dtype))


def forward(pred, target, *, base):
    where = "cross_entropy"
    p, t = opened(where, pred, target)
    require_number(where, "base", base, 1, math.inf, exclusive=True, remedy="math.e is nats, 2 is bits, 10 is hartleys")
    return jnp.sum(surprise(t, measure(p)), axis=-1) / _log(base, p.dtype), (pred, target)


def backward(residuals, dloss, *, base):
    pred, target = residuals
    p, t = widened(pred, target)
    p = measure(p)
    dloss = (-dloss / _log(base, p.dtype))[..., None]
    return times(dloss, ratio(t, p)).astype(pred.dtype), times(dloss, jnp.log(p)).astype(target.dtype)


def _log(base, dtype):
    """log(base): exactly 1 for math.e."""
    return math.log(base) if isinstance(base, int | float) else jnp.log(jnp.asarray(base, dtype))


cross_entropy = Op(equation, forward, backward)

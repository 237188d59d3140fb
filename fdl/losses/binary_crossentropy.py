"""Binary cross-entropy, of probabilities or of logits, averaged over an axis of length D.

    loss = 1/D sum_d [- t[d] log p[d] - (1 - t[d]) log(1 - p[d])]        t = target (1 - s) + s / 2, s = label_smoothing
                                                                         from_logits: p = 1 / (1 + exp(-pred))

Backward. Of probabilities, for a cotangent dloss

    dp[d] = dloss/D ((1 - t[d]) / (1 - p[d]) - t[d] / p[d]) = dloss/D (p[d] - t[d]) / (p[d] (1 - p[d]))
    dt[d] = dloss/D (log(1 - p[d]) - log p[d])

and of logits dz[d] = dloss/D (p[d] - t[d]): the factor p (1 - p) = dp/dz cancels (sigmoid_binary_cross_entropy.py). The
target gets dtarget = (1 - s) dt.

Limits, of probabilities with D = 1 (those of logits are in sigmoid_binary_cross_entropy.py).
| input              | loss  | dp    | dt   | why                                                              |
|--------------------|-------|-------|------|------------------------------------------------------------------|
| p = 0, t = 0       | 0     | 1     | inf  | right and sure; Keras 1e-7 and 0, PyTorch 0 and 0: dead          |
| p = 1, t = 1       | 0     | -1    | -inf | the same                                                         |
| p = 1e-12, t = 1   | 27.63 | -1e12 |      | nothing is clipped; Keras 16.1 and 0                             |
| p = 0, t = 1       | inf   | -inf  | inf  | wrong and sure; Keras 16.1 and 0, PyTorch 100 and -1e12          |
| p = 1, t = 0       | inf   | inf   | -inf | the same                                                         |
| p outside [0, 1]   | NaN   | NaN   | NaN  | not a probability: loud; Keras clips 1.5 to a loss of 1e-7       |
| t outside [0, 1]   | the formula | the formula | | as Keras                                                       |
| NaN                | NaN   | NaN   | NaN  | loud                                                             |

A sigmoid followed by this loss has lost what logits keep (in float32, p = 1 from z = 17 on): prefer from_logits=True.

Shapes: pred, target [..., D, ...], loss without `axis`; nothing is broadcast. Errors: InputError, InputTypeError. Source:
Keras's `binary_crossentropy`, values alike where p is in [1e-7, 1 - 1e-7].

    >>> fdl.losses.binary_crossentropy(jnp.float32([[0.75]]), jnp.float32([[1]])).round(4)  # -log(3/4)
    Array([0.2877], dtype=float32)
"""

import jax.numpy as jnp

from fdl.losses._per_example import times, widened
from fdl.losses._probabilities import kept, opened_along, probability, ratio, smoothed, surprise
from fdl.losses.sigmoid_binary_cross_entropy import slopes as slopes_of_logits
from fdl.losses.sigmoid_binary_cross_entropy import value as value_of_logits
from fdl.op import Op


def equation(pred, target, *, from_logits=False, label_smoothing=0.0, axis=-1):
    p = 1 / (1 + jnp.exp(-pred)) if from_logits else pred
    t = smoothed(target, label_smoothing, 2)
    return jnp.mean(-t * jnp.log(p) - (1 - t) * jnp.log(1 - p), axis=axis)


def forward(pred, target, *, from_logits, label_smoothing, axis):
    x, t = opened_along("binary_crossentropy", pred, target, from_logits, label_smoothing, axis)
    values = value(x, smoothed(t, label_smoothing, 2), from_logits)
    return jnp.mean(values, axis=axis), (pred, target)


def backward(residuals, dloss, *, from_logits, label_smoothing, axis):
    pred, target = residuals
    x, t = widened(pred, target)
    dx, dt = slopes(x, smoothed(t, label_smoothing, 2), from_logits)
    dloss = jnp.expand_dims(dloss, axis) / pred.shape[axis]
    dtarget = times(dloss, dt) * kept(label_smoothing, dt.dtype)
    return times(dloss, dx).astype(pred.dtype), dtarget.astype(target.dtype)


def value(x, t, from_logits):
    if from_logits:
        return value_of_logits(x, t)
    p = probability(x)
    # log(1 - p) as log1p(-p): the loss of a p of 1e-9 is not 0. Guarded as `surprise` is
    never = (t == 1) & (p == 1)
    return surprise(t, p) - (1 - t) * jnp.log1p(-jnp.where(never, jnp.zeros_like(p), p))


def slopes(x, t, from_logits):
    """(d value / dx, d value / dt)."""
    if from_logits:
        return slopes_of_logits(x, t)
    p = probability(x)
    inside = (p > 0) & (p < 1)
    half = jnp.where(inside, p, jnp.full_like(p, 0.5))
    # on one denominator where p is close to t: the difference of the two ratios loses its digits there, and this one's
    # derivative elsewhere
    one, zero = t * (1 - half), half * (1 - t)
    close = inside & (one < 2 * zero) & (zero < 2 * one)
    dp = jnp.where(close, (half - t) / (half * (1 - half)), ratio(1 - t, 1 - p) - ratio(t, p))
    return dp, jnp.log1p(-p) - jnp.log(p)


binary_crossentropy = Op(equation, forward, backward)

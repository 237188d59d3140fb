"""Cross-entropy of classes with a target distribution, of probabilities or of logits, along an axis of V classes.

    loss = - sum_v t[v] log q[v]        q[v] = p[v] / sum_u p[u], or from_logits: exp(z[v]) / sum_u exp(z[u])
                                        t[v] = target[v] (1 - s) + s / V, s = label_smoothing

Backward. log q[v] = log p[v] - log S with S = sum_u p[u], and dS/dp[v] = 1; so for a cotangent dloss

    dp[v] = dloss (sum_u t[u] / S - t[v] / p[v])        dt[v] = - dloss log q[v]        dtarget[v] = (1 - s) dt[v]

The first term is the price of dividing by the sum: sum_v p[v] dp[v] = 0, the loss does not see the scale of p. For logits,
dz[v] = dloss (sum_u t[u] q[v] - t[v]) (softmax_cross_entropy.py).

Limits, of probabilities (those of logits are in softmax_cross_entropy.py).
| input                | loss          | dp at v       | why                                                               |
|----------------------|---------------|---------------|-------------------------------------------------------------------|
| p = 0, t = 0         | leaves it out | sum t / S     | t log p -> 0                                                      |
| p = 0, t > 0         | inf           | -inf          | what happened was impossible; Keras clips at 1e-7: 16.1 t, dead   |
| p = 1e-12, t = 1     | 27.63         | -1e12         | nothing is clipped                                                |
| p scaled by any c    | the same      | 1/c of it     | p is divided by its sum, as in Keras                              |
| all p = 0            | NaN           | NaN           | no distribution: loud                                             |
| p < 0, p = inf, NaN  | NaN           | NaN           | no probability in this row: loud; Keras clips                     |
| -inf logit, s > 0    | inf           | -t            | smoothing wants the masked class too                              |

Shapes: pred, target [..., V, ...] float, loss without `axis`. V is the length of `axis`; Keras divides s by the length of
the last axis, whatever `axis` is. Errors: InputError, InputTypeError. Source: Keras's `categorical_crossentropy`, values alike
where q is in [1e-7, 1 - 1e-7].

    >>> fdl.losses.categorical_crossentropy(jnp.float32([[0.25, 0.75]]), jnp.float32([[0, 1]])).round(4)  # -log(3/4)
    Array([0.2877], dtype=float32)
"""

import jax.numpy as jnp

from fdl.losses._per_example import times
from fdl.losses._probabilities import classes_last, kept, measure, opened_along, ratio, shares, smoothed, weighted
from fdl.losses.softmax_cross_entropy import error
from fdl.op import Op


def equation(pred, target, *, from_logits=False, label_smoothing=0.0, axis=-1):
    p = jnp.exp(pred) if from_logits else pred
    t = smoothed(target, label_smoothing, target.shape[axis])
    return -jnp.sum(t * jnp.log(p / jnp.sum(p, axis=axis, keepdims=True)), axis=axis)


def forward(pred, target, *, from_logits, label_smoothing, axis):
    opened_along("categorical_crossentropy", pred, target, from_logits, label_smoothing, axis)
    return value(*classes_last(pred, target, label_smoothing, axis), from_logits), (pred, target)


def backward(residuals, dloss, *, from_logits, label_smoothing, axis):
    pred, target = residuals
    dx, dt = slopes(*classes_last(pred, target, label_smoothing, axis), from_logits)
    dloss = dloss[..., None]
    dpred, dtarget = times(dloss, dx), times(dloss, dt) * kept(label_smoothing, dt.dtype)
    return jnp.moveaxis(dpred, -1, axis).astype(pred.dtype), jnp.moveaxis(dtarget, -1, axis).astype(target.dtype)


def value(x, t, from_logits):
    return jnp.sum(weighted(t, -shares(x, t, from_logits).log_q_counted), axis=-1)


def slopes(x, t, from_logits):
    """(d value / dx, d value / dt)."""
    of = shares(x, t, from_logits)
    if from_logits:
        return error(of.q, of.rest, t), -of.log_q
    # s / total - t / p, which is (s q - t) / p: the digits of a class that has most of q are kept by `error`
    most, p, s = of.q > 0.5, measure(x), jnp.sum(t, axis=-1, keepdims=True)
    of_most = error(of.q, of.rest, t) / jnp.where(most, p, jnp.ones_like(p))
    return jnp.where(most, of_most, s / of.total - ratio(t, p)), -of.log_q


categorical_crossentropy = Op(equation, forward, backward)

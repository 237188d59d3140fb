"""Categorical focal cross-entropy: classes that are already right weigh (1 - q)^gamma; along an axis of V classes.

    loss = - sum_v t[v] alpha[v] (1 - q[v])^gamma log q[v]        q[v] = p[v] / sum_u p[u], or from_logits: softmax
                                                                  t[v] = target[v] (1 - s) + s / V, s = label_smoothing

Backward. With L[v] = log q[v], so that q = exp(L) and d(1 - q)/dL = -q, let g[v] = d loss / d L[v]:

    g[v] = - t[v] alpha[v] (1 - q[v])^gamma (1 + gamma q[v] B[v])        B = - L / (1 - q), which -> 1 where q -> 1

L[v] = log p[v] - log sum_u p[u], or z[v] - log sum_u exp(z[u]); so for a cotangent dloss

    dp[v] = dloss (g[v] (1 - q[v]) / p[v] - sum_{u != v} g[u] / sum_u p[u])
    dz[v] = dloss (g[v] (1 - q[v]) - q[v] sum_{u != v} g[u])
    dt[v] = - dloss alpha[v] (1 - q[v])^gamma L[v]               dtarget = (1 - s) dt

Limits (gamma > 0, alpha = 1).
| input                       | loss          | gradient      | why                                                          |
|-----------------------------|---------------|---------------|--------------------------------------------------------------|
| z[t] 1000 above the others  | 0             | 0             | right, also for gamma < 1                                    |
| z[t] 1000 below the others  | 1000          | -1 at t       | wrong: nothing saturates; Keras 16.1 and 0                   |
| z = -inf or p = 0, t = 0    | leaves it out | no term of it | a masked class                                               |
| z = -inf, t > 0             | inf           | -t at it      | an impossible class was wanted                               |
| p = 0, t > 0                | inf           | -inf          | an impossible class was wanted; Keras clips: 16.1 and 0      |
| p = 1, t = 1                | 0             | 0             | right                                                        |
| all p = 0, p < 0, p = inf   | NaN           | NaN           | no distribution: loud                                        |
| all z = -inf, NaN           | NaN           | NaN           | no distribution: loud                                        |

Shapes: pred, target [..., V, ...] float, loss without `axis`; alpha a number or one per class, [V] along `axis` (Keras: along
the last axis). alpha, gamma and label_smoothing may be traced. Errors: InputError, InputTypeError. Source: Lin et al. 2017,
equation 5, summed over classes by Keras's `categorical_focal_crossentropy`, values alike where q is in [1e-7, 1 - 1e-7].

    >>> fdl.losses.categorical_focal_crossentropy(jnp.float32([[0.5, 0.5]]), jnp.float32([[0, 1]])).round(4)
    Array([0.0433], dtype=float32)
"""

import math

import jax.numpy as jnp

from fdl.errors import is_array, refuse, require_number
from fdl.losses._per_example import times
from fdl.losses._probabilities import (
    classes_last,
    kept,
    measure,
    opened_along,
    power,
    ratio,
    shares,
    smoothed,
    weighted,
)
from fdl.op import Op


def equation(pred, target, *, alpha=0.25, gamma=2.0, from_logits=False, label_smoothing=0.0, axis=-1):
    x, t = jnp.moveaxis(pred, axis, -1), jnp.moveaxis(target, axis, -1)
    p = jnp.exp(x) if from_logits else x
    q = p / jnp.sum(p, axis=-1, keepdims=True)
    t = smoothed(t, label_smoothing, t.shape[-1])
    modulating = (1 - q) ** jnp.asarray(gamma, q.dtype)
    return -jnp.sum(t * _of_classes(alpha, q) * modulating * jnp.log(q), axis=-1)


def forward(pred, target, *, alpha, gamma, from_logits, label_smoothing, axis):
    _check(pred, target, alpha, gamma, from_logits, label_smoothing, axis)
    x, t = classes_last(pred, target, label_smoothing, axis)
    of = shares(x, t, from_logits)
    return jnp.sum(weighted(t * _of_classes(alpha, t) * power(of.rest, gamma), -of.log_q), axis=-1), (pred, target)


def backward(residuals, dloss, *, alpha, gamma, from_logits, label_smoothing, axis):
    pred, target = residuals
    x, t = classes_last(pred, target, label_smoothing, axis)
    of = shares(x, t, from_logits)
    focus = _of_classes(alpha, t) * power(of.rest, gamma)
    right = of.rest == 0
    b = jnp.where(right, jnp.ones_like(of.q), -of.log_q_counted / jnp.where(right, jnp.ones_like(of.q), of.rest))
    g = -t * focus * (1 + jnp.asarray(gamma, t.dtype) * weighted(of.q, b))
    # the g of the others as a sum less g[v]: exactly 0 for a one-hot target, so that what is right keeps its small gradient
    g_of_others = jnp.sum(g, axis=-1, keepdims=True) - g
    if from_logits:
        dx = g * of.rest - of.q * g_of_others
    else:
        dx = ratio(g * of.rest, measure(x)) - g_of_others / of.total
    dt = weighted(focus, -of.log_q) * kept(label_smoothing, t.dtype)
    dloss = dloss[..., None]
    dpred, dtarget = (jnp.moveaxis(times(dloss, slope), -1, axis) for slope in (dx, dt))
    return dpred.astype(pred.dtype), dtarget.astype(target.dtype)


def _of_classes(alpha, like):
    """alpha as a scalar, or as [V] against [..., V]."""
    alpha = jnp.asarray(alpha, like.dtype)
    return alpha.reshape((1,) * (like.ndim - 1) + (-1,)) if alpha.ndim else alpha


def _check(pred, target, alpha, gamma, from_logits, label_smoothing, axis):
    where = "categorical_focal_crossentropy"
    opened_along(where, pred, target, from_logits, label_smoothing, axis)
    require_number(where, "gamma", gamma, 0, math.inf, remedy="0 is plain cross-entropy, 2 is usual")
    remedy = "it is the weight of every class, or a sequence with the weight of each"
    classes = pred.shape[axis]
    if is_array(alpha) and alpha.ndim == 1 or isinstance(alpha, tuple):
        if len(alpha) != classes:
            refuse(
                where, f"alpha has {len(alpha)} entries, wanted one for each of the {classes} classes along axis {axis}"
            )
        if is_array(alpha):
            return
    for entry in alpha if isinstance(alpha, tuple) else (alpha,):
        require_number(where, "alpha", entry, 0, math.inf, remedy=remedy)


categorical_focal_crossentropy = Op(equation, forward, backward)

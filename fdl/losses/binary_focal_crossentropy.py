"""Binary focal cross-entropy: examples that are already right weigh (1 - p_t)^gamma; averaged over an axis of length D.

    loss = 1/D sum_d a[d] u[d]^gamma B[d]      B = - t log p - (1 - t) log(1 - p)        t = target (1 - s) + s / 2
                                               u = t (1 - p) + (1 - t) p                 = 1 - p_t, the mass put on the wrong side
                                               a = 1, or alpha t + (1 - alpha)(1 - t) with apply_class_balancing
                                               from_logits: p = 1 / (1 + exp(-pred))

Backward. Write x for p, or for the logit z; u_x and B_x are derivatives. The product rule gives, for a cotangent dloss,

    dx[d] = dloss/D a u^gamma (gamma (B/u) u_x + B_x)
    dt[d] = dloss/D (a u^gamma (gamma (B/u) u_t + B_t) + a_t u^gamma B)        dtarget = (1 - s) dt

    of p: u_x = 1 - 2 t                 of z: u_x = (1 - 2 t) p (1 - p)        B_x, B_t: binary_crossentropy.py
    u_t = 1 - 2 p                       a_t = 0, or 2 alpha - 1

with gamma u^(gamma - 1) B written as u^gamma gamma (B/u): B/u -> 1 where u -> 0 (an example that is right), so that no power
is infinite there for gamma < 1.

Limits (D = 1, a = 1; gamma > 0).
| input                     | loss | gradient   | why                                                              |
|---------------------------|------|------------|------------------------------------------------------------------|
| z = +-1000, t = 1 or 0    | 0    | 0          | right; Keras's gradient is NaN for gamma < 1                     |
| z = -1000, t = 1          | 1000 | -1         | wrong: nothing saturates; Keras 16.1 and 0                       |
| z = inf, t = 1            | 0    | 0          | right and sure                                                   |
| z = -inf, t = 1           | inf  | -1         | wrong and sure                                                   |
| p = t = 0 or 1            | 0    | 0          | right; Keras NaN for gamma < 1. gamma = 0: 1 or -1, as BCE       |
| p = 0, t = 1              | inf  | -inf       | wrong and sure; Keras 16.1 and -32: its slope misses 1/p         |
| p = 0 or 1, 0 < t < 1     | inf  | -inf or inf| 1/p outgrows log p                                               |
| p outside [0, 1]          | NaN  | NaN        | not a probability: loud; Keras clips                             |
| NaN                       | NaN  | NaN        | loud                                                             |

Where the loss is infinite, dtarget is inf or NaN. The focal factor takes the smoothed label, as in Keras. Its second
derivative at p = t is infinite for 0 < gamma < 1; JAX then finds a finite number.

Shapes: pred, target [..., D, ...], loss without `axis`; nothing is broadcast. alpha, gamma and label_smoothing may be traced.
Errors: InputError, InputTypeError. Source: Lin et al. 2017, equations 4 and 5; Keras's `binary_focal_crossentropy`, values
alike where p is in [1e-7, 1 - 1e-7].

    >>> fdl.losses.binary_focal_crossentropy(jnp.float32([[0.5]]), jnp.float32([[1]])).round(4)  # (1/2)^2 log 2
    Array([0.1733], dtype=float32)
"""

import math

import jax.numpy as jnp

from fdl.errors import require_bool, require_number
from fdl.layers.activations import ACTIVATIONS
from fdl.losses._per_example import times, widened
from fdl.losses._probabilities import kept, opened_along, power, probability, smoothed, weighted
from fdl.losses.binary_crossentropy import slopes, value
from fdl.losses.sigmoid_binary_cross_entropy import sigmoid
from fdl.op import Op

tanh = ACTIVATIONS["tanh"].f


def equation(
    pred,
    target,
    *,
    apply_class_balancing=False,
    alpha=0.25,
    gamma=2.0,
    from_logits=False,
    label_smoothing=0.0,
    axis=-1,
):
    p = 1 / (1 + jnp.exp(-pred)) if from_logits else pred
    t = smoothed(target, label_smoothing, 2)
    p_t = t * p + (1 - t) * (1 - p)
    loss = (1 - p_t) ** jnp.asarray(gamma, p.dtype) * (-t * jnp.log(p) - (1 - t) * jnp.log(1 - p))
    return jnp.mean(_class_weight(t, alpha, apply_class_balancing) * loss, axis=axis)


def forward(pred, target, *, apply_class_balancing, alpha, gamma, from_logits, label_smoothing, axis):
    where = "binary_focal_crossentropy"
    x, t = opened_along(where, pred, target, from_logits, label_smoothing, axis)
    require_bool(where, "apply_class_balancing", apply_class_balancing)
    require_number(where, "alpha", alpha, 0, 1, remedy="it is the weight of class 1, class 0 has 1 - alpha")
    require_number(where, "gamma", gamma, 0, math.inf, remedy="0 is plain binary cross-entropy, 2 is usual")
    t = smoothed(t, label_smoothing, 2)
    p, not_p = _both(x, from_logits)
    factor = _class_weight(t, alpha, apply_class_balancing) * power(t * not_p + (1 - t) * p, gamma)
    return jnp.mean(weighted(factor, value(x, t, from_logits)), axis=axis), (pred, target)


def backward(residuals, dloss, *, apply_class_balancing, alpha, gamma, from_logits, label_smoothing, axis):
    pred, target = residuals
    x, t = widened(pred, target)
    t = smoothed(t, label_smoothing, 2)
    b, (b_x, b_t) = value(x, t, from_logits), slopes(x, t, from_logits)
    p, not_p = _both(x, from_logits)
    u = t * not_p + (1 - t) * p
    u_t = -tanh(x / 2) if from_logits else not_p - p  # of logits close to 0 the difference loses its digits
    u_x = (1 - 2 * t) * (p * not_p if from_logits else jnp.ones_like(p))
    # where b is infinite, an infinite b_x outgrows its term, or, for logits, u_x = 0
    right, finite = u == 0, jnp.where(jnp.isinf(b), jnp.zeros_like(b), b)
    tilt = jnp.where(right, jnp.ones_like(u), finite / jnp.where(right, jnp.ones_like(u), u))
    tilt *= jnp.asarray(gamma, u.dtype)
    focus = power(u, gamma)
    factor = _class_weight(t, alpha, apply_class_balancing) * focus
    dx, dt = weighted(factor, weighted(u_x, tilt) + b_x), weighted(factor, tilt * u_t + b_t)
    if apply_class_balancing:
        dt += weighted((2 * jnp.asarray(alpha, u.dtype) - 1) * focus, b)
    dloss = jnp.expand_dims(dloss, axis) / pred.shape[axis]
    dtarget = times(dloss, dt) * kept(label_smoothing, dt.dtype)
    return times(dloss, dx).astype(pred.dtype), dtarget.astype(target.dtype)


def _both(x, from_logits):
    """(p, 1 - p); of logits neither is a difference from 1."""
    if from_logits:
        return sigmoid(x), sigmoid(-x)
    p = probability(x)
    return p, 1 - p


def _class_weight(t, alpha, apply_class_balancing):
    alpha = jnp.asarray(alpha, t.dtype)
    return t * alpha + (1 - t) * (1 - alpha) if apply_class_balancing else jnp.ones_like(t)


binary_focal_crossentropy = Op(equation, forward, backward)

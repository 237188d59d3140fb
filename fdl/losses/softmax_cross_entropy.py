"""Softmax cross-entropy with a target distribution.

    loss = - sum_v t[v] log p[v]        p[v] = exp(z[v]) / sum_u exp(z[u])

Backward. log p[v] = z[v] - log sum_u exp(z[u]), and d(log sum exp)/dz[v] = p[v]. With s = sum_v t[v] (1 for a
distribution, but the formula holds for any), for a cotangent dloss

    dz[v] = dloss (s p[v] - t[v])       dt[v] = - dloss log p[v]

Limits (the equation is the oracle where it is finite; these lines are the oracle elsewhere).
| input                        | loss           | dz            | why                                                  |
|------------------------------|----------------|---------------|------------------------------------------------------|
| logits up to +-1e30          | exact          | exact         | the largest logit is subtracted first                |
| a logit of -inf where t = 0  | leaves it out  | 0 there       | a masked class; optax, Keras and PyTorch give NaN    |
| a logit of -inf where t > 0  | inf            | -t there      | an impossible class was wanted                       |
| a logit of +inf              | 0 or inf       | p is one-hot  | the limit; shared equally among several +inf         |
| all logits -inf, NaN         | NaN            | NaN           | no distribution: loud                                |
| NaN, dloss 0                 | NaN            | 0             | an example without weight does not count             |

Shapes: logits z [..., V], target t [..., V] float, loss [...]; 16-bit logits give a float32 loss. Nothing is broadcast.
Source: Goodfellow, Bengio & Courville 2016, section 6.2.2.3; argument order of optax.

    >>> fdl.losses.softmax_cross_entropy(jnp.float32([[0, 0]]), jnp.float32([[1, 0]])).round(4)  # log 2
    Array([0.6931], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_classes, require_float, require_rank_at_least, require_same_dtype, require_same_shape
from fdl.losses._per_example import times
from fdl.op import Op, accumulator


def equation(logits, target):
    p = jnp.exp(logits) / jnp.sum(jnp.exp(logits), axis=-1, keepdims=True)
    return -jnp.sum(target * jnp.log(p), axis=-1)


def forward(logits, target):
    where = "softmax_cross_entropy"
    require_float(where, "logits", logits)
    require_float(where, "target", target)
    require_rank_at_least(where, "logits", logits, 1, "classes last")
    require_classes(where, "logits", logits)
    require_same_shape(where, "logits", logits, "target", target)
    require_same_dtype(where, "logits", logits, "target", target)
    top, others = normaliser(logits)
    log_p = shifted(logits, top) - jnp.log1p(others)[..., None]  # [..., V]
    t = target.astype(log_p.dtype)
    loss = jnp.sum(jnp.where(t == 0, jnp.zeros_like(t), -t * log_p), axis=-1)
    return loss, (logits, target, top, others)  # p is rebuilt: one exp instead of a [..., V] buffer


def backward(residuals, dloss):
    logits, target, top, others = residuals
    z, others = shifted(logits, top), others[..., None]
    t = target.astype(z.dtype)
    # not exp(log p), which loses as many units of rounding as log p is large
    dlogits = times(dloss[..., None], error(jnp.exp(z) / (1 + others), others / (1 + others), t))
    dtarget = times(dloss[..., None], jnp.log1p(others) - z)
    return dlogits.astype(logits.dtype), dtarget.astype(target.dtype)


def error(p, rest, t):
    """s p - t, with s the sum of t and rest = 1 - p. Of a class that has most of p, as the t of the others less s rest: a p
    of 1 - 1e-9 would be rounded to 1."""
    most = p > 0.5
    s, others = (jnp.sum(x, axis=-1, keepdims=True) for x in (t, jnp.where(most, jnp.zeros_like(t), t)))
    return jnp.where(most, others - s * rest, s * p - t)


def normaliser(logits):
    """(largest logit, sum of the other exponentials relative to it), both [...], at least float32."""
    top = jnp.max(logits, axis=-1).astype(accumulator(logits.dtype))
    z = shifted(logits, top)
    at_top = z == 0
    others = jnp.sum(jnp.where(at_top, jnp.zeros_like(z), jnp.exp(z)), axis=-1)
    return top, others + (jnp.sum(at_top, axis=-1, dtype=top.dtype) - 1)


def shifted(logits, top):
    """logits - top; where top is +inf the infinite logits share the row, at 0, and the others are -inf."""
    # one select per logit: two cost a small training step 0.7 us of 8.5; all -inf: no distribution, NaN
    top = jnp.where(top == -jnp.inf, jnp.full_like(top, jnp.nan), top)[..., None]
    z = logits.astype(top.dtype)
    return jnp.where(z == jnp.inf, jnp.zeros_like(z), z - top)


softmax_cross_entropy = Op(equation, forward, backward)

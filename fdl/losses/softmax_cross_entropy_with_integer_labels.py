"""Softmax cross-entropy with integer labels.

    loss = log(sum_v exp(z[v])) - z[t]

Backward. d(log sum exp)/dz[v] = exp(z[v]) / sum_u exp(z[u]) = p[v], and d(z[t])/dz[v] = [v == t]; so for a cotangent dloss

    dlogits[v] = dloss (p[v] - [v == t])

The error at the logits is the difference between what the network believes and what is so: it grows the more confidently
wrong it is, and never saturates.

Limits (the equation is the oracle where it is finite; these lines are the oracle elsewhere).
| input                      | loss          | gradient          | why                                                    |
|----------------------------|---------------|-------------------|--------------------------------------------------------|
| logits up to +-1e30        | exact         | exact             | the largest logit is subtracted first                  |
| a logit of -inf            | leaves it out | 0 there           | a masked class has probability 0                       |
| the label's logit is -inf  | inf           | p[v] - [v == t]   | an impossible class was wanted                         |
| a logit of +inf            | 0 or inf      | p is one-hot      | the limit; shared equally among several +inf           |
| all logits -inf, NaN       | NaN           | NaN               | no distribution: loud                                  |
| label outside [0, V)       | NaN           | NaN               | loud; optax and JAX wrap -1 to the last class, Keras returns 0 |

Shapes: logits z [..., V] float, labels t [...] int, loss [...]; 16-bit logits give a float32 loss. Errors: InputError for a
shape that does not fit, InputTypeError for other dtypes. Source: Goodfellow, Bengio & Courville 2016, section 6.2.2.3.
"""

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_float, require_integer, require_rank_at_least
from fdl.losses.softmax_cross_entropy import normaliser, shifted
from fdl.op import Op


def equation(logits, labels):
    log_total = jnp.log(jnp.sum(jnp.exp(logits), axis=-1))
    return log_total - jnp.sum(logits * _hit(logits, labels).astype(logits.dtype), axis=-1)


def forward(logits, labels):
    _check(logits, labels)
    top, log_total = normaliser(logits)
    # a masked sum, not a gather: it fuses with the sum of exponentials, and no label can read outside the row
    label_logit = jnp.sum(jnp.where(_hit(logits, labels), shifted(logits, top), jnp.zeros((), top.dtype)), axis=-1)
    loss = jnp.where(_valid(logits, labels), log_total - label_logit, jnp.full((), jnp.nan, top.dtype))
    return loss, (logits, labels, top, log_total)  # p is rebuilt: one exp instead of a [..., V] buffer


def backward(residuals, dloss):
    logits, labels, top, log_total = residuals
    p = jnp.exp(shifted(logits, top) - log_total[..., None])  # [..., V]
    dloss = jnp.where(_valid(logits, labels), dloss, jnp.full_like(dloss, jnp.nan))
    dlogits = dloss[..., None] * (p - _hit(logits, labels).astype(p.dtype))
    return dlogits.astype(logits.dtype), None


def _hit(logits, labels):
    return labels[..., None] == jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1)


def _valid(logits, labels):
    return (labels >= 0) & (labels < logits.shape[-1])


def _check(logits, labels):
    where = "softmax_cross_entropy_with_integer_labels"
    require_float(where, "logits", logits)
    require_integer(where, "labels", labels)
    require_rank_at_least(where, "logits", logits, 1, "classes last")
    if labels.shape != logits.shape[:-1]:
        one_hot = labels.shape == logits.shape
        remedy = "softmax_cross_entropy takes distributions" if one_hot else "one label per row of logits"
        refuse(
            where,
            f"labels has shape {list(labels.shape)}, logits has shape {list(logits.shape)}; "
            f"wanted labels of shape {list(logits.shape[:-1])}: {remedy}",
        )


softmax_cross_entropy_with_integer_labels = Op(equation, forward, backward)

"""Softmax cross-entropy with integer labels.

    loss = log(sum_v exp(z[v])) - z[t]

Backward. d(log sum exp)/dz[v] = exp(z[v]) / sum_u exp(z[u]) = p[v], and d(z[t])/dz[v] = [v == t]; so for a cotangent dloss

    dlogits[v] = dloss (p[v] - [v == t])

The error at the logits is the difference between what the network believes and what is so: it grows the more confidently
wrong it is, and never saturates. At the label it is computed as minus the sum of the other p, so that a label of
probability 1 - 1e-9 still has a loss and a gradient of 1e-9 (0 in optax, Keras and PyTorch, who subtract from 1).

Limits (the equation is the oracle where it is finite; these lines are the oracle elsewhere).
| input                      | loss          | gradient          | why                                                    |
|----------------------------|---------------|-------------------|--------------------------------------------------------|
| logits up to +-1e30        | exact         | exact             | the largest logit is subtracted first                  |
| a logit of -inf            | leaves it out | 0 there           | a masked class has probability 0                       |
| the label's logit is -inf  | inf           | p[v] - [v == t]   | an impossible class was wanted                         |
| a logit of +inf            | 0 or inf      | p is one-hot      | the limit; shared equally among several +inf           |
| all logits -inf, NaN       | NaN           | NaN               | no distribution: loud                                  |
| label outside [0, V)       | NaN           | NaN               | loud; optax and JAX wrap -1 to the last class, Keras returns 0 |
| NaN or such a label, dloss 0 | NaN         | 0                 | an example without weight does not count               |

Shapes: logits z [..., V] float, labels t [...] int, loss [...]; 16-bit logits give a float32 loss. Errors: InputError for a
shape that does not fit, InputTypeError for other dtypes. Source: Goodfellow, Bengio & Courville 2016, section 6.2.2.3.

    >>> fdl.losses.softmax_cross_entropy_with_integer_labels(jnp.float32([[0, 0]]), jnp.int32([1])).round(4)  # log 2
    Array([0.6931], dtype=float32)
"""

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_classes, require_float, require_integer, require_rank_at_least
from fdl.op import Op, accumulator


def equation(logits, labels):
    log_total = jnp.log(jnp.sum(jnp.exp(logits), axis=-1))
    loss = log_total - jnp.sum(logits * _hit(logits, labels).astype(logits.dtype), axis=-1)
    return loss * one_if_class(labels, logits)


def forward(logits, labels):
    _check(logits, labels)
    valid = _valid(logits, labels)
    top = jnp.max(logits, axis=-1).astype(accumulator(logits.dtype))
    rest = jnp.sum(_other_shares(logits, labels, top), axis=-1)
    safe = jnp.where(valid, labels, jnp.zeros_like(labels))
    label = jnp.take_along_axis(logits, safe[..., None], axis=-1)[..., 0].astype(top.dtype)
    gap = jnp.where(label == jnp.inf, jnp.zeros_like(top), label - top)
    # a label that is almost sure keeps its digits, where log(rest + 1) would be 0; a small rest means that gap is 0
    sure = rest < 0.25
    loss = jnp.where(sure, jnp.log1p(jnp.where(sure, rest, jnp.zeros_like(rest))), jnp.log(rest + jnp.exp(gap)) - gap)
    return jnp.where(valid, loss, jnp.full_like(loss, jnp.nan)), (logits, labels, top, rest, jnp.exp(gap))


def backward(residuals, dloss):
    logits, labels, top, rest, label_share = residuals
    # The same expression as in forward: in one compiled program it is computed once and becomes dlogits in place. For
    # [4096, 1024], forward and backward, the label's place in the exponentials costs 2 % more than a gather that keeps no
    # digits; a masked sum 1.7 times as much; exp(z - log total), another exponential, twice as much.
    shares = _other_shares(logits, labels, top)  # [..., V], relative to the largest
    total = rest + label_share
    scale = jnp.where(_valid(logits, labels), 1 / total, jnp.full_like(total, jnp.nan))
    # an example without weight may hold NaN, or no label: 0 * NaN would be NaN
    dead = (dloss == 0) & ~jnp.isfinite(scale)
    scale = jnp.where(dead, jnp.zeros_like(scale), scale)
    shares = jnp.where(dead[..., None], jnp.zeros_like(shares), shares)
    rest = jnp.where(dead, jnp.zeros_like(rest), rest)
    # p - 1 at the label, without the difference
    dlogits = jnp.where(_hit(logits, labels), -(dloss * scale * rest)[..., None], shares * (dloss * scale)[..., None])
    return dlogits.astype(logits.dtype), None


def _other_shares(logits, labels, top):
    """exp(logits - top), and 0 at the label."""
    # only +inf is above the largest number. The minimum takes 5 % of all of this loss on a CPU. A constant of -inf anywhere
    # else in the program takes 10 %: XLA then passes it to the maximum over the logits, which is slower with it as an operand
    z = logits.astype(top.dtype) - jnp.minimum(top, jnp.finfo(top.dtype).max)[..., None]
    shares = jnp.exp(jnp.minimum(z, jnp.zeros((), z.dtype)))
    return jnp.where(_hit(logits, labels), jnp.zeros_like(shares), shares)


def indices(labels):
    """Labels as integers that can count to any V: 8-bit ones would wrap at 256."""
    return labels.astype(jnp.int64 if labels.dtype.itemsize == 8 else jnp.int32)


def one_if_class(labels, logits, ignored=None):
    """1, and NaN for a label that is neither in [0, V) nor ignored: the factor of a formula that would give it a number."""
    one, known = jnp.ones(labels.shape, logits.dtype), _valid(logits, labels)
    return jnp.where(known if ignored is None else known | (labels == ignored), one, jnp.full_like(one, jnp.nan))


def _hit(logits, labels):
    labels = indices(labels)
    return labels[..., None] == jax.lax.broadcasted_iota(labels.dtype, logits.shape, logits.ndim - 1)


def _valid(logits, labels):
    labels = indices(labels)
    return (labels >= 0) & (labels < logits.shape[-1])


def _check(logits, labels):
    where = "softmax_cross_entropy_with_integer_labels"
    require_float(where, "logits", logits)
    require_integer(where, "labels", labels)
    require_rank_at_least(where, "logits", logits, 1, "classes last")
    require_classes(where, "logits", logits)
    if labels.shape != logits.shape[:-1]:
        one_hot = labels.shape == logits.shape
        remedy = "softmax_cross_entropy takes distributions" if one_hot else "one label per row of logits"
        refuse(
            where,
            f"labels has shape {list(labels.shape)}, logits has shape {list(logits.shape)}; "
            f"wanted labels of shape {list(logits.shape[:-1])}: {remedy}",
        )


softmax_cross_entropy_with_integer_labels = Op(equation, forward, backward)

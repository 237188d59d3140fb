"""Generalized cross-entropy of integer labels: between cross-entropy (q -> 0) and the absolute error 1 - p (q -> 1).

    loss = (1 - p[t]^q) / q        pred p[v]: probabilities, taken as they are

A wrong label pulls with p^(q - 1) < 1/p, the pull of cross-entropy: the loss is bounded by 1/q and forgives noisy labels.

Backward. Only p[t] is in the loss, so for a cotangent dloss

    dp[v] = - dloss [v == t] p[v]^(q - 1)

Limits.
| input                | loss | gradient      | why                                                                     |
|----------------------|------|---------------|-------------------------------------------------------------------------|
| p[t] = 0             | 1/q  | -inf          | p^(q - 1) -> inf: bounded loss, unbounded slope; Keras NaN at the others |
| p[t] = 1             | 0    | -1 at t       |                                                                         |
| q = 1e-7, p = 1e-12  | 27.63| -1e12         | -log p, by expm1; 1 - p^q has lost its digits: Keras 27.42              |
| t outside [0, V)     | NaN  | NaN           | loud; Keras returns 1/q                                                 |
| a p outside [0, 1]   | NaN  | NaN           | not a probability: loud, wherever it is in the row                      |
| NaN                  | NaN  | NaN           | loud                                                                    |

Shapes: pred [..., V] float, target [...] int, loss [...]. `q` in (0, 1), or traced; 0.5 is the default of Keras's class.
Errors: InputError, InputTypeError. Source: Zhang & Sabuncu 2018, equation 6; Keras's `categorical_generalized_cross_entropy`.

    >>> fdl.losses.categorical_generalized_cross_entropy(jnp.float32([[0.25, 0.75]]), jnp.int32([0]))  # (1 - sqrt(1/4)) / (1/2)
    Array([1.], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import refuse, require_classes, require_float, require_integer, require_number, require_rank_at_least
from fdl.losses._per_example import times, widened
from fdl.losses._probabilities import probability
from fdl.losses.softmax_cross_entropy_with_integer_labels import one_if_class
from fdl.losses.sparse_categorical_crossentropy import one_hot
from fdl.op import Op


def equation(pred, target, *, q=0.5):
    hit = target[..., None] == jnp.arange(pred.shape[-1], dtype=target.dtype)[(None,) * target.ndim]
    p, q = jnp.sum(pred * hit.astype(pred.dtype), axis=-1), jnp.asarray(q, pred.dtype)
    return (1 - p**q) / q * one_if_class(target, pred)


def forward(pred, target, *, q):
    _check(pred, target, q)
    p, _ = _of_label(pred, target)
    q = jnp.asarray(q, p.dtype)
    return -jnp.expm1(q * jnp.log(p)) / q, (pred, target)


def backward(residuals, dloss, *, q):
    pred, target = residuals
    p, hit = _of_label(pred, target)
    slope = -jnp.power(p, jnp.asarray(q, p.dtype) - 1)[..., None]
    # where p is NaN, so is the whole row
    return times(dloss[..., None], jnp.where(hit | jnp.isnan(slope), slope, jnp.zeros_like(slope))).astype(
        pred.dtype
    ), None


def _of_label(pred, target):
    """(p[t] [...], [v == t] [..., V]); p[t] is NaN if t is outside or if any entry of the row is no probability."""
    (pred,) = widened(pred)
    hot = one_hot(target, pred)
    hit = hot == 1
    loud = jnp.isnan(hot + probability(pred)).any(axis=-1)
    p = jnp.sum(jnp.where(hit, pred, jnp.zeros_like(pred)), axis=-1)
    return jnp.where(loud, jnp.full_like(p, jnp.nan), p), hit


def _check(pred, target, q):
    where = "categorical_generalized_cross_entropy"
    require_float(where, "pred", pred)
    require_integer(where, "target", target)
    require_rank_at_least(where, "pred", pred, 1, "classes last")
    require_classes(where, "pred", pred)
    if target.shape != pred.shape[:-1]:
        refuse(
            where,
            f"target has shape {list(target.shape)}, pred has shape {list(pred.shape)}; wanted target of shape "
            f"{list(pred.shape[:-1])}: one label per row of pred",
        )
    require_number(where, "q", q, 0, 1, exclusive=True, remedy="near 0 is cross-entropy, near 1 the absolute error")


categorical_generalized_cross_entropy = Op(equation, forward, backward)

"""Cross-entropy of classes with integer labels, of probabilities or of logits, along an axis of V classes.

    loss = - log q[t]        q[v] = p[v] / sum_u p[u], or from_logits: exp(z[v]) / sum_u exp(z[u])
    loss = 0                 where t = ignore_class

Backward. categorical_crossentropy.py with the target [v == t]: with S = sum_u p[u], for a cotangent dloss

    dp[v] = dloss (1 / S - [v == t] / p[v])        dz[v] = dloss (q[v] - [v == t])        0 where t = ignore_class

Limits (more in categorical_crossentropy.py and in softmax_cross_entropy_with_integer_labels.py).
| input                     | loss  | gradient      | why                                                                  |
|---------------------------|-------|---------------|----------------------------------------------------------------------|
| t = ignore_class          | 0     | exactly 0     | also where pred holds NaN                                            |
| all labels ignored        | 0     | 0             | nothing counts; the mean over what counts is PyTorch's NaN           |
| other t outside [0, V)    | NaN   | NaN           | loud; Keras returns 0                                                |
| p[t] = 0                  | inf   | -inf at t     | Keras clips at 1e-7: 16.1 and 0                                      |
| p < 0, p = inf, NaN       | NaN   | NaN           | no probability: loud                                                 |
| a logit of -inf           | leaves it out | 0     | a masked class; Keras gives NaN                                      |

Shapes: pred [..., V, ...] float, target int of that shape without `axis`, loss like target. Errors: InputError for a shape
that does not fit ([N, 1] labels too, which Keras squeezes) and for an ignore_class that the labels' dtype cannot hold,
InputTypeError for other dtypes. Source: Keras's `sparse_categorical_crossentropy`, values alike where q is in
[1e-7, 1 - 1e-7].

    >>> fdl.losses.sparse_categorical_crossentropy(jnp.float32([[0.25, 0.75]]), jnp.int32([1])).round(4)  # -log(3/4)
    Array([0.2877], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import (
    refuse,
    refuse_type,
    require_axis,
    require_bool,
    require_classes,
    require_float,
    require_integer,
    shown,
)
from fdl.losses._per_example import times, widened
from fdl.losses.categorical_crossentropy import slopes, value
from fdl.losses.softmax_cross_entropy_with_integer_labels import one_if_class
from fdl.op import Op

WHERE = "sparse_categorical_crossentropy"


def equation(pred, target, *, from_logits=False, ignore_class=None, axis=-1):
    p = jnp.exp(pred) if from_logits else pred
    log_q = jnp.moveaxis(jnp.log(p / jnp.sum(p, axis=axis, keepdims=True)), axis, -1)
    hit = target[..., None] == jnp.arange(log_q.shape[-1], dtype=target.dtype)[(None,) * target.ndim]
    loss = -jnp.sum(hit.astype(log_q.dtype) * log_q, axis=-1)
    loss = loss * one_if_class(target, log_q, ignore_class)
    return loss if ignore_class is None else loss * (target != ignore_class).astype(loss.dtype)


def forward(pred, target, *, from_logits, ignore_class, axis):
    _check(pred, target, from_logits, ignore_class, axis)
    x, t, counts = _classes_last(pred, target, ignore_class, axis)
    loss = value(x, t, from_logits)
    return jnp.where(counts, loss, jnp.zeros_like(loss)), (pred, target)


def backward(residuals, dloss, *, from_logits, ignore_class, axis):
    pred, target = residuals
    x, t, counts = _classes_last(pred, target, ignore_class, axis)
    dx = times(dloss[..., None], slopes(x, t, from_logits)[0])
    dx = jnp.where(counts[..., None], dx, jnp.zeros_like(dx))
    return jnp.moveaxis(dx, -1, axis).astype(pred.dtype), None


def one_hot(labels, x):
    """[..., V]; NaN in the row of a label outside [0, V)."""
    # 8 and 16 bits may not hold V
    labels = labels.astype(jnp.int32) if jnp.iinfo(labels.dtype).bits < 32 else labels
    classes = jnp.arange(x.shape[-1], dtype=labels.dtype)[(None,) * labels.ndim]
    valid = (labels >= 0) & (labels < x.shape[-1])
    hit = (labels[..., None] == classes).astype(x.dtype)
    return jnp.where(valid[..., None], hit, jnp.full_like(hit, jnp.nan))


def _classes_last(pred, target, ignore_class, axis):
    """(pred, one-hot target, what counts); a row that is ignored holds 1s, so that no NaN comes from it."""
    (x,) = widened(pred)
    x = jnp.moveaxis(x, axis, -1)
    t = one_hot(target, x)
    counts = jnp.ones(target.shape, bool) if ignore_class is None else target != ignore_class
    return *(jnp.where(counts[..., None], array, jnp.ones_like(array)) for array in (x, t)), counts


def _check(pred, target, from_logits, ignore_class, axis):
    require_float(WHERE, "pred", pred)
    require_integer(WHERE, "target", target)
    require_bool(WHERE, "from_logits", from_logits)
    require_axis(WHERE, axis, pred)
    require_classes(WHERE, "pred", pred, axis)
    wanted = list(pred.shape)
    del wanted[axis]
    if list(target.shape) != wanted:
        one_hot = target.shape == pred.shape
        remedy = (
            "categorical_crossentropy takes distributions" if one_hot else "one label per example, without the axis"
        )
        got = f"target has shape {list(target.shape)}, pred has shape {list(pred.shape)} and axis is {axis}"
        refuse(WHERE, f"{got}; wanted target of shape {wanted}: {remedy}")
    if ignore_class is None:
        return
    if isinstance(ignore_class, bool) or not isinstance(ignore_class, int):
        refuse_type(WHERE, f"ignore_class is {shown(ignore_class)}, wanted an integer or None")
    info = jnp.iinfo(target.dtype)
    if not info.min <= ignore_class <= info.max:
        refuse(
            WHERE, f"ignore_class is {ignore_class}, which no {target.dtype} label can be; convert the labels to int32"
        )


sparse_categorical_crossentropy = Op(equation, forward, backward)

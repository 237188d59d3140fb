"""Hinge loss, per example: 0 for what is on the right side of the margin, linear for what is not.

    loss = 1/D sum_d max(1 - y[d] pred[d], 0)        y = target in {-1, +1}, or 2 target - 1 for labels in {0, 1}

Backward. With z = y pred the slope of max(1 - z, 0) is g = -1 for z < 1 and 0 beyond, so for a cotangent dloss

    dpred[d] = dloss/D g[d] y[d]          dtarget[d] = dloss/D g[d] pred[d] dy/dtarget        (dy/dtarget is 1 or 2)

Labels. `binary_labels=True` says that the labels are 0 and 1. Keras looks instead: if all labels of the batch are 0 or
1 it maps them to -1 and 1, else it takes them as they are, so that the same example has another loss in another batch.
With labels -1 and +1 the values are Keras's.

Limits.
| input                 | loss     | gradient     | why                                                     |
|-----------------------|----------|--------------|---------------------------------------------------------|
| y pred = 1, the kink  | 0        | 0            | 0 is a subgradient; Keras and optax give half the slope |
| y pred = -1e30, -inf  | its size | dpred = -y/D |                                                         |
| y pred = inf          | 0        | 0, 0         | right by any margin                                     |
| target 0              | NaN      | NaN          | loud: labels are {0, 1}, and `binary_labels` is off     |
| binary, not in [0, 1] | NaN      | NaN          | loud                                                    |
| NaN                   | NaN      | NaN          | loud                                                    |

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors:
InputError for unequal shapes, InputTypeError for other dtypes. Source: Cortes & Vapnik 1995; Keras `hinge`, with the
target second.

    >>> fdl.losses.hinge(jnp.float32([[0.25]]), jnp.float32([[1]]))
    Array([0.75], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_bool
from fdl.losses._per_example import opened, step, through_mean, widened
from fdl.op import Op


def equation(pred, target, *, binary_labels=False):
    y = 2 * target - 1 if binary_labels else target
    return jnp.mean(jnp.maximum(1 - y * pred, 0), axis=-1)


def forward(pred, target, *, binary_labels):
    p, t = opened("hinge", pred, target)
    require_bool("hinge", "binary_labels", binary_labels)
    margin = 1 - signed(t, binary_labels) * p
    return jnp.mean(jnp.maximum(margin, 0), axis=-1), (pred, target)


def backward(residuals, dloss, *, binary_labels):
    p, t = widened(*residuals)
    y = signed(t, binary_labels)
    return through_product(residuals, dloss, -step(1 - y * p), y, binary_labels)


def signed(target, binary_labels):
    """The labels as -1 and +1; NaN for what is no label."""
    if binary_labels:
        y, known = 2 * target - 1, (target >= 0) & (target <= 1)
    else:
        y, known = target, target != 0
    return jnp.where(known, y, jnp.full_like(target, jnp.nan))


def through_product(residuals, dloss, g, y, binary_labels):
    """(dpred, dtarget) of a loss that is the mean of a function of y pred, whose slope is g."""
    pred, target = residuals
    p = pred.astype(g.dtype)
    flat = g == 0  # 0 * inf: no pull on the label of an infinite pred that is on the right side
    by_label = g * jnp.where(flat, jnp.zeros_like(p), p) * (2 if binary_labels else 1)
    return through_mean(dloss, g * y).astype(pred.dtype), through_mean(dloss, by_label).astype(target.dtype)


hinge = Op(equation, forward, backward)

"""Squared hinge loss, per example: the hinge without its kink.

    loss = 1/D sum_d max(1 - y[d] pred[d], 0)^2        y = target in {-1, +1}, or 2 target - 1 for labels in {0, 1}

Backward. With z = y pred the slope of max(1 - z, 0)^2 is g = -2 max(1 - z, 0), so for a cotangent dloss

    dpred[d] = dloss/D g[d] y[d]          dtarget[d] = dloss/D g[d] pred[d] dy/dtarget        (dy/dtarget is 1 or 2)

Labels: as in hinge; `binary_labels=True` says that they are 0 and 1, where Keras looks at the whole batch.

Limits.
| input                 | loss   | gradient          | why                                                     |
|-----------------------|--------|-------------------|---------------------------------------------------------|
| y pred = 1            | 0      | 0                 | the second derivative there is 0, that of the flat side |
| y pred = -1e30        | inf    | dpred = -2e30 y/D | the square does not fit in float32, the slope does      |
| y pred = -inf, inf    | inf, 0 | -inf y, 0         | the limit                                               |
| target 0              | NaN    | NaN               | loud: labels are {0, 1}, and `binary_labels` is off     |
| binary, not in [0, 1] | NaN    | NaN               | loud                                                    |
| NaN                   | NaN    | NaN               | loud                                                    |

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors:
InputError for unequal shapes, InputTypeError for other dtypes. Source: Keras `squared_hinge`, with the target second.

    >>> fdl.losses.squared_hinge(jnp.float32([[0.5]]), jnp.float32([[1]]))
    Array([0.25], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_bool
from fdl.losses._per_example import opened, widened
from fdl.losses.hinge import signed, through_product
from fdl.op import Op


def equation(pred, target, *, binary_labels=False):
    y = 2 * target - 1 if binary_labels else target
    return jnp.mean(jnp.maximum(1 - y * pred, 0) ** 2, axis=-1)


def forward(pred, target, *, binary_labels):
    p, t = opened("squared_hinge", pred, target)
    require_bool("squared_hinge", "binary_labels", binary_labels)
    shortfall = _shortfall(p, signed(t, binary_labels))
    return jnp.mean(shortfall * shortfall, axis=-1), (pred, target)


def backward(residuals, dloss, *, binary_labels):
    p, t = widened(*residuals)
    y = signed(t, binary_labels)
    return through_product(residuals, dloss, -2 * _shortfall(p, y), y, binary_labels)


def _shortfall(p, y):
    """max(1 - y p, 0), with the derivative 0 at the kink and NaN for NaN."""
    margin = 1 - y * p
    return jnp.where(margin <= 0, jnp.zeros_like(margin), margin)


squared_hinge = Op(equation, forward, backward)

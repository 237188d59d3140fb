"""Modified Huber loss for classification, per example: a squared hinge that turns linear far on the wrong side.

    loss = 1/D sum_d h(y[d] pred[d])        h(z) = max(1 - z, 0)^2    for z >= -1
                                            h(z) = -4 z               for z < -1

with y = target in {-1, +1}, or 2 target - 1 for labels in {0, 1} with `binary_labels=True`.

Backward. h' = -2 max(1 - z, 0) to the right of -1 and -4 to the left: the slope of the square, cut at -4. For a
cotangent dloss and g[d] = h'(y[d] pred[d])

    dpred[d] = dloss/D g[d] y[d]          dtarget[d] = dloss/D g[d] pred[d] dy/dtarget        (dy/dtarget is 1 or 2)

Limits.
| input                 | loss   | gradient       | why                                                          |
|-----------------------|--------|----------------|--------------------------------------------------------------|
| y pred = 1            | 0      | 0              | the second derivative there is 0, that of the flat side      |
| y pred = -1           | 4      | dpred = -4 y/D | both pieces; the second derivative there is 2                |
| y pred = -1e30        | 4e30   | -4 y/D         | an outlier pulls no harder than 4; no square is formed there |
| y pred = -inf, inf    | inf, 0 | -4 y/D, 0      | the limit                                                    |
| target 0              | NaN    | NaN            | loud: labels are {0, 1}, and `binary_labels` is off          |
| binary, not in [0, 1] | NaN    | NaN            | loud                                                         |
| NaN                   | NaN    | NaN            | loud                                                         |

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors:
InputError for unequal shapes, InputTypeError for other dtypes. Source: Zhang 2004 (ICML), section 2; scikit-learn
`SGDClassifier(loss="modified_huber")`. Keras, optax and PyTorch lack it.

    >>> fdl.losses.modified_huber(jnp.float32([[-2]]), jnp.float32([[1]]))  # -4 y p
    Array([8.], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_bool
from fdl.losses._per_example import opened, widened
from fdl.losses.hinge import signed, through_product
from fdl.op import Op


def equation(pred, target, *, binary_labels=False):
    z = (2 * target - 1 if binary_labels else target) * pred
    return jnp.mean(jnp.where(z >= -1, jnp.maximum(1 - z, 0) ** 2, -4 * z), axis=-1)


def forward(pred, target, *, binary_labels):
    p, t = opened("modified_huber", pred, target)
    require_bool("modified_huber", "binary_labels", binary_labels)
    z = signed(t, binary_labels) * p
    squared = z >= -1
    shortfall = jnp.where(squared & (z < 1), 1 - z, jnp.zeros_like(z))
    far = jnp.where(squared, jnp.zeros_like(z), z)  # NaN goes this way
    return jnp.mean(jnp.where(squared, shortfall * shortfall, -4 * far), axis=-1), (pred, target)


def backward(residuals, dloss, *, binary_labels):
    p, t = widened(*residuals)
    y = signed(t, binary_labels)
    z = y * p
    slope = jnp.where(z >= 1, jnp.zeros_like(z), 2 * (z - 1))
    slope = jnp.where(z < -1, jnp.full_like(z, -4), slope)
    return through_product(residuals, dloss, slope, y, binary_labels)


modified_huber = Op(equation, forward, backward)

"""Categorical hinge loss: the wanted class should be ahead of every other one by 1.

    loss = max(1 + neg - pos, 0)        pos = sum_v t[v] pred[v]        neg = max_v (1 - t[v]) pred[v]

with a one-hot t. neg is at least 0 then: the wanted class itself stands there with (1 - 1) pred = 0, as in Keras.

Backward. Let m be the index of the maximum in neg (the first of equals) and g = 1 where 1 + neg - pos > 0, else 0. For
a cotangent dloss

    dpred[v] = dloss g ([v == m] (1 - t[v]) - t[v])          dt[v] = -dloss g pred[v] (1 + [v == m])

Limits.
| input                                  | loss          | dpred     | why                                            |
|----------------------------------------|---------------|-----------|------------------------------------------------|
| 1 + neg - pos = 0, the kink            | 0             | 0         | 0 is a subgradient; Keras gives half the slope |
| two classes tie in neg                 |               | the first | Keras shares equally                           |
| pred -inf where t = 0                  | leaves it out | 0 there   | a masked class; Keras gives NaN, and 0         |
| pred inf where t = 1                   | 0             | 0         | the limit                                      |
| pred inf where t = 0, -inf where t = 1 | inf           | g = 1     | the limit                                      |
| inf on both sides, NaN                 | NaN           | NaN       | loud                                           |

t need not be one-hot: the formula holds, and Keras's, for any. Crammer and Singer's loss, and PyTorch's
`MultiMarginLoss`, do not have the 0 of the wanted class in the maximum.

Shapes: pred, t [..., V] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors: InputError
for unequal shapes, InputTypeError for other dtypes. Source: Keras `categorical_hinge`, with the target second.

    >>> fdl.losses.categorical_hinge(jnp.float32([[0.25, 0.5, 0]]), jnp.float32([[1, 0, 0]]))  # 1 + 0.5 - 0.25
    Array([1.25], dtype=float32)
"""

import jax
import jax.numpy as jnp

from fdl.losses._per_example import opened, step, times, widened
from fdl.op import Op


def equation(pred, target):
    pos = jnp.sum(target * pred, axis=-1)
    neg = jnp.max((1 - target) * pred, axis=-1)
    return jnp.maximum(1 + neg - pos, 0)


def forward(pred, target):
    p, t = opened("categorical_hinge", pred, target)
    margin, _ = _margin(p, t)
    return jnp.maximum(margin, 0), (pred, target)


def backward(residuals, dloss):
    pred, target = residuals
    p, t = widened(pred, target)
    margin, hit = _margin(p, t)
    g = step(margin)[..., None]
    dpred = times(dloss[..., None], g * (hit * (1 - t) - t))
    moved = jnp.where(g == 0, jnp.zeros_like(p), p)  # 0 * inf
    dtarget = times(dloss[..., None], -g * moved * (1 + hit))
    return dpred.astype(pred.dtype), dtarget.astype(target.dtype)


def _margin(p, t):
    """(1 + neg - pos, the first place of the maximum as one-hot)."""
    pos = jnp.sum(t * _weighed(p, t), axis=-1)
    others = (1 - t) * _weighed(p, 1 - t)  # [..., V]
    hit = jax.nn.one_hot(jnp.argmax(others, axis=-1), p.shape[-1], dtype=p.dtype)
    neg = jnp.sum(jnp.where(hit == 1, others, jnp.zeros_like(others)), axis=-1)
    return 1 + neg - pos, hit


def _weighed(p, weight):
    """p, but 0 where it is infinite and has no weight; only there, so that the derivative by the weight stays p."""
    return jnp.where((weight == 0) & jnp.isinf(p), jnp.zeros_like(p), p)


categorical_hinge = Op(equation, forward, backward)

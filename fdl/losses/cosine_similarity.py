"""Cosine similarity, negated to be minimised: -1 for vectors of one direction, 0 for orthogonal, 1 for opposite ones.

    loss = - sum_d pred[d] target[d] / (|pred| |target|)

Backward. With u = pred/|pred|, v = target/|target| and c = u . v = -loss, the unit vector moves with its argument as
du[e]/dpred[d] = ([e == d] - u[e] u[d]) / |pred|. So for a cotangent dloss

    dpred[d] = -dloss (v[d] - c u[d]) / |pred|          dtarget[d] = -dloss (u[d] - c v[d]) / |target|

the part of the other unit vector that is orthogonal to one's own: the length of pred is not pulled at.

Limits.
| input                      | loss      | gradient | why                                                       |
|----------------------------|-----------|----------|-----------------------------------------------------------|
| a zero vector              | 0         | 0        | no direction; the gradient of Keras and optax is NaN      |
| pred scaled by 1e-25       | same      | by 1e25  | scaled by its largest entry first; Keras 1e-18, optax NaN |
| pred scaled by 1e25        | same      | by 1e-25 | Keras, optax and PyTorch 0                                |
| +-inf in one place of pred | -+v there | 0        | the limit; several infinite places share equally          |
| NaN                        | NaN       | NaN      | loud                                                      |

Shapes: pred, target float of equal shapes, loss without `axis`; 16-bit input gives a float32 loss; nothing is
broadcast. axis: one axis. Errors: InputError for unequal shapes or an axis that is not there, InputTypeError for other
dtypes. Source: Keras `cosine_similarity`, with the target second; optax's and PyTorch's have the other sign.

    >>> fdl.losses.cosine_similarity(jnp.float32([[3, 4]]), jnp.float32([[6, 8]])).round(4)  # the same direction
    Array([-1.], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_axis
from fdl.losses._per_example import opened, times, widened
from fdl.losses.euclidean_distance import direction
from fdl.op import Op


def equation(pred, target, *, axis=-1):
    lengths = jnp.sqrt(jnp.sum(pred**2, axis=axis) * jnp.sum(target**2, axis=axis))
    return -jnp.sum(pred * target, axis=axis) / lengths


def forward(pred, target, *, axis):
    wide_pred, wide_target = opened("cosine_similarity", pred, target)
    require_axis("cosine_similarity", axis, pred)
    (u, _), (v, _) = direction(wide_pred, axis), direction(wide_target, axis)
    return -jnp.sum(u * v, axis=axis), (pred, target)


def backward(residuals, dloss, *, axis):
    pred, target = residuals
    wide_pred, wide_target = widened(pred, target)
    (u, pred_length), (v, target_length) = direction(wide_pred, axis), direction(wide_target, axis)
    cosine = jnp.sum(u * v, axis=axis, keepdims=True)
    dloss = jnp.expand_dims(dloss, axis)
    dpred = times(dloss, -_over(v - cosine * u, pred_length))
    dtarget = times(dloss, -_over(u - cosine * v, target_length))
    return dpred.astype(pred.dtype), dtarget.astype(target.dtype)


def _over(pull, length):
    zero = length == 0
    return jnp.where(zero, jnp.zeros_like(pull), pull / jnp.where(zero, jnp.ones_like(length), length))


cosine_similarity = Op(equation, forward, backward)

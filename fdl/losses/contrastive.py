"""Contrastive loss of a pair of embeddings: similar pairs are pulled together, others pushed out to a margin.

    r = |pred - target|        loss = r^2 / 2                  for a similar pair
                               loss = max(margin - r, 0)^2 / 2  for another

Backward. With x = pred - target and u = x / r, dr/dpred = u. For a cotangent dloss

    dpred = dloss x    or    dpred = -dloss max(margin - r, 0) u          dtarget = -dpred          similar has none

Limits.
| input                   | loss         | gradient  | why                                                             |
|-------------------------|--------------|-----------|-----------------------------------------------------------------|
| r = 0, similar          | 0            | 0         |                                                                 |
| r = 0, not similar      | margin^2 / 2 | 0         | no direction is preferred; 0 is in the hull of the slopes       |
| r = margin, not similar | 0            | 0         | smooth; the second derivative there is 0, that of the flat side |
| r = 1e25, similar       | inf          | x         | the square does not fit in float32, the slope does              |
| r = 1e-25, not similar  | margin^2 / 2 | -margin u | a short vector has its direction too                            |
| r = inf, similar or not | inf or 0     | x or 0    | the limit                                                       |
| similar not 0 or 1      | NaN          | NaN       | loud: no label                                                  |
| NaN                     | NaN          | NaN       | loud                                                            |

Shapes: pred, target [..., D] float, similar [...] of booleans or integers (1: similar), loss [...]; 16-bit input gives
a float32 loss; nothing is broadcast. margin: a number >= 0 or a scalar array. Errors: InputError for shapes that do not
fit or a negative margin, InputTypeError for other dtypes. Source: Hadsell, Chopra & LeCun 2006, eq. 4, where Y = 0
means similar. Keras, optax and PyTorch lack it (PyTorch's `CosineEmbeddingLoss` is about angles).

    >>> near, far = jnp.float32([[0, 0]]), jnp.float32([[0.6, 0.8]])
    >>> fdl.losses.contrastive(near, far, jnp.int32([0]), margin=2.0).round(4)  # (2 - 1)^2 / 2
    Array([0.5], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import refuse, refuse_type, require_array, require_number, shown
from fdl.losses._per_example import opened, times, widened
from fdl.losses.euclidean_distance import direction
from fdl.op import Op


def equation(pred, target, similar, *, margin=1.0):
    r = jnp.sqrt(jnp.sum((pred - target) ** 2, axis=-1))
    return jnp.where(_is(similar, 1), r**2, jnp.maximum(jnp.asarray(margin, r.dtype) - r, 0) ** 2) / 2


def forward(pred, target, similar, *, margin):
    wide_pred, wide_target = opened("contrastive", pred, target)
    _check(pred, similar, margin)
    x = wide_pred - wide_target
    _, r = direction(x)
    pulled = jnp.sum(x * (x / 2), axis=-1)
    shortfall = _shortfall(r, margin)[..., 0]
    loss = jnp.where(_is(similar, 1), pulled, shortfall * (shortfall / 2))
    return _labelled(similar, loss), (pred, target, similar)  # u is rebuilt: a [..., D] buffer less


def backward(residuals, dloss, *, margin):
    pred, target, similar = residuals
    wide_pred, wide_target = widened(pred, target)
    x = wide_pred - wide_target
    u, r = direction(x)
    similar = similar[..., None]
    slope = _labelled(similar, jnp.where(_is(similar, 1), x, -_shortfall(r, margin) * u))
    dpred = times(dloss[..., None], slope).astype(pred.dtype)
    return dpred, -dpred, None


def _shortfall(r, margin):
    """max(margin - r, 0), with the derivative 0 at the kink and NaN for NaN."""
    left = jnp.asarray(margin, r.dtype) - r
    return jnp.where(left <= 0, jnp.zeros_like(left), left)


def _labelled(similar, value):
    return jnp.where(_is(similar, 0) | _is(similar, 1), value, jnp.full_like(value, jnp.nan))


def _is(similar, label):
    return similar == jnp.asarray(label, similar.dtype)


def _check(pred, similar, margin):
    where = "contrastive"
    require_array(where, "similar", similar)
    if not jnp.issubdtype(similar.dtype, jnp.integer) and similar.dtype != jnp.bool_:
        refuse_type(where, f"similar is {shown(similar)}, wanted booleans or integers; convert it with similar == 1")
    if similar.shape != pred.shape[:-1]:
        refuse(
            where,
            f"similar has shape {list(similar.shape)}, pred has shape {list(pred.shape)}; "
            f"wanted similar of shape {list(pred.shape[:-1])}: one label per pair",
        )
    require_number(
        where, "margin", margin, 0, float("inf"), remedy="it is the distance beyond which others are left alone"
    )


contrastive = Op(equation, forward, backward)

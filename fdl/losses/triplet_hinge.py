"""Triplet hinge loss: an anchor should be closer to its positive than to its negative, by a margin.

    loss = max(|anchor - positive| - |anchor - negative| + margin, 0)        or of the squared distances: `squared=True`

Backward. With x = anchor - positive, y = anchor - negative, u = x/|x| and v = y/|y| (2 x and 2 y with squares), and g =
1 where the bracket is above 0, else 0, for a cotangent dloss

    danchor = dloss g (u - v)          dpositive = -dloss g u          dnegative = dloss g v

Limits.
| input                 | loss  | gradient      | why                                                               |
|-----------------------|-------|---------------|-------------------------------------------------------------------|
| the kink              | 0     | 0             | 0 is a subgradient; jnp.maximum gives half the slope              |
| anchor = positive     |       | u = 0         | 0 is a subgradient of the distance; the plain formula gives NaN   |
| anchor = negative     |       | v = 0         | no direction is preferred                                         |
| distances 1e25, 1e-25 | exact | exact         | scaled before they are squared (`squared` has 1e50, which is inf) |
| negative at inf       | 0     | 0             | far enough                                                        |
| positive at inf       | inf   | u = +-1 there | the limit                                                         |
| both at inf, NaN      | NaN   | NaN           | loud                                                              |

optax adds 1e-6 to the squares, PyTorch to the vectors: neither has this value at small distances.

Shapes: anchor, positive, negative [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast.
margin: a number >= 0 or a scalar array. Errors: InputError for unequal shapes or a negative margin, InputTypeError for
other dtypes. Source: Weinberger & Saul 2009; Schroff, Kalenichenko & Philbin 2015, eq. 2 (`squared=True, margin=0.2`);
PyTorch `TripletMarginLoss`.

    >>> anchor, positive, negative = jnp.float32([[0, 0]]), jnp.float32([[3, 4]]), jnp.float32([[0, 4]])
    >>> fdl.losses.triplet_hinge(anchor, positive, negative)  # 5 - 4 + 1
    Array([2.], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_bool, require_number
from fdl.losses._per_example import opened, step, times, widened
from fdl.losses.euclidean_distance import direction
from fdl.op import Op


def equation(anchor, positive, negative, *, margin=1.0, squared=False):
    near, far = jnp.sum((anchor - positive) ** 2, axis=-1), jnp.sum((anchor - negative) ** 2, axis=-1)
    if not squared:
        near, far = jnp.sqrt(near), jnp.sqrt(far)
    return jnp.maximum(near - far + jnp.asarray(margin, near.dtype), 0)


def forward(anchor, positive, negative, *, margin, squared):
    where = "triplet_hinge"
    a, p = opened(where, anchor, positive, ("anchor", "positive"))
    _, n = opened(where, anchor, negative, ("anchor", "negative"))
    require_number(where, "margin", margin, 0, float("inf"), remedy="it is how much closer the positive should be")
    require_bool(where, "squared", squared)
    bracket, _, _ = _parts(a - p, a - n, margin, squared)
    return jnp.maximum(bracket[..., 0], 0), (anchor, positive, negative)


def backward(residuals, dloss, *, margin, squared):
    a, p, n = widened(*residuals)
    bracket, u, v = _parts(a - p, a - n, margin, squared)
    g = step(bracket)
    u, v = (g * jnp.where(g == 0, jnp.zeros_like(slope), slope) for slope in (u, v))  # a negative at infinity: 0 * inf
    cotangents = (times(dloss[..., None], slope) for slope in (u - v, -u, v))
    return tuple(dx.astype(x.dtype) for dx, x in zip(cotangents, residuals, strict=True))


def _parts(x, y, margin, squared):
    """(the bracket [..., 1], and the slopes of the two distances by the anchor)."""
    if squared:
        near, far = jnp.sum(x * x, axis=-1, keepdims=True), jnp.sum(y * y, axis=-1, keepdims=True)
        u, v = 2 * x, 2 * y
    else:
        (u, near), (v, far) = direction(x), direction(y)
    return near - far + jnp.asarray(margin, near.dtype), u, v


triplet_hinge = Op(equation, forward, backward)

"""Euclidean distance between prediction and target: the length of their difference.

    loss = sqrt(sum_d x[d]^2)        x = pred - target

It is sqrt(D mean_squared_error): the mean squared error is the squared distance over D, and is smooth at 0, where this
is a cone.

Backward. d loss/dx[d] = x[d] / loss, the unit vector u along x. For a cotangent dloss

    dpred[d] = dloss u[d]          dtarget = -dpred

Forward. With m = max_d |x[d]|, loss = m sqrt(sum_d (x[d]/m)^2): the sum lies between 1 and D and neither overflows nor
underflows. m is a constant for the derivative, as the value does not depend on it.

Limits.
| input                  | loss     | gradient     | why                                                |
|------------------------|----------|--------------|----------------------------------------------------|
| pred = target          | 0        | 0            | 0 is a subgradient; jnp.linalg.norm gives NaN      |
| x = [1e25, 1e25]       | 1.41e25  | [0.71, 0.71] | jnp.linalg.norm, optax, Keras and PyTorch give inf |
| x = [1e-25, 1e-25]     | 1.41e-25 | [0.71, 0.71] | the squares underflow in float32                   |
| x = +-inf in one place | inf      | +-1 there    | the limit; several infinite places share equally   |
| inf - inf, NaN         | NaN      | NaN          | loud                                               |

Shapes: pred, target [..., D] float, loss [...]; 16-bit input gives a float32 loss; nothing is broadcast. Errors:
InputError for unequal shapes, InputTypeError for other dtypes. The scaling is that of BLAS `nrm2` (Blue 1978).

    >>> fdl.losses.euclidean_distance(jnp.float32([[3, 4]]), jnp.float32([[0, 0]]))
    Array([5.], dtype=float32)
"""

import jax
import jax.numpy as jnp

from fdl.losses._per_example import opened, times, widened
from fdl.op import Op


def equation(pred, target):
    return jnp.sqrt(jnp.sum((pred - target) ** 2, axis=-1))


def forward(pred, target):
    wide_pred, wide_target = opened("euclidean_distance", pred, target)
    _, length = direction(wide_pred - wide_target)
    return length[..., 0], (pred, target)  # the unit vector is rebuilt: a [..., D] buffer less


def backward(residuals, dloss):
    pred, target = residuals
    wide_pred, wide_target = widened(pred, target)
    unit, _ = direction(wide_pred - wide_target)
    dpred = times(dloss[..., None], unit).astype(pred.dtype)
    return dpred, -dpred


def direction(x, axis=-1):
    """(x / |x|, |x|), both with `axis` kept; (0, 0) for x = 0."""
    m = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True))
    zero, infinite = m == 0, m == jnp.inf
    # the compiler divides by m as it multiplies by 1/m, which for the largest m is subnormal and flushed to 0
    half = jnp.finfo(x.dtype).maxexp // 2
    shrink = jnp.where(m > 2.0**half, jnp.full_like(m, 2.0**-half), jnp.ones_like(m))
    scaled = (x * shrink) / jnp.where(zero | infinite, jnp.ones_like(m), m * shrink)
    scaled = jnp.where(infinite, jnp.where(jnp.isinf(x), jnp.sign(x), jnp.zeros_like(x)), scaled)
    square = jnp.sum(scaled * scaled, axis=axis, keepdims=True)
    root = jnp.sqrt(jnp.where(zero, jnp.ones_like(square), square))
    return jnp.where(zero, jnp.zeros_like(x), scaled / root), m * root


euclidean_distance = Op(equation, forward, backward)

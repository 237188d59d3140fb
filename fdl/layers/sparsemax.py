"""Sparsemax: the point of the probability simplex nearest to x, with exact zeros where softmax has small numbers.

    p = argmin over {p >= 0, sum p = 1} of |p - x|^2  =  max(x - tau, 0),      tau such that sum p = 1

S = {v : p[v] > 0} is the support; v is in it iff sum_u max(x[u] - x[v], 0) < 1 (with x sorted downwards this is the
test 1 + k x_(k) > sum_{j <= k} x_(j) of the paper). Then tau = (sum_{u in S} x[u] - 1) / |S|.

Backward. Inside a region of constant S, p[v] = x[v] - tau for v in S, and dtau / dx[u] = 1 / |S| for u in S. So with
s the indicator of S

    dp[v] / dx[u] = s[v] ([u == v] - s[u] / |S|)        dx = s (dy - (s . dy) / |S|)

softmax's rule with the uniform distribution on S for p. The function is piecewise linear: its second derivative is 0.

Facts. A projection: the Jacobian's norm is 1 at most. Classes outside S are dead, and all are where one leads by 1 or more.

Limits.
| input                | value             | gradient       | why                                                  |
|----------------------|-------------------|----------------|------------------------------------------------------|
| x[v] = tau (a kink)  | 0                 | v is outside S | a unit without weight gets no error, as in the paper |
| entries up to +-1e30 | exact             | exact          | the largest is subtracted first                      |
| an entry of -inf     | 0                 | 0              | outside S                                            |
| k entries of +inf    | 1/k there, else 0 | S is those k   | the limit of k equal, growing x, as in softmax       |
| a row of only -inf   | 0                 | 0              | choice: a masked row says nothing, as in softmax     |
| a NaN in the row     | NaN               | NaN            | loud                                                 |

16-bit inputs are computed in float32 and rounded once. Shapes: x, y, dy and dx are equal. Errors: InputError for an
axis that x lacks, or an empty one. Source: Martins & Astudillo 2016, eq. 2, algorithm 1, eq. 9 to 11.

    >>> fdl.ops.sparsemax(jnp.float32([[1, 0.5, -1]]))
    Array([[0.75, 0.25, 0.  ]], dtype=float32)
"""

import jax
import jax.numpy as jnp

from fdl.errors import require_float
from fdl.layer import Layer
from fdl.layers.softmax import require_axis
from fdl.op import Op, accumulator


def equation(x, *, axis=-1):
    x = jnp.moveaxis(x, axis, -1)
    above = jnp.maximum(x[..., None, :] - x[..., :, None], 0).sum(axis=-1)  # [..., V]: sum_u max(x[u] - x[v], 0)
    support = above < 1
    size = support.sum(axis=-1, keepdims=True).astype(x.dtype)
    tau = (jnp.where(support, x, 0).sum(axis=-1, keepdims=True) - 1) / size
    return jnp.moveaxis(jnp.where(support, x - tau, 0), -1, axis)


def forward(x, *, axis):
    require_float("sparsemax", "x", x)
    require_axis("sparsemax", x, axis)
    wide = jnp.moveaxis(x, axis, -1).astype(accumulator(x.dtype))
    p = jnp.moveaxis(_project(wide), -1, axis)
    # the support as 0, 1 (and NaN): taken before p is rounded, for a 16-bit p may round to 0 inside the support
    return p.astype(x.dtype), jnp.sign(p).astype(x.dtype)


def backward(support, dy, *, axis):
    s = support.astype(accumulator(support.dtype))
    wide = dy.astype(s.dtype)
    size = jnp.maximum(s.sum(axis=axis, keepdims=True), 1)  # a row of only -inf has no support
    return ((s * (wide - (s * wide).sum(axis=axis, keepdims=True) / size)).astype(dy.dtype),)


op = Op(equation, forward, backward)


def _project(x):
    """Sparsemax over the last axis, x in float32 or float64."""
    largest = x.max(axis=-1, keepdims=True)
    z = jnp.where(x == largest, jnp.zeros_like(x), x - largest)  # also where both are infinite
    z = jnp.maximum(z, -1)  # tau >= -1: what lies below gets no weight, however far below
    ordered = jnp.sort(z, axis=-1, descending=True)
    k = jax.lax.broadcasted_iota(z.dtype, z.shape, z.ndim - 1) + 1
    total = jnp.cumsum(ordered, axis=-1)
    inside = 1 + k * ordered > total
    size = jnp.maximum(inside.sum(axis=-1, keepdims=True), 1)
    tau = (jnp.take_along_axis(total, size - 1, axis=-1) - 1) / size.astype(z.dtype)
    return jnp.where(largest == -jnp.inf, jnp.zeros_like(z), jnp.maximum(z - tau, 0))


def sparsemax(axis: int = -1) -> Layer:
    """The nearest point of the probability simplex over `axis` (the batch axis is axis 0).

    A drop-in for softmax with exact zeros; its error reaches only the units that have weight.

        >>> fdl.sparsemax().apply({}, {}, jnp.float32([[3, 0]]))[0]  # exact zeros
        Array([[1., 0.]], dtype=float32)
    """
    return Layer.from_op("sparsemax", op.bind(axis=axis))

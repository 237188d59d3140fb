"""Softmax and its logarithm over one axis.

    p[v] = exp(x[v]) / sum_u exp(x[u])            l[v] = log p[v] = x[v] - log sum_u exp(x[u])

Backward. dp[v] / dx[u] = p[v] ([u == v] - p[u]) and dl[v] / dx[u] = [u == v] - p[u]. Summed over v against dy

    softmax      dx[u] = p[u] (dy[u] - sum_v p[v] dy[v])        dx = p (dy - p . dy)
    log_softmax  dx[u] = dy[u] - p[u] sum_v dy[v]               dx = dy - p sum(dy)

A constant added to x cancels: so the largest entry is subtracted first, and sum_u dx[u] = 0.

Facts. The Jacobian diag(p) - p p^T of softmax has the norm 1/2 at most (at p = (1/2, 1/2)), that of log_softmax sqrt(V).
softmax saturates: where one entry leads all others by L, every slope is at most (V - 1) exp(-L). It has no dead region, but
float32 rounds p to 0 from L = 104 on. log_softmax does not saturate.

Limits (the equation is the oracle where it is finite; these lines are the oracle elsewhere).
| input                | softmax; gradient         | log_softmax; gradient           | why                             |
|----------------------|---------------------------|---------------------------------|---------------------------------|
| entries up to +-1e30 | exact                     | exact                           | the largest is subtracted first |
| an entry of -inf     | 0; 0                      | -inf; dy                        | l = x - const: its slope is 1   |
| k entries of +inf    | 1/k there, else 0; finite | -log k there, else -inf; finite | the limit of k equal, growing x |
| a row of only -inf   | 0; 0                      | -inf; 0                         | choice: a mask says nothing     |
| a NaN in the row     | NaN; NaN                  | NaN; NaN                        | loud                            |

`jax.nn` and PyTorch give NaN for +inf and for rows of only -inf. 16-bit inputs are computed in float32 and rounded
once. Shapes: x, y, dy and dx are equal. Errors: InputError for an axis that x lacks, or an empty one. Source: Bridle
1990; Goodfellow et al. 2016, section 6.2.2.3.

    >>> fdl.ops.softmax(jnp.float32([[0, 0]]))
    Array([[0.5, 0.5]], dtype=float32)
"""

import jax
import jax.numpy as jnp

from fdl.errors import refuse, refuse_type, require_float, shown
from fdl.layer import Layer
from fdl.op import Op, accumulator


def equation(x, *, axis=-1):
    e = jnp.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


def forward(x, *, axis):
    _check("softmax", x, axis)
    shifted, total = _shifted(x, axis)
    p = jnp.exp(shifted) / total
    # p is the output. For 16-bit x it is kept in float32: rounded, it would cost dx its last bits before dx is computed
    return p.astype(x.dtype), p


def backward(p, dy, *, axis):
    wide = dy.astype(p.dtype)
    return ((p * (wide - (p * wide).sum(axis=axis, keepdims=True))).astype(dy.dtype),)


op = Op(equation, forward, backward)


def log_equation(x, *, axis=-1):
    """y = x - log(sum exp(x)) along an axis (see the file of softmax).

    >>> fdl.ops.log_softmax(jnp.float32([[0, 0]])).round(4)  # -log 2
    Array([[-0.6931, -0.6931]], dtype=float32)
    """
    return x - jnp.log(jnp.exp(x).sum(axis=axis, keepdims=True))


def log_forward(x, *, axis):
    _check("log_softmax", x, axis)
    shifted, total = _shifted(x, axis)
    log_p = shifted - jnp.log(total)
    return log_p.astype(x.dtype), log_p


def log_backward(log_p, dy, *, axis):
    p = jnp.exp(log_p)
    wide = dy.astype(p.dtype)
    dx = wide - p * wide.sum(axis=axis, keepdims=True)
    masked = p.sum(axis=axis, keepdims=True) == 0  # a row of only -inf
    return (jnp.where(masked, jnp.zeros_like(dx), dx).astype(dy.dtype),)


log_op = Op(log_equation, log_forward, log_backward, name="log_softmax")


def _shifted(x, axis):
    """(x minus its largest entry, sum of the exponentials of that), by rules that JAX can differentiate again."""
    x = x.astype(accumulator(x.dtype))
    largest = jax.lax.stop_gradient(x).max(axis=axis, keepdims=True)
    # beside an infinite entry the finite ones do not count, and the infinite ones are equal
    x = jnp.where(largest == jnp.inf, jnp.where(x == jnp.inf, jnp.zeros_like(x), jnp.full_like(x, -jnp.inf)), x)
    shifted = x - jnp.where(jnp.isinf(largest), jnp.zeros_like(largest), largest)
    total = jnp.exp(shifted).sum(axis=axis, keepdims=True)
    return shifted, jnp.where(total == 0, jnp.ones_like(total), total)


def _check(where, x, axis):
    require_float(where, "x", x)
    require_axis(where, x, axis)


def require_axis(where, x, axis):
    """An int that names an axis of x with at least one entry."""
    if isinstance(axis, bool) or not isinstance(axis, int):
        refuse_type(where, f"axis is {shown(axis)}, wanted an int")
    if not -x.ndim <= axis < x.ndim:
        refuse(where, f"axis is {axis}, but x has shape {list(x.shape)}; wanted {-x.ndim} <= axis < {x.ndim}")
    if x.shape[axis] == 0:
        refuse(where, f"x has shape {list(x.shape)}: axis {axis} is empty, wanted at least one entry")


def softmax(axis: int = -1) -> Layer:
    """y = exp(x) / sum exp(x) over `axis` (the batch axis is axis 0).

    In front of a cross-entropy use the loss that takes logits instead.

        >>> fdl.softmax().apply({}, {}, jnp.float32([[0, 0, 0, 0]]))[0]
        Array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    return Layer.from_op("softmax", op.bind(axis=axis))


def log_softmax(axis: int = -1) -> Layer:
    """y = x - log sum exp(x) over `axis` (the batch axis is axis 0).

    >>> fdl.log_softmax().apply({}, {}, jnp.float32([[0, 0]]))[0].round(4)  # -log 2
    Array([[-0.6931, -0.6931]], dtype=float32)
    """
    return Layer.from_op("log_softmax", log_op.bind(axis=axis))

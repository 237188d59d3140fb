"""The last step: y[n] = x[n, t[n]], t[n] the last step that counts.

Backward. Every other step goes nowhere: dx[n, t] = dy[n] at t = t[n], else 0.

Shapes: x [N, T, D], mask [N, T] or [N] boolean (True: counts) or None, y [N, D]. Limits: where no step counts y = 0 and dx = 0.
Errors: InputError, InputTypeError.

    >>> fdl.ops.last_step(jnp.float32([[[1], [2], [3]]]), jnp.asarray([[True, True, False]]))
    Array([[2.]], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import refuse, require_float, require_mask
from fdl.layer import Layer
from fdl.layers._places import layer_of
from fdl.op import Op, Static


def _last(mask, shape):
    """[N, T], True at the last step that counts."""
    steps = jnp.arange(shape[1])
    if mask is None:
        return jnp.broadcast_to(steps == shape[1] - 1, shape[:2])
    counts = jnp.broadcast_to(mask.reshape(shape[0], -1), shape[:2])
    return counts & (steps[None] == jnp.max(jnp.where(counts, steps[None], -1), axis=1, keepdims=True))


def equation(x, mask=None):
    return jnp.sum(jnp.where(_last(mask, x.shape)[..., None], x, jnp.zeros_like(x)), axis=1)


def forward(x, mask=None):
    _check(x, mask)
    return (x[:, -1] if mask is None else equation(x, mask)), (mask, Static(x.shape))


def backward(residuals, dy):
    mask, shape = residuals[0], residuals[1].value
    return jnp.where(_last(mask, shape)[..., None], dy[:, None], jnp.zeros_like(dy)[:, None]), None


def _check(x, mask):
    require_float("last_step", "x", x)
    if x.ndim != 3 or x.shape[1] == 0:
        refuse("last_step", f"x has shape {list(x.shape)}, wanted [N, T, D] with at least one step")
    if mask is not None:
        require_mask("last_step", mask, x)


op = Op(equation, forward, backward)


def last_step() -> Layer:
    """[N, T, D] -> [N, D]: the last step, with a mask the last that counts.

    >>> fdl.last_step().apply({}, {}, jnp.ones((2, 7, 4), jnp.float32))[0].shape
    (2, 4)
    """
    return layer_of(op)

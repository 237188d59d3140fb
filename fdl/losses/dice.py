"""Dice loss: one minus the overlap of two masks, relative to their sizes.

    loss = 1 - r        r = (2 sum_i p[i] t[i] + smooth) / S        S = sum_i p[i] + sum_i t[i] + smooth

The sums run over `axis`: an axis, several, None (all of them: one number, Keras's default) or "example" (all but the first:
one value per example; for rank 1 over its only axis).

Backward. p[i] stands in the overlap with 2 t[i] and in S with 1; the quotient rule gives, and the same with p and t exchanged,

    dpred[i] = - dloss (2 t[i] - r) / S          dtarget[i] = - dloss (2 p[i] - r) / S

Limits.
| input                       | loss | gradient           | why                                                              |
|-----------------------------|------|--------------------|------------------------------------------------------------------|
| both masks empty, smooth 0  | 1    | 0                  | the limit: an overlap of second order over a size of first; as Keras |
| target empty, smooth 0      | 1    | 0 for pred         | no overlap, however small pred is; as Keras                      |
| these two, smooth > 0       | live; 0 if both are empty | live | an empty mask found empty is right: what users of Keras miss |
| pred empty, target not      | 1    | -2 t / S           | live                                                             |
| entries of 1e30             | -inf | inf                | masks lie in [0, 1]: loud; of 1e-20, the overlap underflows to 0 |
| NaN                         | NaN  | NaN                | 0 where dloss is 0: an example without weight does not count     |

Keras adds 1e-7 to S, which counts only where the masks sum to less than about 0.1. optax's `smooth` is half of this one, and it
takes logits. Shapes: pred, target float of equal shape, loss: the axes that are not summed. Errors: InputError, InputTypeError.
Source: Milletari, Navab & Ahmadi 2016, section 3 (without the squares), as in Keras's `dice`; smooth as in common use.

    >>> fdl.losses.dice(jnp.float32([[1, 1, 0, 0]]), jnp.float32([[1, 0, 0, 0]])).round(4)  # 1 - 2 * 1 / (2 + 1)
    Array([0.3333], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import refuse, require_number, require_pair
from fdl.losses._per_example import times, widened
from fdl.op import Op


def equation(pred, target, *, axis="example", smooth=0.0):
    axes = summed_axes("dice", axis, pred.ndim)
    overlap = jnp.sum(pred * target, axis=axes)
    return 1 - (2 * overlap + smooth) / (jnp.sum(pred, axis=axes) + jnp.sum(target, axis=axes) + smooth)


def forward(pred, target, *, axis, smooth):
    require_pair("dice", "pred", pred, "target", target, 1, "examples first")
    require_number("dice", "smooth", smooth, 0, float("inf"), remedy="0 is Keras's loss, 1 is common")
    axes = summed_axes("dice", axis, pred.ndim)
    p, t = widened(pred, target)
    smooth = jnp.asarray(smooth, p.dtype)
    share, size = ratio(2 * jnp.sum(p * t, axis=axes) + smooth, jnp.sum(p, axis=axes) + jnp.sum(t, axis=axes) + smooth)
    return 1 - share, (pred, target, share, size)


def backward(residuals, dloss, *, axis):
    pred, target, share, size = residuals
    axes = summed_axes("dice", axis, pred.ndim)
    p, t = widened(pred, target)
    share, size, dloss = (jnp.expand_dims(x, axes) for x in (share, size, dloss))
    dpred, dtarget = times(dloss, (share - 2 * t) / size), times(dloss, (share - 2 * p) / size)
    return dpred.astype(pred.dtype), dtarget.astype(target.dtype)


def ratio(top, bottom):
    """(top / bottom, the divisor): 0/0, two empty masks, is 0, and its divisor 1."""
    divisor = jnp.where((top == 0) & (bottom == 0), jnp.ones_like(bottom), bottom)
    return top / divisor, divisor


def summed_axes(where, axis, rank):
    """`axis` as a tuple of axes, counted from the front."""
    if isinstance(axis, str) and axis == "example":
        return tuple(range(1, rank)) or (0,)
    given = tuple(range(rank)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(a, int) and not isinstance(a, bool) and -rank <= a < rank for a in given):
        refuse(where, f"axis is {axis!r}, pred has {rank} dimension(s); wanted axes of it, None or 'example'")
    axes = tuple(a % rank for a in given)
    if len(set(axes)) < len(axes):
        refuse(where, f"axis is {axis!r}: an axis twice; name each one once")
    return axes


dice = Op(equation, forward, backward)

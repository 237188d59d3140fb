"""Global average pooling: the mean over all places, feature by feature.

    y[n, c] = 1/m[n] sum_p x[n, p, c]        p over the places that count, m[n] how many they are

Backward. Every place that counts has the weight 1/m, so

    dx[n, p, c] = dy[n, c] / m[n]        and 0 where the place does not count

Limits: nothing counts: y = 0, dx = 0. What is masked contributes 0 even where it is NaN; elsewhere NaN stays. 16-bit inputs are
summed in float32.

Shapes: x [N, *places, C] with at least one axis of places, y [N, C]; mask [N] or [N, T] boolean, True: counts. Errors: InputError,
InputTypeError. Source: Lin, Chen & Yan 2014, "Network in network", section 3.2.

    >>> fdl.ops.global_avg_pool(jnp.float32([1, 3]).reshape(1, 2, 1, 1))
    Array([[2.]], dtype=float32)
"""

import jax.numpy as jnp

from fdl.layer import Layer
from fdl.layers._places import counted, door, in_a_row, layer_of, row_shape
from fdl.op import Op, Static, accumulator


def equation(x, mask=None):
    rows, counts = in_a_row(x), counted(mask, x.shape)
    if counts is None:
        return jnp.mean(rows, axis=1)
    there = jnp.maximum(jnp.sum(counts, axis=1), 1).astype(x.dtype)
    return jnp.sum(jnp.where(counts, rows, jnp.zeros_like(rows)), axis=1) / there


def forward(x, mask=None):
    door("global_avg_pool", x, mask)
    rows, counts = in_a_row(x), counted(mask, x.shape)
    rows = rows if counts is None else jnp.where(counts, rows, jnp.zeros_like(rows))
    wide = accumulator(x.dtype)
    return (jnp.sum(rows, axis=1, dtype=wide) / _how_many(rows, counts, wide)).astype(x.dtype), (mask, Static(x.shape))


def backward(residuals, dy):
    mask, shape = residuals[0], residuals[1].value
    counts, wide = counted(mask, shape), accumulator(dy.dtype)
    rows = jnp.broadcast_to(dy[:, None], row_shape(shape))
    each = (rows.astype(wide) / _how_many(rows, counts, wide)[:, None]).astype(dy.dtype)
    return (each if counts is None else jnp.where(counts, each, jnp.zeros_like(each))).reshape(shape), None


def _how_many(rows, counts, dtype):
    """[1 or N, 1]"""
    if counts is None:
        return jnp.full((1, 1), rows.shape[1], dtype)
    return jnp.maximum(jnp.sum(counts, axis=1, dtype=dtype), 1)


op = Op(equation, forward, backward)


def global_avg_pool() -> Layer:
    """The mean over all places: [N, *places, C] -> [N, C]. With a mask over those that count.

    >>> fdl.global_avg_pool().apply({}, {}, jnp.ones((2, 7, 7, 64)))[0].shape
    (2, 64)
    """
    return layer_of(op)

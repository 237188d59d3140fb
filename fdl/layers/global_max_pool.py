"""Global max pooling: the largest of all places, feature by feature.

    y[n, c] = max_p x[n, p, c]        p over the places that count

Backward. With p*[n, c] the place of the largest, the first in row-major order where several are equal,

    dx[n, p, c] = dy[n, c] [p = p*[n, c]]

Limits: as for `max_pool`: of equal ones the first, NaN gives NaN and goes to the first NaN, all -inf to the first place that
counts. Nothing counts: y = 0, dx = 0. What is masked contributes 0 even where it is NaN.

Shapes: x [N, *places, C] with at least one axis of places, y [N, C]; mask [N] or [N, T] boolean, True: counts. Errors: InputError,
InputTypeError. Source: as for `max_pool`.

    >>> fdl.ops.global_max_pool(jnp.float32([1, 3]).reshape(1, 2, 1, 1))
    Array([[3.]], dtype=float32)
"""

import jax.numpy as jnp

from fdl.layer import Layer
from fdl.layers._places import counted, door, in_a_row, layer_of, row_shape
from fdl.op import Op, Static


def equation(x, mask=None):
    rows, counts = in_a_row(x), counted(mask, x.shape)
    if counts is not None:
        rows = jnp.where(counts, rows, jnp.full_like(rows, -jnp.inf))
    largest = jnp.take_along_axis(rows, jnp.argmax(rows, axis=1, keepdims=True), axis=1)[:, 0]
    return largest if counts is None else jnp.where(jnp.any(counts, axis=1), largest, jnp.zeros_like(largest))


def forward(x, mask=None):
    door("global_max_pool", x, mask)
    rows, counts = in_a_row(x), counted(mask, x.shape)
    if counts is None:
        largest = jnp.max(rows, axis=1)
        here = (rows == largest[:, None]) | (rows != rows)
    else:
        largest = jnp.max(rows, axis=1, initial=-jnp.inf, where=counts)
        largest = jnp.where(jnp.any(counts, axis=1), largest, jnp.zeros_like(largest))
        here = ((rows == largest[:, None]) | (rows != rows)) & counts
    # of several the first; the number of places is none of them
    place = jnp.min(jnp.where(here, _numbers(rows), rows.shape[1]), axis=1)
    return largest, (place, Static(x.shape))


def backward(residuals, dy):
    place, shape = residuals[0], residuals[1].value
    rows = jnp.broadcast_to(dy[:, None], row_shape(shape))
    return jnp.where(place[:, None] == _numbers(rows), rows, jnp.zeros_like(rows)).reshape(shape), None


def _numbers(rows):
    """Of the places, [1, P, 1]."""
    return jnp.arange(rows.shape[1], dtype=jnp.int32)[None, :, None]


op = Op(equation, forward, backward)


def global_max_pool() -> Layer:
    """The largest of all places: [N, *places, C] -> [N, C]. With a mask of those that count.

    >>> fdl.global_max_pool().apply({}, {}, jnp.ones((2, 7, 7, 64)))[0].shape
    (2, 64)
    """
    return layer_of(op)

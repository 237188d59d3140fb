"""Average pooling: the mean of every window, feature by feature.

    y[n, o, c] = 1/m[o] sum_k x[n, s o + k - lo, c]        k over the places of the window, o the window, s the stride

m[o] is the number of cells that the window sees, without padding; with `count_padding=True` it is the size of the window, the
padding counting as zeros.

Backward. x[n, i, c] is in y[n, o, c] with the weight 1/m[o] for every window o that sees i, so

    dx[n, i, c] = sum over the windows o that see i of dy[n, o, c] / m[o]

as a sum over shifted slices (see _windows.py). Nothing but the geometry is kept.

Limits: padding "SAME" gives ones for ones (Flax counts padding and gives 1/2 and 1/4 at the borders, PyTorch counts it by
default, Keras does not); NaN and infinities stay, in every window that sees them. 16-bit inputs are summed in float32.

Shapes: x [N, T, C], [N, H, W, C] or [N, D, H, W, C], y the same with fewer places; window and strides one number or one per axis,
strides None for those of the window; padding "VALID", "SAME" or pairs ((before, after), ...) smaller than the window. The layer
refuses a mask of steps where windows span steps. Errors: InputError, InputTypeError.
Source: LeCun et al. 1998, section II.B (subsampling).

    >>> fdl.ops.avg_pool(jnp.float32([1, 3, 5, 7]).reshape(1, 4, 1), window=(2,)).ravel()
    Array([2., 6.], dtype=float32)
"""

import functools
import math
import operator
from typing import Any

import jax.numpy as jnp

from fdl.errors import require_bool
from fdl.layer import Layer
from fdl.layers._windows import cells, counts, layer_of, places, shifts, to_cells, windows
from fdl.op import Op, Static, accumulator


def equation(x, *, window=(2, 2), strides=None, padding="VALID", count_padding=False):
    geometry = windows("avg_pool", x, window, strides, padding)
    return sum(cells(x, geometry, 0)) / _divisor(geometry, count_padding, x.dtype)


def forward(x, *, window, strides, padding, count_padding):
    require_bool("avg_pool", "count_padding", count_padding)
    geometry = windows("avg_pool", x, window, strides, padding)
    wide = accumulator(x.dtype)
    total = sum(cell.astype(wide) for cell in cells(x, geometry, 0))
    return (total / _divisor(geometry, count_padding, wide)).astype(x.dtype), Static(geometry)


def backward(residuals, dy, *, count_padding):
    geometry = residuals.value
    wide = accumulator(dy.dtype)
    of_each = dy.astype(wide) / _divisor(geometry, count_padding, wide)
    terms = []
    for shift, (term,) in shifts(geometry, (of_each, 0)):
        # a phase beyond the window is no place of it
        inside = [place < w for place, w in zip(places(geometry, shift), geometry.kernel, strict=True)]
        terms.append(jnp.where(functools.reduce(operator.and_, inside), term, jnp.zeros((), wide)))
    return (to_cells(geometry, functools.reduce(jnp.add, terms)).astype(dy.dtype),)


def _divisor(geometry, count_padding, dtype):
    return jnp.asarray(math.prod(geometry.kernel) if count_padding else counts(geometry), dtype)


op = Op(equation, forward, backward)


def avg_pool(window: Any, strides: Any = None, padding: Any = "VALID", count_padding: bool = False) -> Layer:
    """The mean of every window: [N, *places, C] -> [N, *fewer, C]; strides None: windows side by side.

    >>> fdl.avg_pool((2, 2)).apply({}, {}, jnp.ones((1, 4, 4, 3)))[0].shape
    (1, 2, 2, 3)
    """
    require_bool("avg_pool", "count_padding", count_padding)
    return layer_of(op.bind(count_padding=count_padding), window, strides, padding)

"""Max pooling: the largest cell of every window, feature by feature.

    y[n, o, c] = max_k x[n, s o + k - lo, c]        k over the places of the window, o the window, s the stride, lo the padding

Backward. Let k*[n, o, c] be the place of the largest cell, the first in row-major order where several are equal. A small change of
any other cell changes nothing, so

    dx[n, i, c] = sum over the windows o that see i of dy[n, o, c] [i = s o + k*[n, o, c] - lo]

Where windows do not overlap, that is one term. Kept is k* alone, a byte per window where 255 numbers do; x is not. The sum over
windows is one over shifted slices (see _windows.py), so nothing is scattered, in a loop on a CPU neither.

Limits.
| input                     | y          | gradient          | why                                                                  |
|---------------------------|------------|-------------------|----------------------------------------------------------------------|
| the largest several times | that value | the first of them | a subgradient; PyTorch, Keras and Flax do so; jnp.max shares it out  |
| NaN in a window           | NaN        | the first NaN     | loud                                                                 |
| all -inf                  | -inf       | the first cell    | padding counts as -inf, but never wins                               |
| cells that no window sees | -          | 0                 | "VALID" leaves a rest                                                |

Shapes: x [N, T, C], [N, H, W, C] or [N, D, H, W, C], y the same with fewer places; window and strides one number or one per axis,
strides None for those of the window; padding "VALID", "SAME" or pairs ((before, after), ...) smaller than the window. Derivatives
beyond the first are 0. The layer refuses a mask of steps where windows span steps. Errors: InputError, InputTypeError.
Source: Goodfellow, Bengio & Courville 2016, section 9.3.

    >>> fdl.ops.max_pool(jnp.float32([1, 3, 7, 5]).reshape(1, 4, 1), window=(2,)).ravel()
    Array([3., 7.], dtype=float32)
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from fdl.layer import Layer
from fdl.layers._windows import cells, layer_of, most_shifts, places, shifts, to_cells, windows
from fdl.op import Op, Static, accumulator


def equation(x, *, window=(2, 2), strides=None, padding="VALID"):
    geometry = windows("max_pool", x, window, strides, padding)
    seen = jnp.stack(list(cells(x, geometry, -jnp.inf)))  # [K, N, *outputs, C]
    first = jnp.argmax(seen, axis=0, keepdims=True)
    return jnp.take_along_axis(seen, first, axis=0)[0]


def forward(x, *, window, strides, padding):
    geometry = windows("max_pool", x, window, strides, padding)
    codes = _codes(geometry)
    (_, largest), *others = zip(geometry.offsets, cells(x, geometry, -jnp.inf), strict=True)
    code = jnp.zeros(largest.shape, codes.dtype)
    for k, cell in others:
        # larger, or the first NaN
        better = ~(cell <= largest) & (largest == largest)
        largest, code = jnp.where(better, cell, largest), jnp.where(better, codes[k], code)
    if any(lo for lo, _ in geometry.padding):
        code = jnp.where(largest == -jnp.inf, _first_inside(geometry, codes), code)
    return largest, (code, Static(geometry))


def backward(residuals, dy):
    code, geometry = residuals[0], residuals[1].value
    codes = _codes(geometry)
    never = codes.dtype.type(np.iinfo(codes.dtype).max)
    terms = [
        jnp.where(code_of == codes[tuple(places(geometry, shift))], dy_of, jnp.zeros((), dy.dtype))
        for shift, (code_of, dy_of) in shifts(geometry, (code, never), (dy, 0))
    ]
    total = functools.reduce(jnp.add, [term.astype(accumulator(dy.dtype)) for term in terms])
    return (to_cells(geometry, total).astype(dy.dtype),)


def _codes(geometry):
    """A number for every place of the window, and for those of the phases that no window has."""
    sizes = [q * s for q, s in zip(most_shifts(geometry), geometry.strides, strict=True)]
    count = int(np.prod(sizes))
    return np.arange(count, dtype=np.uint8 if count < 256 else np.int32).reshape(sizes)


def _first_inside(geometry, codes):
    """The first place of each window that is not padding, [1, *outputs, 1]."""
    axes = zip(geometry.outputs, geometry.strides, geometry.padding, strict=True)
    first = [np.maximum(lo - s * np.arange(out), 0) for out, s, (lo, _) in axes]
    return codes[np.ix_(*first)][None, ..., None]


op = Op(equation, forward, backward)


def max_pool(window: Any, strides: Any = None, padding: Any = "VALID") -> Layer:
    """The largest of every window: [N, *places, C] -> [N, *fewer, C]; strides None: windows side by side.

    >>> fdl.max_pool((2, 2)).apply({}, {}, jnp.ones((1, 4, 4, 3)))[0].shape
    (1, 2, 2, 3)
    """
    return layer_of(op, window, strides, padding)

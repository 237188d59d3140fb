"""Center crop: the window in the middle of each picture.

    y[n, h, w, c] = x[n, h + a, w + b, c]  where that is inside of x, else 0
    a = floor((H - size) / 2), b the same with W

Backward. What is inside of the window came from one place of x, what is outside had no part in y:

    dx[n, i, j, c] = dy[n, i - a, j - b, c]  where that is inside of dy, else 0

Limits: a size above that of x has zeros around x, as in torchvision. NaN and infinities that are cut off leave no trace (no 0 * inf).

Shapes: x [N, H, W, C] floating, y [N, *size, C]. Errors: InputError, InputTypeError.

    >>> fdl.ops.center_crop(jnp.arange(9).reshape(1, 3, 3, 1).astype(jnp.float32), size=(1, 1)).ravel()
    Array([4.], dtype=float32)
"""

from typing import Any

import jax
import jax.numpy as jnp

from fdl.layer import Layer
from fdl.layers._cut import Pair, pair_of, plain_window, require_pictures
from fdl.op import Op, Static


def _middle(shape: Pair, size: Pair) -> Pair:
    return (shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2


def equation(x, *, size=(1, 1)):
    size = pair_of("center_crop", "size", size, 1)
    place = jnp.asarray([_middle(x.shape[1:3], size)], jnp.int32)
    return plain_window(x, jnp.broadcast_to(place, (x.shape[0], 2)), size)


def _cut(x, place: Pair, size: Pair):
    """A negative padding cuts."""
    ends = [(-at, at + s - n, 0) for at, s, n in zip(place, size, x.shape[1:3], strict=True)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))


def forward(x, *, size):
    require_pictures("center_crop", x)
    size = pair_of("center_crop", "size", size, 1)
    return _cut(x, _middle(x.shape[1:3], size), size), Static(tuple(x.shape[1:3]))


def backward(residuals, dy, *, size):
    a, b = _middle(residuals.value, pair_of("center_crop", "size", size, 1))
    return (_cut(dy, (-a, -b), residuals.value),)


op = Op(equation, forward, backward)


def center_crop(size: Any) -> Layer:
    """The window of this size (one number, or height and width) in the middle, in training too.

    >>> fdl.center_crop((24, 24)).apply({}, {}, jnp.ones((2, 32, 32, 3)))[0].shape
    (2, 24, 24, 3)
    """
    return Layer.from_op("center_crop", op.bind(size=pair_of("center_crop", "size", size, 1)))

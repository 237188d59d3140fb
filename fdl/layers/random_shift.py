"""Random shift: in training each picture moves by whole pixels, with zeros where nothing was; in use y = x.

    y[n, h, w, c] = x[n, h + a[n], w + b[n], c]  where that is inside of x, else 0
    a, b uniform on -pixels, ..., pixels, independent of each other, for each picture anew

Backward. Each entry of x is found at one place of y or at none: dx[n, i, j, c] = dy[n, i - a[n], j - b[n], c] where that is inside
of dy, else 0: the shift back.

The places come from 24 random bits each, whatever the dtype of x, as for `dropout`.

Limits: pixels 0 is y = x; a picture that moved out altogether is 0. NaN and infinities move as every other value does, and leave no
trace (no 0 * inf) where they moved out.

Shapes: x [N, H, W, C] floating, key a PRNG key (no cotangent), y as x. Errors: InputError, InputTypeError. Source: Simard, Steinkraus
and Platt 2003, section 2 (translations); `random_crop` of the same size with as much padding does the same.

    >>> fdl.ops.random_shift(jnp.ones((2, 8, 8, 3)), jax.random.key(0), pixels=2).shape
    (2, 8, 8, 3)
"""

from typing import Any

from fdl.errors import require_key
from fdl.layer import Layer
from fdl.layers._cut import drawn, pair_of, plain_window, require_pictures, window, window_back
from fdl.layers._training import in_training
from fdl.op import Op


def _places(x, key, most):
    return drawn(key, x.shape[0], (-most[0], -most[1]), most)


def equation(x, key, *, pixels=1):
    return plain_window(x, _places(x, key, pair_of("random_shift", "pixels", pixels, 0)), x.shape[1:3])


def forward(x, key, *, pixels):
    require_pictures("random_shift", x)
    require_key("random_shift", key, "pass key=jax.random.key(0)")
    most = pair_of("random_shift", "pixels", pixels, 0)
    places = _places(x, key, most)
    return window(x, places, x.shape[1:3], (-most[0], -most[1]), most), places


def backward(places, dy, *, pixels):
    most = pair_of("random_shift", "pixels", pixels, 0)
    return window_back(dy, places, dy.shape[1:3], (-most[0], -most[1]), most), None


op = Op(equation, forward, backward)


def random_shift(pixels: Any) -> Layer:
    """Moves each picture by up to so many pixels (one number, or height and width) in training. Needs a key when training.

    >>> fdl.random_shift(2).apply({}, {}, jnp.ones((2, 8, 8, 3)), train=True, key=jax.random.key(0))[0].shape
    (2, 8, 8, 3)
    """
    return in_training(op.bind(pixels=pair_of("random_shift", "pixels", pixels, 0)))

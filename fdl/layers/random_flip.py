"""Random flip: in training each picture is mirrored left to right with probability `rate`; in use y = x.

    y[n, h, w, c] = x[n, h, W - 1 - w, c]  if picture n is flipped, else x[n, h, w, c]

Backward. A mirror is its own inverse: dx is dy, flipped where x was.

Whether a picture is flipped comes from 24 random bits against the rate, whatever the dtype of x, as for `dropout`.

Limits: rate 0 flips none, rate 1 all. NaN and infinities move as every other value does.

Shapes: x [N, H, W, C] floating, key a PRNG key (no cotangent), y as x. Errors: InputError, InputTypeError. Source: Krizhevsky et
al. 2012, section 4.1.

    >>> fdl.ops.random_flip(jnp.float32([1, 2, 3]).reshape(1, 1, 3, 1), jax.random.key(0), rate=1.0).ravel()
    Array([3., 2., 1.], dtype=float32)
"""

import jax
import jax.numpy as jnp

from fdl.errors import require_key, require_number
from fdl.layer import Layer
from fdl.layers._cut import require_pictures
from fdl.layers._training import in_training
from fdl.op import Op

_REMEDY = "it is the probability of flipping a picture"


def _flipped(x, key, rate):
    """[N, 1, 1, 1]"""
    uniform = (jax.random.bits(key, x.shape[:1], jnp.uint32) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)
    return (uniform < jnp.asarray(rate, jnp.float32))[:, None, None, None]


def equation(x, key, *, rate=0.5):
    w = jnp.arange(x.shape[2], dtype=jnp.int32)[None, None, :, None]
    return jnp.take_along_axis(x, jnp.where(_flipped(x, key, rate), x.shape[2] - 1 - w, w), axis=2)


def forward(x, key, *, rate):
    require_pictures("random_flip", x)
    require_key("random_flip", key, "pass key=jax.random.key(0)")
    require_number("random_flip", "rate", rate, 0, 1, remedy=_REMEDY)
    flipped = _flipped(x, key, rate)
    return jnp.where(flipped, x[:, :, ::-1], x), flipped


def backward(flipped, dy, *, rate):
    return jnp.where(flipped, dy[:, :, ::-1], dy), None


op = Op(equation, forward, backward)


def random_flip(rate: float = 0.5) -> Layer:
    """Mirrors each picture left to right with probability `rate` in training. Needs a key when training.

    >>> fdl.random_flip(1.0).apply({}, {}, jnp.float32([1, 2]).reshape(1, 1, 2, 1))[0].ravel()  # not in training: as it is
    Array([1., 2.], dtype=float32)
    """
    require_number("random_flip", "rate", rate, 0, 1, remedy=_REMEDY)
    return in_training(op.bind(rate=rate))

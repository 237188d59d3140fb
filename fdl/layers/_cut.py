"""What the layers that move pictures share: a window of each picture, at a place of its own, with zeros outside.

    y[n, h, w, c] = x[n, h + a[n], w + b[n], c]        0 where that is outside of x

What moved there moves back: dx[n, i, j, c] = dy[n, i - a[n], j - b[n], c], a window again, with the places negated.

The fast way is a slice of the padded picture under `vmap`. Microseconds for 128 pictures of 32x32x3 shifted by up to 4, two
cores: 153; two takes along an axis 151, a gather of rows 154, a loop over the pictures 140 to 190, products with 0-1 matrices 755,
conditional shifts by powers of 2 1,230; x + 1 takes 98.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse, refuse_type, require_float, shown

Pair = tuple[int, int]


def pair_of(where: str, name: str, value: Any, least: int) -> Pair:
    """A whole number for both axes, or one for each."""
    both = (value, value) if isinstance(value, int) else value
    if not isinstance(both, tuple | list) or len(both) != 2:
        refuse_type(where, f"{name} is {shown(value)}, wanted a whole number, or a pair of them for height and width")
    for number in both:
        if isinstance(number, bool) or not isinstance(number, int):
            refuse_type(where, f"{name} is {value!r}, wanted whole numbers; they shape the program")
        if number < least:
            refuse(where, f"{name} is {value!r}, wanted at least {least}")
    return both[0], both[1]


def require_pictures(where: str, x: Any) -> None:
    require_float(where, "x", x)
    if x.ndim != 4:
        refuse(where, f"x has shape {list(x.shape)}, wanted pictures [N, H, W, C]; x[..., None] adds a channel")


def drawn(key: Any, examples: int, low: Pair, high: Pair) -> jax.Array:
    """Places [N, 2], all from low to high with equal probability (to 2^-24). From fixed-width bits, whatever the dtype of x."""
    count = jnp.asarray(high, jnp.int32) - jnp.asarray(low, jnp.int32) + 1  # [2]
    uniform = (jax.random.bits(key, (examples, 2), jnp.uint32) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)
    # the product may be rounded up to the count
    steps = jnp.minimum((uniform * count.astype(jnp.float32)[None]).astype(jnp.int32), count[None] - 1)
    return jnp.asarray(low, jnp.int32)[None] + steps


def plain_window(x: jax.Array, place: jax.Array, size: Pair) -> jax.Array:
    """The formula as it stands above, entry by entry."""
    examples, height, width, _ = x.shape
    h = place[:, :1] + jnp.arange(size[0], dtype=jnp.int32)[None]  # [N, size]
    w = place[:, 1:] + jnp.arange(size[1], dtype=jnp.int32)[None]
    inside = ((h >= 0) & (h < height))[:, :, None] & ((w >= 0) & (w < width))[:, None]
    n = jnp.arange(examples, dtype=jnp.int32)[:, None, None]
    y = x[n, jnp.clip(h, 0, height - 1)[:, :, None], jnp.clip(w, 0, width - 1)[:, None]]
    return jnp.where(inside[..., None], y, jnp.zeros((), x.dtype))


def window(x: jax.Array, place: jax.Array, size: Pair, low: Pair, high: Pair) -> jax.Array:
    """y [N, *size, C]; every place [N, 2] is from low to high."""
    before = tuple(max(0, -n) for n in low)
    after = tuple(max(0, most + s - n) for most, s, n in zip(high, size, x.shape[1:3], strict=True))
    padded = jnp.pad(x, ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)))
    place = place + jnp.asarray(before, jnp.int32)[None]

    def one(picture, place):
        return jax.lax.dynamic_slice(picture, (place[0], place[1], jnp.int32(0)), (*size, x.shape[3]))

    return jax.vmap(one)(padded, place)


def window_back(dy: jax.Array, place: jax.Array, size: Pair, low: Pair, high: Pair) -> jax.Array:
    """dx [N, *size, C] of the window that was cut at `place` from pictures of this size."""
    return window(dy, -place, size, (-high[0], -high[1]), (-low[0], -low[1]))

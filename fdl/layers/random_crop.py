"""Random crop: in training a window of each picture at a random place; in use the one in the middle.

    y[n, h, w, c] = x[n, h + a[n], w + b[n], c]        with `padding` pixels of zeros around x
    a uniform on -padding, ..., H + padding - size; b the same with W; independent, for each picture anew

In use it is `center_crop`.

Backward. What is inside of the window came from one place of x, what is outside had no part in y:

    dx[n, i, j, c] = dy[n, i - a[n], j - b[n], c]  where that is inside of dy, else 0

The places come from 24 random bits each, whatever the dtype of x, as for `dropout`.

Limits: NaN and infinities move as every other value does, and leave no trace (no 0 * inf) where they are cut off.

Shapes: x [N, H, W, C] floating, key a PRNG key (no cotangent), y [N, *size, C]. Errors: InputError, InputTypeError, for a size above
H + 2 padding among others. Source: Krizhevsky et al. 2012, section 4.1; with padding He et al. 2016, section 4.2.

    >>> fdl.ops.random_crop(jnp.ones((2, 8, 8, 3)), jax.random.key(0), size=(6, 6)).shape
    (2, 6, 6, 3)
"""

from typing import Any

from fdl.errors import refuse, require_key
from fdl.layer import Layer, Params, Pass, State, bind
from fdl.layers._cut import Pair, drawn, pair_of, plain_window, require_pictures, window, window_back
from fdl.layers.center_crop import op as center_crop
from fdl.op import Op, Static


def _range(where: str, shape: Pair, size: Any, padding: Any) -> tuple[Pair, Pair, Pair]:
    """(size, lowest, highest place) for pictures of this shape."""
    size, padding = pair_of(where, "size", size, 1), pair_of(where, "padding", padding, 0)
    low = (-padding[0], -padding[1])
    high = (shape[0] + padding[0] - size[0], shape[1] + padding[1] - size[1])
    if min(shape) < 1 or high[0] < low[0] or high[1] < low[1]:
        around = f" with padding {list(padding)}" if any(padding) else ""
        refuse(where, f"size is {list(size)}, the pictures are {list(shape)}{around}; take a smaller size or pad more")
    return size, low, high


def equation(x, key, *, size=(1, 1), padding=0):
    size, low, high = _range("random_crop", x.shape[1:3], size, padding)
    return plain_window(x, drawn(key, x.shape[0], low, high), size)


def forward(x, key, *, size, padding):
    require_pictures("random_crop", x)
    require_key("random_crop", key, "pass key=jax.random.key(0)")
    size, low, high = _range("random_crop", x.shape[1:3], size, padding)
    places = drawn(key, x.shape[0], low, high)
    return window(x, places, size, low, high), (places, Static(tuple(x.shape[1:3])))


def backward(residuals, dy, *, size, padding):
    places, shape = residuals[0], residuals[1].value
    _, low, high = _range("random_crop", shape, size, padding)
    return window_back(dy, places, shape, low, high), None


op = Op(equation, forward, backward)


def _init(key: Any, spec: Any, dtype: Any, *, size: Pair, padding: Pair) -> tuple[Params, State]:
    if len(spec.shape) == 3:  # else the op refuses it
        _range("random_crop", spec.shape[:2], size, padding)
    return {}, {}


def _run(walk: Pass, params: Params, state: State, x: Any, *, op: Op, middle: Op) -> tuple[Any, State, Any]:
    y, residuals = walk.evaluate(op, x, walk.key) if walk.train else walk.evaluate(middle, x)
    return y, state, (residuals, Static(walk.train))


def _backward(residuals: Any, dy: Any, *, op: Op, middle: Op) -> tuple[Params, Any]:
    kept, train = residuals
    return {}, (op if train.value else middle).backward(kept, dy)[0]


def random_crop(size: Any, padding: Any = 0) -> Layer:
    """A window of this size (one number, or height and width): anywhere in training, in the middle in use. `padding`: pixels of
    zeros around the picture before. Needs a key when training.

        >>> crop = fdl.random_crop((32, 32), padding=4)
        >>> crop.apply({}, {}, jnp.ones((2, 32, 32, 3)), train=True, key=jax.random.key(0))[0].shape
        (2, 32, 32, 3)
    """
    size, padding = pair_of("random_crop", "size", size, 1), pair_of("random_crop", "padding", padding, 0)
    ops = {"op": op.bind(size=size, padding=padding), "middle": center_crop.bind(size=size)}
    return Layer(
        "random_crop",
        init=bind(_init, size=size, padding=padding),
        run=bind(_run, **ops),
        backward=bind(_backward, **ops),
        stochastic=True,
    )

"""Convolution, pooling and resampling."""

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.zoo.case import Zoo, leaf, negated, times

zoo = Zoo("convolution")


def windows(x, size, stride=1):
    """[N, T, C] to [N, T', K, C]"""
    count = (x.shape[1] - size) // stride + 1
    at = stride * jnp.arange(count)[:, None] + jnp.arange(size)[None]
    return x[:, at]


def put_back(dw, length, stride=1, add=True):
    """The transpose of `windows`."""
    n, count, size, c = dw.shape
    at = stride * jnp.arange(count)[:, None] + jnp.arange(size)[None]
    empty = jnp.zeros((n, length, c), dw.dtype).at[:, at]
    return empty.add(dw) if add else empty.set(dw)


def conv(w, x):
    """Kernel [K, I, O], stride 1."""
    return lax.conv_general_dilated(x, w, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))


def conv_backward(kept, g, flip_dx=False, flip_dw=False, overlap=True, mean=False):
    w, x = kept
    dw = jnp.einsum("ntki,nto->kio", windows(x, w.shape[0]), g)
    dx = put_back(jnp.einsum("nto,kio->ntki", g, w[::-1] if flip_dx else w), x.shape[1], add=overlap)
    return (dw[::-1] if flip_dw else dw) / (x.shape[0] if mean else 1), dx


op = zoo.op(
    "conv 1d", conv, lambda w, x: (conv(w, x), (w, x)), conv_backward, lambda r: (r.normal(3, 2, 4), r.normal(2, 7, 2))
)
op.right("kernel of 1", make=lambda r: (r.normal(1, 2, 4), r.normal(2, 5, 2)))
op.wrong("kernel not flipped", "transposed", {"flip_dx": True}, names=("args[0] in reverse order along axis 0",))
op.wrong("dw flipped", "transposed", {"flip_dw": True}, names=("args[0] is in reverse order along axis 0",))
op.wrong("overlap overwritten", "duplicate indices overwritten", {"overlap": False})
op.wrong("dw averaged over the batch", "1/m for a sum", {"mean": True}, names=("half",))
op.wrong(
    "input channels mixed up",
    "wrong axis",
    leaf(0, lambda g: g[:, ::-1]),
    names=("in reverse order along axis 1", "moved by 1 along axis 1"),
)


def conv2(w, x):
    """Kernel [K, K, I, O], stride 2, padding 1."""
    return lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


def conv2_backward(kept, g, extra=0, shift=0, swapped=False):
    w, x = kept
    flipped = jnp.flip(jnp.swapaxes(w, 2, 3), (0, 1))
    flipped = jnp.swapaxes(flipped, 0, 1) if swapped else flipped
    dims = ("NHWC", "HWIO", "NHWC")
    low = 1 + shift
    dx = lax.conv_general_dilated(g, flipped, (1, 1), ((low, 2 - low), (low, 2 - low)), (2, 2), dimension_numbers=dims)
    patches = ("CHWN", "IHWO", "HWNC")
    dw = lax.conv_general_dilated(x, g, (1, 1), ((1, 1), (1, 1)), rhs_dilation=(2, 2), dimension_numbers=patches)
    return dw[: 3 + extra, :3], dx


op = zoo.op(
    "conv 2d with strides",
    conv2,
    lambda w, x: (conv2(w, x), (w, x)),
    conv2_backward,
    lambda r: (r.normal(3, 3, 2, 3), r.normal(2, 5, 5, 2)),
)
op.wrong("padding on one side", "off by one", {"shift": -1}, names=("padded by one too few at the start",))
op.wrong("height and width swapped", "transposed", {"swapped": True}, names=("args[0] transposed: axes 0 and 1",))
op.wrong("sign of the kernel's", "sign", leaf(0, negated))


def depthwise(w, x):
    """Kernel [K, C]."""
    return jnp.einsum("ntkc,kc->ntc", windows(x, w.shape[0]), w)


def depthwise_backward(kept, g, channels=True):
    w, x = kept
    dw = jnp.einsum("ntkc,ntc->kc", windows(x, w.shape[0]), g)
    dw = dw if channels else jnp.broadcast_to(jnp.mean(dw, axis=1, keepdims=True), dw.shape)
    return dw, put_back(g[:, :, None] * w[None, None], x.shape[1])


op = zoo.op(
    "depthwise conv",
    depthwise,
    lambda w, x: (depthwise(w, x), (w, x)),
    depthwise_backward,
    lambda r: (r.normal(3, 4), r.normal(2, 6, 4)),
)
op.wrong("one kernel for all channels", "broadcast averaged", {"channels": False}, names=("averaged over axis 1",))


def upward(w, x):
    """Transposed, stride 2: every input writes a kernel [K, I, O]."""
    return put_back(jnp.einsum("nti,kio->ntko", x, w), 2 * x.shape[1] + 1, 2)


def upward_backward(kept, g, stride=2):
    w, x = kept
    seen = windows(g, 3, stride)[:, : x.shape[1]]
    return jnp.einsum("nti,ntko->kio", x, seen), jnp.einsum("ntko,kio->nti", seen, w)


op = zoo.op(
    "transposed conv",
    upward,
    lambda w, x: (upward(w, x), (w, x)),
    upward_backward,
    lambda r: (r.normal(3, 2, 3), r.normal(2, 4, 2)),
)
op.wrong("stride 1", "wrong stride", {"stride": 1}, names=("stride",))


def max_pool(x):
    return jnp.max(windows(x, 3, 2), axis=2)


def max_pool_backward(x, g, add=True, every=False):
    seen = windows(x, 3, 2)
    largest = jnp.max(seen, axis=2, keepdims=True)
    hot = (seen == largest).astype(x.dtype)
    hot = hot / jnp.sum(hot, axis=2, keepdims=True)
    return (put_back((jnp.ones_like(hot) / 3 if every else hot) * g[:, :, None], x.shape[1], 2, add),)


op = zoo.op("max pool", max_pool, lambda x: (max_pool(x), x), max_pool_backward, lambda r: (r.normal(2, 9, 3),))
op.right("with ties, shared", make=lambda r: (r.whole(2, 9, 3, low=0, high=2),), kinks=True)
op.right(
    "with ties, the first",
    lambda x, g: (
        put_back(jax.nn.one_hot(jnp.argmax(windows(x, 3, 2), 2), 3, axis=2, dtype=x.dtype) * g[:, :, None], 9, 2),
    ),
    make=lambda r: (r.whole(2, 9, 3, low=0, high=2),),
    kinks=True,
)
op.wrong("overlap overwritten", "duplicate indices overwritten", {"add": False})
op.wrong(
    "average pool's",
    "missing mask",
    {"every": True},
    names=("constant stands in place of the factor `eq", "gradient of the mean"),
)


def avg_pool(x):
    return jnp.mean(windows(x, 4, 2), axis=2)


def avg_pool_backward(x, g):
    return (put_back(jnp.broadcast_to(g[:, :, None] / 4, (*g.shape[:2], 4, g.shape[2])), x.shape[1], 2),)


op = zoo.op("average pool", avg_pool, lambda x: (avg_pool(x), x), avg_pool_backward, lambda r: (r.normal(2, 8, 3),))
op.wrong("not divided", "missing 1/m", leaf(0, times(4)), names=("division by 4",))
op.wrong(
    "edges not overlapped",
    "wrong stride",
    lambda x, g: (jnp.repeat(g, 3, axis=1)[:, :8] / 2,),
    names=("overlap", "stride"),
)


def global_pool(x):
    return jnp.mean(x, axis=(1, 2))


op = zoo.op(
    "global average pool",
    global_pool,
    lambda x: (global_pool(x), x),
    lambda x, g: (jnp.broadcast_to(g[:, None, None] / 20, x.shape),),
    lambda r: (r.normal(3, 4, 5, 2),),
)
op.wrong(
    "divided by one side",
    "missing 1/m",
    leaf(0, times(5)),
    names=("5 times what it should be: a sum in place of a mean over axis 2",),
)


def nearest(x):
    return jnp.repeat(x, 2, axis=1)


op = zoo.op(
    "upsample",
    nearest,
    lambda x: (nearest(x), None),
    lambda _, g: (g[:, ::2] + g[:, 1::2],),
    lambda r: (r.normal(2, 5, 3),),
)
op.wrong("every second", "broadcast not summed", lambda _, g: (g[:, ::2],), names=("only the first of every 2",))
op.wrong("averaged", "broadcast averaged", lambda _, g: ((g[:, ::2] + g[:, 1::2]) / 2,), names=("half",))


def interpolate(x, at):
    """Linear, at places between 0 and T - 1."""
    low = jnp.clip(jnp.floor(at), 0, x.shape[0] - 2)
    i, share = low.astype(jnp.int32), at - low
    return x[i] * (1 - share) + x[i + 1] * share


def interpolate_backward(kept, g, places=1.0, swapped=False):
    x, at = kept
    low = jnp.clip(jnp.floor(at), 0, x.shape[0] - 2)
    i, share = low.astype(jnp.int32), at - low
    a, b = (share, 1 - share) if swapped else (1 - share, share)
    return jnp.zeros_like(x).at[i].add(a * g).at[i + 1].add(b * g), places * g * (x[i + 1] - x[i])


op = zoo.op(
    "interpolate",
    interpolate,
    lambda x, at: (interpolate(x, at), (x, at)),
    interpolate_backward,
    lambda r: (r.normal(6), r.positive(9, low=0.1, high=4.9)),
)
op.wrong("places have none", "missing term", {"places": 0.0}, names=("is zero",))
op.wrong("shares swapped", "wrong index", {"swapped": True}, names=("`share` and `1 - share` in place of each other",))

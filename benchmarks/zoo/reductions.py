"""Sums, means, moments, softmax and the losses made of them."""

import jax
import jax.numpy as jnp

from benchmarks.zoo.case import Zoo, entry, leaf, negated, times

zoo = Zoo("reductions")


def variance(x):
    return jnp.mean((x - jnp.mean(x, axis=0, keepdims=True)) ** 2, axis=0)


def variance_forward(x):
    return variance(x), x - jnp.mean(x, axis=0, keepdims=True)


op = zoo.op("variance", variance, variance_forward, lambda c, g: (2 * c * g[None] / 20,), lambda r: (r.normal(20, 6),))
op.right("mean 1e4", make=lambda r: (r.normal(20, 6, mean=1e4),))
op.wrong("m - 1 for m", "1/(m-1) for 1/m", leaf(0, times(20 / 19)), source="batch norm, measured")
op.wrong("without the 2", "factor 1/2", leaf(0, times(0.5)))
op.wrong("not divided", "missing 1/m", leaf(0, times(20)))


def deviation(x):
    return jnp.sqrt(jnp.sum((x - jnp.mean(x, axis=1, keepdims=True)) ** 2, axis=1) / 8)


def deviation_forward(x):
    y = deviation(x)
    return y, (x - jnp.mean(x, axis=1, keepdims=True), y)


op = zoo.op(
    "standard deviation",
    deviation,
    deviation_forward,
    lambda k, g: (k[0] * (g / k[1])[:, None] / 8,),
    lambda r: (r.normal(5, 9),),
)
op.wrong("m for m - 1", "1/m for 1/(m-1)", leaf(0, times(8 / 9)))
op.wrong(
    "variance's",
    "missing factor",
    lambda k, g: (2 * k[0] * g[:, None] / 8,),
    names=("gradient of the square of the output", "derivative of `jnp.sqrt"),
)


def mse_backward(k, g):
    pred, target = k
    dpred = 2 * g * (pred - target) / pred.size
    return dpred, -dpred


op = zoo.op(
    "mean squared error",
    lambda pred, target: jnp.mean((pred - target) ** 2),
    lambda pred, target: (jnp.mean((pred - target) ** 2), (pred, target)),
    mse_backward,
    lambda r: (r.normal(64, 10), r.normal(64, 10)),
)
op.wrong(
    "zero",
    "missing term",
    lambda k, g: (jnp.zeros_like(k[0]), jnp.zeros_like(k[1])),
    source="check_grads, measured",
    names=("is zero",),
)
op.wrong("1/N for 1/(N D)", "missing 1/m", lambda k, g: tuple(10 * d for d in mse_backward(k, g)))
op.wrong("without the 2", "factor 1/2", lambda k, g: tuple(d / 2 for d in mse_backward(k, g)))
op.wrong("target's sign", "sign", leaf(1, negated))
op.wrong(
    "one entry of 640",
    "one entry",
    leaf(0, entry((37, 4), 0.5)),
    names=("1.5 times what it should be at [37, 4] alone",),
)

softmax = jax.nn.softmax


def softmax_forward(x):
    y = softmax(x)
    return y, y


def softmax_backward(y, g, axis=-1):
    return (y * (g - jnp.sum(g * y, axis=axis, keepdims=True)),)


op = zoo.op("softmax", softmax, softmax_forward, softmax_backward, lambda r: (r.normal(5, 7, scale=2),))
op.right("at 1e4", make=lambda r: (r.normal(5, 7, mean=1e4),))
op.right("a masked logit", make=lambda r: (r.normal(3, 5).at[1, 2].set(-jnp.inf),))
op.wrong(
    "diagonal only",
    "missing path through the sum",
    lambda y, g: (y * (1 - y) * g,),
    names=("diagonal of the Jacobian", "every entry counts for itself"),
)
op.wrong("sum over the batch", "wrong axis", {"axis": 0}, names=("runs over axis 0",))
op.wrong(
    "no sum",
    "missing path through the sum",
    lambda y, g: (y * g,),
    names=("missing path through `jnp.sum(unnormalized",),
)
op.wrong(
    "plus",
    "sign",
    lambda y, g: (y * (g + jnp.sum(g * y, axis=-1, keepdims=True)),),
    names=("path through `jnp.sum(unnormalized, axis, where=where, keep...` with the wrong sign",),
)

log_softmax = jax.nn.log_softmax


def log_softmax_forward(x):
    y = log_softmax(x)
    return y, y


op = zoo.op(
    "log softmax",
    log_softmax,
    log_softmax_forward,
    lambda y, g: (g - jnp.exp(y) * jnp.sum(g, axis=-1, keepdims=True),),
    lambda r: (r.normal(6, 5),),
)
op.wrong(
    "cotangents taken to sum to 1",
    "cotangent ignored",
    lambda y, g: (g - jnp.exp(y),),
    names=("its cotangents are ignored",),
)
op.wrong(
    "softmax's",
    "stale residual",
    lambda y, g: softmax_backward(jnp.exp(y), g),
    names=("gradient of the exponential of the output",),
)
op.wrong(
    "averaged",
    "broadcast averaged",
    lambda y, g: (g - jnp.exp(y) * jnp.mean(g, axis=-1, keepdims=True),),
    names=("averaged in place of summed, over 5",),
)

lse = jax.nn.logsumexp


def logsumexp(x):
    return lse(x, axis=-1)


op = zoo.op(
    "logsumexp",
    logsumexp,
    lambda x: (logsumexp(x), x),
    lambda x, g: (g[:, None] * softmax(x),),
    lambda r: (r.normal(7, 5, scale=3),),
)
op.wrong(
    "the largest gets all",
    "missing term",
    lambda x, g: (g[:, None] * jax.nn.one_hot(jnp.argmax(x, -1), 5, dtype=x.dtype),),
    names=("gradient of the maximum",),
)
op.wrong(
    "overflows",
    "overflow",
    lambda x, g: (g[:, None] * jnp.exp(x) / jnp.sum(jnp.exp(x), axis=-1, keepdims=True),),
    make=lambda r: (r.normal(4, 5, mean=95),),
    precision=True,
)


def cross_entropy(logits, labels):
    return -jnp.mean(jnp.take_along_axis(log_softmax(logits), labels[:, None], axis=1))


def cross_entropy_backward(k, g, shift=0, count=9.0, onehot=1.0):
    logits, labels = k
    hot = jax.nn.one_hot((labels + shift) % 6, 6, dtype=logits.dtype)
    return g * (softmax(logits) - onehot * hot) / count, None


op = zoo.op(
    "cross-entropy",
    cross_entropy,
    lambda logits, labels: (cross_entropy(logits, labels), (logits, labels)),
    cross_entropy_backward,
    lambda r: (r.normal(9, 6), r.integers(6, 9)),
)
op.wrong("label after", "wrong index", {"shift": 1}, names=("index +1 along axis 1", "args[1]` off by +1"))
op.wrong("sum for mean", "missing 1/m", {"count": 1.0})
op.wrong(
    "label's term missing",
    "missing term",
    {"onehot": 0.0},
    names=("missing path through `shifted` in", "missing path through `jnp.take_along_axis"),
)
op.wrong(
    "label's sign",
    "sign",
    {"onehot": -1.0},
    names=(
        "path through `shifted` in `shifted - shifted_logsumexp` with the wrong sign",
        "path through `jnp.take_along_axis",
    ),
)


def masked_mean(x, mask):
    return jnp.sum(jnp.where(mask, x * x, 0)) / jnp.sum(mask.astype(x.dtype))


def masked_mean_backward(k, g, masked=True, whole=False):
    x, mask = k
    count = x.size if whole else jnp.sum(mask.astype(x.dtype))
    dx = 2 * g * x / count
    return jnp.where(mask, dx, 0) if masked else dx, None


op = zoo.op(
    "masked mean",
    masked_mean,
    lambda x, mask: (masked_mean(x, mask), (x, mask)),
    masked_mean_backward,
    lambda r: (r.normal(6, 5), r.mask(6, 5)),
)
op.wrong(
    "masked entries leak",
    "missing mask",
    {"masked": False},
    names=("derivative of `jnp.where(mask, x * x, 0)`", "where args[1] is False", "mask args[1] forgotten"),
)
op.wrong("divided by all", "1/N for 1/count", {"whole": True}, names=("divided by 30 (all of args[0]) in place of",))


def largest(x):
    return jnp.max(x, axis=1)


def largest_backward(x, g, share=True):
    tied = (x == jnp.max(x, axis=1, keepdims=True)).astype(x.dtype)
    return (tied * g[:, None] / (jnp.sum(tied, axis=1, keepdims=True) if share else 1),)


op = zoo.op("max", largest, lambda x: (largest(x), x), largest_backward, lambda r: (r.normal(7, 5),))
op.right(
    "the first of several",
    lambda x, g: (g[:, None] * jax.nn.one_hot(jnp.argmax(x, 1), 5, dtype=x.dtype),),
    make=lambda r: (r.whole(7, 5, low=0, high=2),),
    kinks=True,
)
op.wrong(
    "the smallest",
    "wrong index",
    lambda x, g: (g[:, None] * jax.nn.one_hot(jnp.argmin(x, 1), 5, dtype=x.dtype),),
    names=("gradient of the minimum",),
)
op.wrong(
    "all entries",
    "missing mask",
    lambda x, g: (g[:, None] * jnp.ones_like(x) / 5,),
    names=("gradient of the mean over axis 1",),
)


def product(x):
    return jnp.prod(x, axis=1)


def others(x):
    """The product of the other entries of the row, by leaving out one at a time."""
    return jnp.stack([jnp.prod(jnp.delete(x, j, axis=1), axis=1) for j in range(x.shape[1])], axis=1)


op = zoo.op(
    "product", product, lambda x: (product(x), x), lambda x, g: (g[:, None] * others(x),), lambda r: (r.normal(5, 4),)
)
op.right("with a zero", make=lambda r: (r.normal(5, 4).at[2, 1].set(0),))
op.wrong(
    "divided by a zero",
    "not finite",
    lambda x, g: ((g * product(x))[:, None] / x,),
    make=lambda r: (r.normal(5, 4).at[2, 1].set(0),),
    names=("not finite where args[0] is 0",),
)
op.wrong(
    "not divided",
    "stale residual",
    lambda x, g: ((g * product(x))[:, None] * jnp.ones_like(x),),
    names=("multiplied by args[0] once too often",),
)


def cosine(a, b):
    return jnp.sum(a * b, 1) / (jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1))


def cosine_backward(k, g, through_length=1.0):
    a, b = k
    la, lb = jnp.linalg.norm(a, axis=1, keepdims=True), jnp.linalg.norm(b, axis=1, keepdims=True)
    y = jnp.sum(a * b, 1, keepdims=True) / (la * lb)
    g = g[:, None]
    return g * (b / (la * lb) - through_length * y * a / la**2), g * (a / (la * lb) - through_length * y * b / lb**2)


op = zoo.op(
    "cosine similarity",
    cosine,
    lambda a, b: (cosine(a, b), (a, b)),
    cosine_backward,
    lambda r: (r.normal(4, 6), r.normal(4, 6)),
)
op.wrong(
    "length taken as constant",
    "missing path through the norm",
    {"through_length": 0.0},
    names=("missing path through `jnp.linalg.norm(a, axis=1)`",),
)
op.wrong(
    "arguments swapped",
    "transposed",
    lambda k, g: cosine_backward((k[1], k[0]), g),
    names=("is the gradient of args[1]",),
)


def length(x):
    return jnp.sqrt(jnp.sum(x * x, axis=-1))


op = zoo.op(
    "norm",
    length,
    lambda x: (length(x), (x, length(x))),
    lambda k, g: (k[0] * (g / k[1])[:, None],),
    lambda r: (r.normal(6, 5),),
)
op.wrong(
    "of the square",
    "missing factor",
    lambda k, g: (2 * k[0] * g[:, None],),
    names=("gradient of the square of the output",),
)
op.wrong(
    "squared length",
    "missing factor",
    lambda k, g: (k[0] * (g / k[1] ** 2)[:, None],),
    names=("divided by the output once too often",),
)

"""Magnitudes, precisions, single entries and leaves of all kinds: where tolerances and shapes of arguments decide."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.zoo.case import Zoo, entry, leaf, negated, times, zero

zoo = Zoo("scale")


def energy(factor):
    """factor sum x^2"""

    def function(x):
        return jnp.asarray(factor, x.dtype) * jnp.sum(x * x)

    return function, lambda x: (function(x), x), lambda x, g: (2 * jnp.asarray(factor, x.dtype) * g * x,)


op = zoo.op("energy of 1e-5", *energy(1e-5), lambda r: (r.normal(64),))
op.wrong("zero", "missing term", leaf(0, zero), source="check_grads, gradcheck, measured", names=("is zero",))
op.wrong("sign", "sign", leaf(0, negated), source="check_grads, gradcheck, measured")

op = zoo.op("energy", *energy(0.5), lambda r: (r.normal(33),))
op.right("x of 1e-15", make=lambda r: (r.normal(33, scale=1e-15),))
op.right("x of 1e15", make=lambda r: (r.normal(33, scale=1e15),))
op.wrong("10 % at 1e-15", "factor 0.9", leaf(0, times(0.9)), make=lambda r: (r.normal(33, scale=1e-15),))
op.wrong("10 % at 1e15", "factor 0.9", leaf(0, times(0.9)), make=lambda r: (r.normal(33, scale=1e15),))

op = zoo.op("energy of 1e-30", *energy(1e-30), lambda r: (r.normal(17),))
op.wrong("sign", "sign", leaf(0, negated))
op = zoo.op("energy of 1e30", *energy(1e30), lambda r: (r.normal(17),))
op.wrong("1 %", "factor 0.99", leaf(0, times(0.99)))


def mean_tanh(x):
    return jnp.mean(jnp.tanh(x) ** 2)


def mean_tanh_backward(y, g):
    return (2 * g * y * (1 - y * y) / y.size,)


op = zoo.op(
    "mean of tanh squared",
    mean_tanh,
    lambda x: (mean_tanh(x), jnp.tanh(x)),
    mean_tanh_backward,
    lambda r: (r.normal(64, 100),),
)
op.wrong("zero", "missing term", leaf(0, zero), source="check_grads, measured", names=("is zero",))
op.wrong(
    "one entry of 6400",
    "one entry",
    leaf(0, entry((40, 77), 1.0)),
    source="check_grads, measured",
    names=("twice", "2 times what it should be at [40, 77] alone"),
)
op.wrong(
    "one row of 64",
    "one row",
    leaf(0, lambda g: g.at[13].set(0)),
    names=("is zero, and should not be, at index 13 along axis 0",),
)

tanh_backward = lambda y, g: (g * (1 - y * y),)
op = zoo.op(
    "tanh of 1000",
    jnp.tanh,
    lambda x: (jnp.tanh(x), jnp.tanh(x)),
    tanh_backward,
    lambda r: (r.normal(1000, scale=0.5),),
)
op.right("float16", make=lambda r: (r.normal(50, dtype=np.float16),))
op.right("bfloat16", make=lambda r: (r.normal(50, dtype=jnp.bfloat16),))
op.wrong(
    "one entry by 1e-2",
    "one entry",
    leaf(0, entry((613,), 1e-2)),
    names=("at [613] alone", "at index 613 along axis 0"),
)
op.wrong(
    "one entry by 1e-4",
    "one entry",
    leaf(0, entry((613,), 1e-4)),
    names=("at [613] alone", "at index 613 along axis 0"),
)
op.wrong(
    "one entry by 1e-6",
    "one entry",
    leaf(0, entry((613,), 1e-6)),
    names=("at [613] alone", "at index 613 along axis 0"),
)
op.wrong("float16 by 5 %", "factor 0.95", leaf(0, times(0.95)), make=lambda r: (r.normal(50, dtype=np.float16),))
op.wrong("bfloat16 by 5 %", "factor 0.95", leaf(0, times(0.95)), make=lambda r: (r.normal(50, dtype=jnp.bfloat16),))


def weighted(params, x):
    return params["large"][None] * x + 1e-6 * params["small"][None] * x**2


def weighted_backward(k, g):
    params, x = k
    d = {"large": jnp.sum(g * x, 0), "small": 1e-6 * jnp.sum(g * x**2, 0)}
    return d, g * (params["large"][None] + 2e-6 * params["small"][None] * x)


op = zoo.op(
    "a large and a small leaf",
    weighted,
    lambda params, x: (weighted(params, x), (params, x)),
    weighted_backward,
    lambda r: ({"large": r.normal(4), "small": r.normal(4)}, r.normal(9, 4)),
)
op.wrong("small leaf zero", "missing term", leaf(1, zero), names=("is zero",))
op.wrong("small leaf's sign", "sign", leaf(1, negated))
op.wrong("small leaf by 1 %", "factor 0.99", leaf(1, times(0.99)))


def assorted(tree):
    return tree["x"] * tree["s"] * tree["count"].astype(tree["x"].dtype) + jnp.where(tree["on"], tree["x"], 0)


def assorted_backward(tree, g):
    count = tree["count"].astype(g.dtype)
    dx = g * tree["s"] * count + jnp.where(tree["on"], g, 0)
    return (
        {"count": None, "empty": tree["empty"], "none": None, "on": None, "s": jnp.sum(g * tree["x"]) * count, "x": dx},
    )


op = zoo.op(
    "leaves of all kinds",
    assorted,
    lambda tree: (assorted(tree), tree),
    assorted_backward,
    lambda r: (
        {
            "count": jnp.asarray(3),
            "empty": r.normal(0, 2),
            "none": None,
            "on": r.mask(5),
            "s": r.normal(),
            "x": r.normal(5),
        },
    ),
)
op.wrong(
    "the number's not summed",
    "broadcast not summed",
    lambda tree, g: ({**assorted_backward(tree, g)[0], "s": (g * tree["x"])[0] * tree["count"].astype(g.dtype)},),
)
op.wrong(
    "mask forgotten",
    "missing mask",
    lambda tree, g: ({**assorted_backward(tree, g)[0], "x": g * tree["s"] * tree["count"].astype(g.dtype) + g},),
    names=("mask args[0]['on'] forgotten", "where args[0]['on'] is False"),
)


def log1p_ratio(x):
    return jnp.log1p(x) / x


op = zoo.op(
    "cancelling",
    log1p_ratio,
    lambda x: (log1p_ratio(x), x),
    lambda x, g: (g * (1 / (1 + x) - jnp.log1p(x) / x) / x,),
    lambda r: (r.positive(13),),
)
op.right("ill-conditioned", make=lambda r: (r.positive(13, low=1e-3, high=1e-2),))
op.wrong(
    "product rule's half",
    "missing term",
    lambda x, g: (g / (1 + x) / x,),
    names=("missing path through `args[0]` in `jnp.log1p(x) / x`",),
)


def two_outputs(x):
    return {"cos": jnp.cos(x), "sum": jnp.sum(jnp.sin(x))}


op = zoo.op(
    "two outputs",
    two_outputs,
    lambda x: (two_outputs(x), x),
    lambda x, g: (g["sum"] * jnp.cos(x) - g["cos"] * jnp.sin(x),),
    lambda r: (r.normal(11),),
)
op.wrong(
    "second output's cotangent dropped",
    "cotangent ignored",
    lambda x, g: (-g["cos"] * jnp.sin(x),),
    names=("the cotangent of output 1 is missing",),
)
op.wrong(
    "outputs swapped",
    "wrong order",
    lambda x, g: (jnp.sum(g["cos"]) * jnp.cos(x) - g["sum"] * jnp.sin(x),),
    names=("cotangents of outputs 0 and 1 swapped",),
)
op.wrong(
    "cotangents averaged",
    "cotangent ignored",
    lambda x, g: (g["sum"] * jnp.cos(x) - jnp.mean(g["cos"]) * jnp.sin(x),),
    names=("cotangent is averaged over axis 0 of output 0",),
)

summed = lambda x: jnp.sum(jax.nn.silu(x), axis=0)
op = zoo.op(
    "long sum",
    summed,
    lambda x: (summed(x), x),
    lambda x, g: (jax.nn.sigmoid(x) * (1 + x * (1 - jax.nn.sigmoid(x))) * g[None],),
    lambda r: (r.normal(2001, 2),),
)
op.wrong(
    "last entry left out",
    "off by one",
    leaf(0, lambda g: g.at[-1].set(0)),
    names=("is zero, and should not be, at index 2000 along axis 0",),
)

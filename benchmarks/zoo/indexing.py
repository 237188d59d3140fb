"""Moving entries around: looking up, scattering, sorting, cutting, padding."""

import jax
import jax.numpy as jnp

from benchmarks.zoo.case import Draw, Zoo, leaf, times, zero

zoo = Zoo("indexing")


def lookup(table, ids):
    return table[ids]


def lookup_backward(k, g):
    ids, table = k
    return jnp.zeros_like(table).at[ids].add(g), None


op = zoo.op(
    "embedding",
    lookup,
    lambda table, ids: (table[ids], (ids, table)),
    lookup_backward,
    lambda r: (r.normal(5, 3), r.integers(5, 4, 6)),
)
op.right("one row for all", make=lambda r: (r.normal(5, 3), jnp.full(7, 2, jnp.int32)))
op.wrong(
    "set for add",
    "duplicate indices overwritten",
    lambda k, g: (jnp.zeros_like(k[1]).at[k[0]].set(g), None),
    names=("overwrites the others",),
)
op.wrong(
    "row before",
    "wrong index",
    lambda k, g: (jnp.zeros_like(k[1]).at[k[0] - 1].add(g), None),
    names=("is moved by -1 along axis 0", "is moved by 4 along axis 0", "off by -1"),
)
op.wrong(
    "largest of the duplicates",
    "duplicate indices overwritten",
    lambda k, g: (jnp.zeros_like(k[1]).at[k[0]].max(g), None),
    names=("only the largest counts",),
)


def divided_by_count(k, g):
    ids, table = k
    count = jnp.zeros(table.shape[0], g.dtype).at[ids].add(1)
    return lookup_backward(k, g)[0] / jnp.maximum(count, 1)[:, None], None


op.wrong("mean of the duplicates", "broadcast averaged", divided_by_count, names=("the mean counts, not the sum",))
op.wrong(
    "padding row left out",
    "missing term",
    leaf(0, lambda g: g.at[0].set(0)),
    make=lambda r: (r.normal(5, 3), r.integers(5, 4, 6).at[0, 0].set(0)),
    names=("is zero, and should not be, at index 0 along axis 0",),
)


def scattered(base, ids, updates):
    return jnp.asarray(base).at[ids].add(updates)


op = zoo.op(
    "scatter add",
    scattered,
    lambda base, ids, updates: (scattered(base, ids, updates), ids),
    lambda ids, g: (g, None, g[ids]),
    lambda r: (r.normal(6, 2), r.integers(6, 9), r.normal(9, 2)),
)
op.wrong(
    "base has none where hit",
    "missing term",
    lambda ids, g: (jnp.asarray(g).at[ids].set(0), None, g[ids]),
    names=("is zero, and should not be, where the row occurs in args[1]", "is zero: it is missing altogether"),
)
op.wrong(
    "updates in order", "wrong index", lambda ids, g: (g, None, g[jnp.arange(9) % 6]), names=("as if it were 0, 1, 2",)
)

op = zoo.op(
    "scatter set",
    lambda base, ids, updates: jnp.asarray(base).at[ids].set(updates),
    lambda base, ids, updates: (jnp.asarray(base).at[ids].set(updates), ids),
    lambda ids, g: (jnp.asarray(g).at[ids].set(0), None, g[ids]),
    lambda r: (r.normal(6, 2), jnp.asarray([4, 1, 2], jnp.int32), r.normal(3, 2)),
)
op.wrong(
    "base keeps its own",
    "missing mask",
    lambda ids, g: (g, None, g[ids]),
    names=("`jnp.asarray(base).at[ids].set(updates)` by `args[0]` is taken as 1", "where the row occurs in args[1]"),
)


def chosen(x, ids):
    return jnp.take_along_axis(x, ids, axis=1)


def chosen_backward(k, g):
    ids, x = k
    return jnp.zeros_like(x).at[jnp.arange(x.shape[0])[:, None], ids].add(g), None


op = zoo.op(
    "take along axis",
    chosen,
    lambda x, ids: (chosen(x, ids), (ids, x)),
    chosen_backward,
    lambda r: (r.normal(5, 6), r.integers(6, 5, 4)),
)
op.wrong(
    "set for add",
    "duplicate indices overwritten",
    lambda k, g: (jnp.zeros_like(k[1]).at[jnp.arange(5)[:, None], k[0]].set(g), None),
)


def segment_mean(x, ids):
    count = jnp.zeros(4, x.dtype).at[ids].add(1)
    return jnp.zeros((4, x.shape[1]), x.dtype).at[ids].add(x) / jnp.maximum(count, 1)[:, None]


def segment_mean_backward(k, g, divided=True):
    ids, x = k
    count = jnp.zeros(4, g.dtype).at[ids].add(1)
    return (g / jnp.maximum(count, 1)[:, None] if divided else g)[ids], None


op = zoo.op(
    "segment mean",
    segment_mean,
    lambda x, ids: (segment_mean(x, ids), (ids, x)),
    segment_mean_backward,
    lambda r: (r.normal(9, 3), r.integers(4, 9)),
)
op.wrong("not divided", "missing 1/m", {"divided": False}, names=("division by", "is taken as 1"))
op.wrong(
    "divided by all",
    "1/N for 1/count",
    lambda k, g: (g[k[0]] / 9, None),
    names=("constant stands in place of the factor `jnp.maximum(count",),
)

# ---- sorting


def sort(x):
    return jnp.sort(x, axis=1)


def sort_forward(x):
    order = jnp.argsort(x, axis=1)
    return jnp.take_along_axis(x, order, axis=1), order


def along(g, order):
    return jnp.take_along_axis(g, order, axis=1)


op = zoo.op(
    "sort", sort, sort_forward, lambda order, g: (along(g, jnp.argsort(order, axis=1)),), lambda r: (r.normal(5, 7),)
)
op.right("with ties", make=lambda r: (r.whole(5, 7),))
op.wrong(
    "sorted again",
    "permutation not inverted",
    lambda order, g: (along(g, order),),
    source="pytorch#57166",
    names=("inverted as a permutation along axis 1",),
)
op.wrong(
    "not moved back",
    "permutation not inverted",
    lambda order, g: (g,),
    names=("derivative of `jnp.sort(x, axis=1)` by `args[0]` is taken as 1", "as if it were 0, 1, 2"),
)
op.wrong(
    "descending",
    "wrong index",
    lambda order, g: (along(g[:, ::-1], jnp.argsort(order, axis=1)),),
    names=("in reverse order along axis 1 of the output",),
)


def top(x):
    return jax.lax.top_k(x, 3)[0]


def top_forward(x):
    y, ids = jax.lax.top_k(x, 3)
    return y, (ids, x)


op = zoo.op("top k", top, top_forward, lambda k, g: chosen_backward(k, g)[:1], lambda r: (r.normal(4, 8),))
op.wrong(
    "in the first places",
    "wrong index",
    lambda k, g: (jnp.pad(g, ((0, 0), (0, 5))),),
    names=("as if it were 0, 1, 2, ... along axis 1",),
)
op.wrong(
    "the largest alone",
    "missing term",
    lambda k, g: chosen_backward(k, g * jnp.asarray([[1, 0, 0]], g.dtype).repeat(4, 0))[:1],
    names=("only the first of the 3 along axis 1",),
)


def median(x):
    return jnp.sort(x, axis=1)[:, x.shape[1] // 2]


op = zoo.op(
    "median",
    median,
    lambda x: (median(x), (x, median(x))),
    lambda k, g: (jnp.where(k[0] == k[1][:, None], g[:, None], 0),),
    lambda r: (r.normal(6, 7),),
)
op.wrong(
    "the mean's",
    "missing mask",
    lambda k, g: (jnp.broadcast_to(g[:, None] / 7, k[0].shape),),
    names=("gradient of the mean over axis 1",),
)

# ---- places


def structural(name, function, backward, make):
    return zoo.op(name, function, lambda x: (function(x), None), backward, make)


op = structural(
    "roll", lambda x: jnp.roll(x, 2, axis=0), lambda _, g: (jnp.roll(g, -2, axis=0),), lambda r: (r.normal(7, 3),)
)
op.wrong(
    "same way",
    "wrong index",
    lambda _, g: (jnp.roll(g, 2, axis=0),),
    names=("moved by 4 along axis 0", "moved by -3 along axis 0"),
)

op = structural("transpose", lambda x: x.T, lambda _, g: (g.T,), lambda r: (r.normal(4, 4),))
op.wrong(
    "left out",
    "transposed",
    lambda _, g: (g,),
    names=("is transposed", "derivative of `x.T` by `args[0]` is taken as 1"),
)

op = structural(
    "fold",
    lambda x: x.reshape(3, 4, 5).swapaxes(0, 1).reshape(4, 15),
    lambda _, g: (g.reshape(4, 3, 5).swapaxes(0, 1).reshape(12, 5),),
    lambda r: (r.normal(12, 5),),
)
op.wrong("reshaped without the swap", "wrong order", lambda _, g: (g.reshape(12, 5),), names=("only reshaped",))

op = structural("pad", lambda x: jnp.pad(x, ((2, 1), (0, 0))), lambda _, g: (g[2:-1],), lambda r: (r.normal(5, 4),))
op.wrong("from the start", "off by one", lambda _, g: (g[:-3],), names=("cotangent is moved by 2 along axis 0",))

op = structural(
    "repeat", lambda x: jnp.repeat(x, 3, axis=0), lambda _, g: (g.reshape(4, 3, 2).sum(1),), lambda r: (r.normal(4, 2),)
)
op.wrong(
    "tiled",
    "wrong order",
    lambda _, g: (g.reshape(3, 4, 2).sum(0),),
    names=("in the order of 3 times 4, not of 4 times 3",),
)
op.wrong("averaged", "broadcast averaged", leaf(0, times(1 / 3)))
op.wrong(
    "first copy", "broadcast not summed", lambda _, g: (g.reshape(4, 3, 2)[:, 0],), names=("only the first of every 3",)
)


def two_parts(r: Draw):
    return r.normal(4, 3), r.normal(4, 3)


op = zoo.op(
    "concatenate",
    lambda a, b: jnp.concatenate([a, b], axis=1),
    lambda a, b: (jnp.concatenate([a, b], axis=1), None),
    lambda _, g: (g[:, :3], g[:, 3:]),
    two_parts,
)
op.wrong("parts swapped", "wrong order", lambda _, g: (g[:, 3:], g[:, :3]), names=("is the gradient of args[1]",))
op.wrong("second has none", "missing term", leaf(1, zero), names=("is zero",))

op = structural(
    "reflect",
    lambda x: jnp.concatenate([x[:, 2:0:-1], x], axis=1),
    lambda _, g: (g[:, 2:].at[:, 1:3].add(g[:, 1::-1]),),
    lambda r: (r.normal(3, 6),),
)
op.wrong(
    "mirrored part left out", "missing term", lambda _, g: (g[:, 2:],), names=("missing path through `x[:, 2:0:-1]`",)
)
op.wrong(
    "mirrored part not mirrored",
    "wrong order",
    lambda _, g: (jnp.asarray(g)[:, 2:].at[:, 1:3].add(g[:, :2]),),
    names=("derivative of `x[:, 2:0:-1]` is taken as 1", "derivative of `x[:, 2:0:-1]` is left out"),
)

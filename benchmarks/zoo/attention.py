"""Attention: scale, masks, shared heads, positions."""

import jax
import jax.numpy as jnp

from benchmarks.zoo.case import Zoo, leaf, negated, times, zero

zoo = Zoo("attention", ops=True)
SCALE = 5**-0.5


def weights(q, k, mask):
    s = SCALE * jnp.einsum("nqd,nkd->nqk", q, k)
    return jax.nn.softmax(jnp.where(mask, s, -jnp.inf), axis=-1)


def attention(q, k, v, mask):
    return jnp.einsum("nqk,nkd->nqd", weights(q, k, mask), v)


def attention_forward(q, k, v, mask):
    p = weights(q, k, mask)
    return jnp.einsum("nqk,nkd->nqd", p, v), (q, k, v, p)


def attention_backward(kept, g, scale=SCALE, summed=1.0, axis=-1, p_of_v=True, swapped=False):
    q, k, v, p = kept
    dp = jnp.einsum("nqd,nkd->nqk", g, v)
    ds = scale * p * (dp - summed * jnp.sum(dp * p, axis=axis, keepdims=True))
    dq, dk = jnp.einsum("nqk,nkd->nqd", ds, k), jnp.einsum("nqk,nqd->nkd", ds, q)
    dv = jnp.einsum("nqk,nqd->nkd", p if p_of_v else jnp.ones_like(p) / p.shape[-1], g)
    return (dk, dq, dv, None) if swapped else (dq, dk, dv, None)


def causal(r, n=2, t=5, d=5):
    mask = jnp.tril(jnp.ones((t, t), bool))
    return r.normal(n, t, d), r.normal(n, t, d), r.normal(n, t, d), jnp.broadcast_to(mask, (n, t, t))


def full(r, q=3, k=6):
    return r.normal(2, q, 5), r.normal(2, k, 5), r.normal(2, k, 5), jnp.ones((2, q, k), bool)


op = zoo.op("attention", attention, attention_forward, attention_backward, full)
op.right("causal", make=causal)
op.right("one key", make=lambda r: full(r, 3, 1))
op.wrong("scale left out", "missing factor", {"scale": 1.0}, names=("the factor 0.4472", "sqrt(5)"))
op.wrong(
    "softmax's sum left out",
    "missing path through the sum",
    {"summed": 0.0},
    names=("missing path through `jnp.sum(unnormalized",),
)
op.wrong("sum over queries", "wrong axis", {"axis": 1}, names=("runs over axis 1",))
op.wrong("dq and dk swapped", "transposed", {"swapped": True}, make=causal, names=("dq is the gradient of k",))
op.wrong(
    "uniform weights for dv",
    "stale residual",
    {"p_of_v": False},
    names=("constant stands in place of the factor", "averaged over axis 1"),
)
op.wrong("dk has none", "missing term", leaf(1, zero), names=("dk is zero",))
op.wrong("dv's sign", "sign", leaf(2, negated), names=("dv has the wrong sign",))
op.wrong(
    "mask forgotten",
    "missing mask",
    lambda kept, g: attention_backward((*kept[:3], weights(kept[0], kept[1], jnp.ones((2, 5, 5), bool))), g),
    make=causal,
    names=("mask mask forgotten",),
)
op.wrong(
    "one query in dk",
    "missing term",
    lambda kept, g: (
        attention_backward(kept, g)[:1]
        + attention_backward(kept, jnp.where((jnp.arange(3) > 0)[None, :, None], g, 0))[1:]
    ),
    names=("the first of the 3 along axis 1 of the output is missing in dk",),
)


def shared(q, k, v):
    """Queries [N, H, T, D], one head of keys and values [N, T, D] for all."""
    p = jax.nn.softmax(jnp.einsum("nhqd,nkd->nhqk", q, k), axis=-1)
    return jnp.einsum("nhqk,nkd->nhqd", p, v)


def shared_backward(kept, g, heads="nhqk,nhqd->nkd", first=False):
    q, k, v = kept
    p = jax.nn.softmax(jnp.einsum("nhqd,nkd->nhqk", q, k), axis=-1)
    dp = jnp.einsum("nhqd,nkd->nhqk", g, v)
    ds = p * (dp - jnp.sum(dp * p, axis=-1, keepdims=True))
    at = slice(0, 1) if first else slice(None)
    dk, dv = jnp.einsum(heads, ds[:, at], q[:, at]), jnp.einsum(heads, p[:, at], g[:, at])
    return jnp.einsum("nhqk,nkd->nhqd", ds, k), dk, dv


op = zoo.op(
    "shared keys",
    shared,
    lambda q, k, v: (shared(q, k, v), (q, k, v)),
    shared_backward,
    lambda r: (r.normal(2, 3, 4, 5, scale=0.5), r.normal(2, 4, 5), r.normal(2, 4, 5)),
)
op.wrong("first head alone", "broadcast not summed", {"first": True}, names=("only the first of the 3 along axis 1",))
op.wrong("mean over heads", "broadcast averaged", leaf(2, times(1 / 3)))


def angles(x):
    t, d = x.shape[1], x.shape[2] // 2
    turn = jnp.arange(t, dtype=x.dtype)[:, None] / (10.0 ** jnp.arange(d, dtype=x.dtype))[None]
    return jnp.cos(turn)[None], jnp.sin(turn)[None]


def rotated(x, way=1.0):
    c, s = angles(x)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * c - way * b * s, b * c + way * a * s], axis=-1)


op = zoo.op(
    "rotary positions",
    lambda x: rotated(x),
    lambda x: (rotated(x), None),
    lambda _, g: (rotated(g, -1.0),),
    lambda r: (r.normal(2, 5, 6),),
)
op.wrong(
    "turned the same way",
    "transposed",
    lambda _, g: (rotated(g),),
    names=(
        "paths through `way * b` and `way * a` with the wrong sign",
        "`jnp.sin(turn)[None]` with the wrong sign",
        "`s` with the wrong sign",
    ),
)
op.wrong("not turned", "missing factor", lambda _, g: (g,), names=("is the cotangent of the output",))


def biased(s, bias):
    """Scores [N, T, T] with one bias per distance between query and key."""
    t = s.shape[1]
    distance = jnp.arange(t)[:, None] - jnp.arange(t)[None] + t - 1
    return jax.nn.softmax(s + bias[distance][None], axis=-1)


def biased_backward(kept, g, sign=1):
    p = kept
    t = p.shape[1]
    ds = p * (g - jnp.sum(g * p, axis=-1, keepdims=True))
    distance = sign * (jnp.arange(t)[:, None] - jnp.arange(t)[None]) + t - 1
    return ds, jnp.zeros(2 * t - 1, p.dtype).at[distance].add(jnp.sum(ds, axis=0))


op = zoo.op(
    "relative positions",
    biased,
    lambda s, bias: (biased(s, bias), biased(s, bias)),
    biased_backward,
    lambda r: (r.normal(3, 4, 4), r.normal(7)),
)
op.wrong("distance reversed", "wrong index", {"sign": -1}, names=("dbias is in reverse order",))
op.wrong("bias averaged over examples", "broadcast averaged", leaf(1, times(1 / 3)))

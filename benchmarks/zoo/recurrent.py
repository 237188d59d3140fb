"""Time: recurrences, their order, their ends, and cumulative operations."""

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.zoo.case import Draw, Zoo, leaf, zero

zoo = Zoo("recurrent", ops=True)


def rnn(u, h0, x):
    def step(h, x_t):
        h = jnp.tanh(x_t + h @ u)
        return h, h

    return lax.scan(step, h0, x)[1]


def rnn_forward(u, h0, x):
    h = rnn(u, h0, x)
    return h, (u, h0, h)


def rnn_backward(k, g, transposed=True, forwards=False, steps=None, stale=False, last=False, outer=True, du_from=0):
    u, h0, h = k
    before = h if stale else jnp.concatenate([h0[None], h[:-1]])
    back = u.T if transposed else u
    g = jnp.where((jnp.arange(h.shape[0]) == h.shape[0] - 1)[:, None, None], g, 0) if last else g
    left = jnp.arange(h.shape[0]) % steps != 0 if steps else jnp.ones(h.shape[0], bool)

    def step(carried, now):
        h_t, g_t, keep = now
        dz = (g_t + carried) * (1 - h_t * h_t) if outer else g_t * (1 - h_t * h_t) + carried
        return jnp.where(keep, dz @ back, 0), dz

    dh0, dz = lax.scan(step, jnp.zeros_like(h0), (h, g, left), reverse=not forwards)
    return jnp.einsum("tni,tno->io", before[du_from:], dz[du_from:]), dh0, dz


def sequence(r: Draw):
    return r.normal(4, 4, scale=0.5), r.normal(3, 4), r.normal(6, 3, 4)


op = zoo.op("rnn", rnn, rnn_forward, rnn_backward, sequence)
op.right("one step", make=lambda r: (r.normal(4, 4), r.normal(3, 4), r.normal(1, 3, 4)))
op.right("exploding", make=lambda r: (r.normal(4, 4, scale=4), r.normal(3, 4), r.normal(9, 3, 4)))
op.wrong("forward in time", "wrong time order", {"forwards": True}, source="elixir-nx/axon#644")
op.wrong(
    "recurrent matrix not transposed",
    "transposed",
    {"transposed": False},
    source="braintrace#174",
    names=("product with `u` in the derivative of `h @ u` is transposed", "u transposed"),
)
op.wrong("cut every second step", "truncated in time", {"steps": 2}, names=("cut at every second step",))
op.wrong(
    "cut at every step",
    "missing path through h",
    {"steps": 1},
    names=("missing path through `h` of the step before", "missing carry of the backward loop"),
)
op.wrong("last step's cotangent alone", "missing term", {"last": True}, names=("only the last of the 6 along axis 0",))
op.wrong(
    "state after for before", "stale residual", {"stale": True}, names=("takes `h` in place of `h of the step before`",)
)
op.wrong("slope skipped by the carry", "missing factor", {"outer": False}, names=("skips",))
op.wrong("first step left out of du", "missing term", {"du_from": 1}, names=("in the first step",))
op.wrong("initial state has none", "missing term", leaf(1, zero), names=("dh0 is zero",))


def scan_linear(a, x):
    """h[t] = a[t] h[t-1] + x[t]"""

    def step(h, now):
        h = now[0] * h + now[1]
        return h, h

    return lax.scan(step, jnp.zeros_like(x[0]), (a, x))[1]


def linear_backward(k, g, shift=1, reverse=True):
    a, h = k
    after = jnp.concatenate([a[shift:], jnp.zeros_like(a[:shift])])

    def step(d, now):
        d = now[0] * d + now[1]
        return d, d

    d = lax.scan(step, jnp.zeros_like(g[0]), (after, g), reverse=reverse)[1]
    return d * jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]]), d


op = zoo.op(
    "linear recurrence",
    scan_linear,
    lambda a, x: (scan_linear(a, x), (a, scan_linear(a, x))),
    linear_backward,
    lambda r: (r.positive(7, 5), r.normal(7, 5)),
)
op.wrong("forward in time", "wrong time order", {"reverse": False}, source="elixir-nx/axon#644")
op.wrong(
    "factor of this step",
    "off by one in time",
    {"shift": 0},
    names=("takes `a` moved by +1 along axis 0", "takes `a` of the step before"),
)


def gates(w, h, x):
    z, c = jax.nn.sigmoid(x + h @ w["z"]), jnp.tanh(x + h @ w["c"])
    return z, c, z * h + (1 - z) * c


def minimal_gru(w, x):
    def step(h, x_t):
        h = gates(w, h, x_t)[2]
        return h, h

    return lax.scan(step, jnp.zeros_like(x[0]), x)[1]


def minimal_gru_backward(k, g, gate=1.0, leak=1.0, candidate=1.0):
    w, x, h = k
    before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])

    def step(carried, now):
        h_t, x_t, g_t = now
        z, c, _ = gates(w, h_t, x_t)
        d = g_t + carried
        dz = d * (h_t - c) * z * (1 - z)
        dc = d * (1 - z) * (1 - c * c)
        into = leak * d * z + gate * dz @ w["z"].T + candidate * dc @ w["c"].T
        return into, (dz, dc)

    dz, dc = lax.scan(step, jnp.zeros_like(x[0]), (before, x, g), reverse=True)[1]
    return {"c": jnp.einsum("tni,tno->io", before, dc), "z": jnp.einsum("tni,tno->io", before, dz)}, dz + dc


op = zoo.op(
    "gated recurrence",
    minimal_gru,
    lambda w, x: (minimal_gru(w, x), (w, x, minimal_gru(w, x))),
    minimal_gru_backward,
    lambda r: ({"c": r.normal(3, 3), "z": r.normal(3, 3)}, r.normal(5, 2, 3)),
)
op.wrong("gate taken as constant", "missing path through z", {"gate": 0.0}, names=("missing path through `z`",))
op.wrong("leak left out", "missing path through h", {"leak": 0.0}, names=("missing path through `h` in `z * h`",))
op.wrong(
    "candidate taken as constant",
    "missing path through c",
    {"candidate": 0.0},
    names=('missing path through `h` in `h @ w["c"]`', "missing path through `c`"),
)


def masked_rnn(x, mask):
    """A step where the mask is False leaves the state as it is."""

    def step(h, now):
        h = jnp.where(now[1][:, None], jnp.tanh(now[0] + 0.8 * h), h)
        return h, h

    return lax.scan(step, jnp.zeros_like(x[0]), (x, mask))[1]


def masked_rnn_backward(k, g, held=True, masked=True):
    h, mask = k

    def step(carried, now):
        h_t, m, g_t = now
        d = g_t + carried
        dx = d * (1 - h_t * h_t)
        m = m[:, None]
        return jnp.where(m, 0.8 * dx, d if held else 0), jnp.where(m, dx, 0) if masked else dx

    return lax.scan(step, jnp.zeros_like(g[0]), (h, mask, g), reverse=True)[1], None


op = zoo.op(
    "masked recurrence",
    masked_rnn,
    lambda x, mask: (masked_rnn(x, mask), (masked_rnn(x, mask), mask)),
    masked_rnn_backward,
    lambda r: (r.normal(6, 3, 4), r.mask(3, 6).T),
)
op.wrong(
    "padding stops the gradient",
    "missing path through h",
    {"held": False},
    names=("missing path through `h` in `jnp.where(now[1]",),
)
op.wrong("padding has a gradient", "missing mask", {"masked": False}, names=("where mask is False",))

# ---- cumulative


def cumsum(x):
    return jnp.cumsum(x, axis=0)


def suffix(g):
    return jnp.flip(jnp.cumsum(jnp.flip(g, 0), axis=0), 0)


op = zoo.op("cumsum", cumsum, lambda x: (cumsum(x), None), lambda _, g: (suffix(g),), lambda r: (r.normal(9, 2),))
op.right("1001 terms", make=lambda r: (r.normal(1001, 1),))
op.wrong("forward in time", "wrong time order", lambda _, g: (cumsum(g),))
op.wrong("without itself", "off by one in time", lambda _, g: (suffix(g) - g,), names=("one step early along axis 0",))


def cumprod(x):
    return jnp.cumprod(x, axis=0)


op = zoo.op(
    "cumprod",
    cumprod,
    lambda x: (cumprod(x), x),
    lambda x, g: (suffix(g * cumprod(x)) / x,),
    lambda r: (r.positive(6, 3),),
)
op.wrong(
    "not divided", "missing factor", lambda x, g: (suffix(g * cumprod(x)),), names=("multiplied by x once too often",)
)
op.wrong("forward in time", "wrong time order", lambda x, g: (cumsum(g * cumprod(x)) / x,))
op.wrong(
    "a zero in the row",
    "not finite",
    lambda x, g: (suffix(g * cumprod(x)) / x,),
    make=lambda r: (r.positive(6, 3).at[2, 1].set(0),),
    names=("not finite where x is 0",),
)


def cummax(x):
    return lax.cummax(x, axis=0)


def cummax_backward(k, g):
    x, y = k
    first = jnp.argmax(x[None] == y[:, None], axis=1)  # [T, D]: where the maximum so far was
    return (jnp.einsum("tsd,td->sd", (first[:, None] == jnp.arange(x.shape[0])[None, :, None]).astype(g.dtype), g),)


op = zoo.op("cummax", cummax, lambda x: (cummax(x), (x, cummax(x))), cummax_backward, lambda r: (r.normal(8, 3),))
op.wrong(
    "where it grows, alone",
    "broadcast not summed",
    lambda k, g: (jnp.where(k[0] == k[1], g, 0),),
    names=("diagonal of the Jacobian", "a sum is missing"),
)


def discounted(rewards):
    """y[t] = r[t] + 0.9 y[t+1]"""
    step = lambda y, r: (r + 0.9 * y,) * 2
    return lax.scan(step, jnp.zeros_like(rewards[0]), rewards, reverse=True)[1]


def smoothed(g, rate=0.9):
    return lax.scan(lambda d, g_t: (g_t + rate * d,) * 2, jnp.zeros_like(g[0]), g)[1]


op = zoo.op(
    "discounted sum",
    discounted,
    lambda r: (discounted(r), None),
    lambda _, g: (smoothed(g),),
    lambda r: (r.normal(7, 3),),
)
op.wrong("backward in time", "wrong time order", lambda _, g: (discounted(g),))
op.wrong(
    "not discounted",
    "missing factor",
    lambda _, g: (smoothed(g, 1.0),),
    names=("derivative of `0.9 * y` by `y` is taken as 1", "factor 0.9"),
)

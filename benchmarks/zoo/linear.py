"""Matrix products, networks and linear algebra."""

import jax
import jax.numpy as jnp

from benchmarks.zoo.case import Zoo, entry, leaf, negated, times, zero

zoo = Zoo("linear", ops=True)


def dense(params, x):
    return x @ params["w"] + params["b"][None]


def dense_backward(k, g, transposed_w=False, transposed_dw=False):
    params, x = k
    dw = x.T @ g
    dx = g @ (params["w"] if transposed_w else params["w"].T)
    return {"b": jnp.sum(g, axis=0), "w": dw.T if transposed_dw else dw}, dx


def square_layer(r):
    return {"b": r.normal(5), "w": r.normal(5, 5)}, r.normal(7, 5)


op = zoo.op(
    "dense",
    dense,
    lambda params, x: (dense(params, x), (params, x)),
    dense_backward,
    lambda r: ({"b": r.normal(3), "w": r.normal(5, 3)}, r.normal(7, 5)),
)
op.right("one example, one feature", make=lambda r: ({"b": r.normal(1), "w": r.normal(1, 1)}, r.normal(1, 1)))
op.right("bfloat16", make=lambda r: jax.tree.map(lambda a: a.astype(jnp.bfloat16), square_layer(r)))
op.right("two examples", make=lambda r: ({"b": r.normal(3), "w": r.normal(5, 3)}, r.normal(2, 5)))
op.wrong("w not transposed", "transposed", {"transposed_w": True}, make=square_layer, names=("params['w'] transposed",))
op.wrong("dw transposed", "transposed", {"transposed_dw": True}, make=square_layer, names=("is transposed",))
op.wrong("db is the first row", "broadcast not summed", lambda k, g: ({"b": g[0], "w": k[1].T @ g}, g @ k[0]["w"].T))
op.wrong("db averaged", "broadcast averaged", leaf(0, times(1 / 7)))
op.wrong("db zero", "missing term", leaf(0, zero), names=("is zero",))
op.wrong("dw averaged", "1/m for a sum", leaf(1, times(1 / 7)))
op.wrong(
    "one row of dw",
    "one row",
    leaf(1, lambda g: g.at[3].multiply(jnp.asarray(1.01, g.dtype))),
    names=("1.01 times what it should be at index 3 along axis 0",),
)
op.wrong(
    "first example's dx alone",
    "missing term",
    leaf(2, lambda g: jnp.where((jnp.arange(7) == 0)[:, None], g, 0)),
    names=("only the first of the 7 along axis 0",),
)


def mlp(params, x):
    return jnp.tanh(x @ params["w0"] + params["b0"][None]) @ params["w1"] + params["b1"][None]


def mlp_forward(params, x):
    h = jnp.tanh(x @ params["w0"] + params["b0"][None])
    return h @ params["w1"] + params["b1"][None], (params, x, h)


def mlp_backward(k, g, slope=True, stale=False):
    params, x, h = k
    dh = g @ params["w1"].T
    dz = dh * (1 - h * h) if slope else dh
    layer0 = {"b0": jnp.sum(dz, 0), "w0": x.T @ (dh if stale else dz)}
    return {**layer0, "b1": jnp.sum(g, 0), "w1": h.T @ g}, dz @ params["w0"].T


op = zoo.op(
    "two layers",
    mlp,
    mlp_forward,
    mlp_backward,
    lambda r: ({"b0": r.normal(6), "b1": r.normal(3), "w0": r.normal(5, 6), "w1": r.normal(6, 3)}, r.normal(7, 5)),
)
op.wrong("db1 times 0.9", "factor 0.9", leaf(1, times(0.9)), source="check_grads, measured")
op.wrong("slope of tanh left out", "missing factor", {"slope": False}, names=("derivative of `jnp.tanh(x @",))
op.wrong("dw0 from before the tanh", "stale residual", {"stale": True}, names=("derivative of `jnp.tanh(x @",))
op.wrong(
    "one entry by 1e-3",
    "one entry",
    leaf(3, entry((2, 1), 1e-3)),
    names=("1 + 0.001 times what it should be at [2, 1] alone",),
)

op = zoo.op(
    "matrix product",
    lambda a, b: a @ b,
    lambda a, b: (a @ b, (a, b)),
    lambda k, g: (g @ jnp.swapaxes(k[1], 1, 2), jnp.swapaxes(k[0], 1, 2) @ g),
    lambda r: (r.normal(3, 4, 4), r.normal(3, 4, 4)),
)
op.wrong(
    "second not transposed",
    "transposed",
    lambda k, g: (g @ k[1], jnp.swapaxes(k[0], 1, 2) @ g),
    names=("b transposed", "product with `b`"),
)
op.wrong(
    "order of factors",
    "wrong order",
    lambda k, g: (jnp.swapaxes(k[1], 1, 2) @ g, jnp.swapaxes(k[0], 1, 2) @ g),
    names=("product with `b` in the derivative of `a @ b` is transposed or in the wrong order",),
)
op.wrong(
    "batches mixed",
    "wrong index",
    lambda k, g: (g @ jnp.swapaxes(jnp.roll(k[1], 1, 0), 1, 2), jnp.swapaxes(k[0], 1, 2) @ g),
    names=("`b` moved by +1 along axis 0",),
)

op = zoo.op(
    "quadratic form",
    lambda a, x: jnp.sum(x * (x @ a.T), axis=1),
    lambda a, x: (jnp.sum(x * (x @ a.T), axis=1), (a, x)),
    lambda k, g: (jnp.einsum("n,ni,nj->ij", g, k[1], k[1]), g[:, None] * (k[1] @ k[0].T + k[1] @ k[0])),
    lambda r: (r.normal(4, 4), r.normal(5, 4)),
)
op.wrong(
    "a taken as symmetric",
    "transposed",
    lambda k, g: (jnp.einsum("n,ni,nj->ij", g, k[1], k[1]), 2 * g[:, None] * (k[1] @ k[0])),
    names=("with `a.T` transposed",),
)
op.wrong(
    "one path of x",
    "missing path through the second factor",
    lambda k, g: (jnp.einsum("n,ni,nj->ij", g, k[1], k[1]), g[:, None] * (k[1] @ k[0].T)),
    names=("missing path through `x @ a.T`",),
)

op = zoo.op(
    "tied weights",
    lambda w, x: jnp.tanh(x @ w) @ w.T,
    lambda w, x: (jnp.tanh(x @ w) @ w.T, (w, x, jnp.tanh(x @ w))),
    lambda k, g, encoder=1.0, decoder=1.0: (
        encoder * k[1].T @ (g @ k[0] * (1 - k[2] ** 2)) + decoder * g.T @ k[2],
        (g @ k[0] * (1 - k[2] ** 2)) @ k[0].T,
    ),
    lambda r: (r.normal(5, 3), r.normal(4, 5)),
)
op.wrong(
    "decoder's part alone",
    "missing path through the first use",
    {"encoder": 0.0},
    names=("missing path through `x @ w`", "missing path through `jnp.tanh(x @ w)`"),
)
op.wrong(
    "encoder's part alone",
    "missing path through the second use",
    {"decoder": 0.0},
    names=("missing path through `w.T`",),
)


def matrix(r, n=4):
    return r.normal(n, n) + 3 * jnp.eye(n, dtype=jnp.float32)


def solve_backward(k, g, transposed=True, sign=-1.0):
    a, y = k
    db = jnp.linalg.solve(a.T if transposed else a, g)
    return sign * db @ y.T, db


op = zoo.op(
    "solve",
    jnp.linalg.solve,
    lambda a, b: (jnp.linalg.solve(a, b), (a, jnp.linalg.solve(a, b))),
    solve_backward,
    lambda r: (matrix(r), r.normal(4, 3)),
)
op.wrong("not transposed", "transposed", {"transposed": False}, names=("with a transposed",))
op.wrong("sign of the matrix's", "sign", {"sign": 1.0}, names=("da has the wrong sign",))

inverse = jnp.linalg.inv
op = zoo.op(
    "inverse",
    inverse,
    lambda a: (inverse(a), inverse(a)),
    lambda y, g: (-y.T @ g @ y.T,),
    lambda r: (matrix(r),),
)
op.wrong("not transposed", "transposed", lambda y, g: (-y @ g @ y,), names=("with a transposed",))
op.wrong("one factor", "missing factor", lambda y, g: (-y.T @ g,), names=("the factor `custom_linear_solve",))


def log_determinant(a):
    return jnp.linalg.slogdet(a)[1]


op = zoo.op(
    "log determinant",
    log_determinant,
    lambda a: (log_determinant(a), inverse(a)),
    lambda y, g: (g * y.T,),
    lambda r: (matrix(r, 5),),
)
op.wrong("not transposed", "transposed", lambda y, g: (g * y,), names=("da is transposed", "with a transposed"))


def low_rank(base, a, b, x):
    return x @ base + 0.25 * ((x @ a) @ b)


op = zoo.op(
    "low rank",
    low_rank,
    lambda base, a, b, x: (low_rank(base, a, b, x), (base, a, b, x)),
    lambda k, g, scale=0.25: (
        k[3].T @ g,
        scale * (k[3].T @ (g @ k[2].T)),
        scale * ((k[3] @ k[1]).T @ g),
        g @ k[0].T + 0.25 * (g @ k[2].T) @ k[1].T,
    ),
    lambda r: (r.normal(6, 5), r.normal(6, 2), r.normal(2, 5), r.normal(4, 6)),
)
op.right(
    "second factor zero",
    make=lambda r: (r.normal(6, 5), r.normal(6, 2), jnp.zeros((2, 5), jnp.float32), r.normal(4, 6)),
)
op.wrong("scale forgotten", "missing factor", {"scale": 1.0}, names=("the factor 0.25",))
op.wrong(
    "x has the base's path only",
    "missing path through the factors",
    lambda k, g: (k[3].T @ g, 0.25 * (k[3].T @ (g @ k[2].T)), 0.25 * ((k[3] @ k[1]).T @ g), g @ k[0].T),
    names=("missing path through `x @ a`", "missing path through `(x @ a) @ b`", "missing path through `0.25"),
)
op.wrong("frozen base", "missing term", leaf(0, zero), names=("dbase is zero",))
op.wrong("sign of one factor's", "sign", leaf(2, negated), names=("db has the wrong sign",))

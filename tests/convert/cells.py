"""One step of every library's recurrent cells, as its documentation writes it, and weights of its shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fdl

N, T, I, D = 2, 3, 5, 4

sigmoid, tanh = jax.nn.sigmoid, jnp.tanh


def gru_torch(p, x, h):
    i_r, i_z, i_n = jnp.split(x @ p["weight_ih"].T + row(p, "bias_ih"), 3, axis=1)
    h_r, h_z, h_n = jnp.split(h @ p["weight_hh"].T + row(p, "bias_hh"), 3, axis=1)
    r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
    n = tanh(i_n + r * h_n)
    return (1 - z) * n + z * h


def gru_keras(p, x, h):
    x_z, x_r, x_h = jnp.split(x @ p[0] + p[2][0][None], 3, axis=1)
    h_z, h_r, h_h = jnp.split(h @ p[1] + p[2][1][None], 3, axis=1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return z * h + (1 - z) * tanh(x_h + r * h_h)


def gru_keras_before(p, x, h):
    x_z, x_r, x_h = jnp.split(x @ p[0] + p[2][None], 3, axis=1)
    u_z, u_r, u_h = jnp.split(p[1], 3, axis=1)
    z, r = sigmoid(x_z + h @ u_z), sigmoid(x_r + h @ u_r)
    return z * h + (1 - z) * tanh(x_h + (r * h) @ u_h)


def dense(p, x):
    y = x @ p["kernel"]
    return y + p["bias"][None] if "bias" in p else y


def gru_flax(p, x, h):
    r = sigmoid(dense(p["ir"], x) + dense(p["hr"], h))
    z = sigmoid(dense(p["iz"], x) + dense(p["hz"], h))
    n = tanh(dense(p["in"], x) + r * dense(p["hn"], h))
    return (1 - z) * n + z * h


def gru_nnx(p, x, h):
    x_r, x_z, x_n = jnp.split(dense(p["dense_i"], x), 3, axis=1)
    h_r, h_z, h_n = jnp.split(dense(p["dense_h"], h), 3, axis=1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    return (1 - z) * tanh(x_n + r * h_n) + z * h


def gru_equinox(p, x, h):
    i_r, i_z, i_n = jnp.split(x @ p["weight_ih"].T + row(p, "bias"), 3, axis=1)
    h_r, h_z, h_n = jnp.split(h @ p["weight_hh"].T, 3, axis=1)
    reset, inp = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
    new = tanh(i_n + reset * (h_n + row(p, "bias_n")))
    return new + inp * (h - new)


def gru_fdl(p, x, h):
    variant = "reset_after" if "b_s" in p else "full"
    return fdl.ops.gru(p, x[:, None], {"h": h}, variant=variant)[1]["h"]


def row(p, name):
    return p[name][None] if name in p else jnp.zeros((1, 1))


def lstm(gates, c):
    i, f, g, o = gates
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return jnp.stack([sigmoid(o) * tanh(c), c])


def lstm_torch(p, x, hc):
    a = x @ p["weight_ih"].T + row(p, "bias_ih") + hc[0] @ p["weight_hh"].T + row(p, "bias_hh")
    return lstm(jnp.split(a, 4, axis=1), hc[1])


def lstm_keras(p, x, hc):
    return lstm(jnp.split(x @ p[0] + hc[0] @ p[1] + p[2][None], 4, axis=1), hc[1])


def lstm_flax(p, x, hc, forget="if"):
    return lstm((dense(p[f"i{g}"], x) + dense(p[f"h{g[0]}"], hc[0]) for g in ("i", forget[1:], "g", "o")), hc[1])


def lstm_nnx(p, x, hc):
    return lstm_flax(p, x, hc, "if_")


def lstm_nnx_optimized(p, x, hc):
    return lstm(jnp.split(dense(p["dense_i"], x) + dense(p["dense_h"], hc[0]), 4, axis=1), hc[1])


def lstm_equinox(p, x, hc):
    return lstm(jnp.split(x @ p["weight_ih"].T + hc[0] @ p["weight_hh"].T + row(p, "bias"), 4, axis=1), hc[1])


def lstm_fdl(p, x, hc):
    state = fdl.ops.lstm(p, x[:, None], {"h": hc[0], "c": hc[1]}, peephole="p" in p)[1]
    return jnp.stack([state["h"], state["c"]])


def rnn_torch(p, x, h):
    return tanh(x @ p["weight_ih"].T + row(p, "bias_ih") + h @ p["weight_hh"].T + row(p, "bias_hh"))


def rnn_keras(p, x, h):
    return tanh(x @ p[0] + h @ p[1] + p[2][None])


def rnn_flax(p, x, h):
    return tanh(dense(p["i"], x) + dense(p["h"], h))


def rnn_nnx(p, x, h):
    return tanh(dense(p["dense_i"], x) + dense(p["dense_h"], h))


def rnn_fdl(p, x, h):
    return fdl.ops.rnn(p, x[:, None], {"h": h})[1]["h"]


def torch_shapes(gates):
    return {"weight_ih": (gates * D, I), "weight_hh": (gates * D, D), "bias_ih": (gates * D,), "bias_hh": (gates * D,)}


def gates_of(inputs, hidden, *, biased):
    kernel = {"kernel": (I, D)}
    shapes = {name: kernel for name in inputs} | {name: {"kernel": (D, D)} for name in hidden}
    return {name: shape | ({"bias": (D,)} if name in biased else {}) for name, shape in shapes.items()}


def joined(gates, *, biased):
    shapes = {"dense_i": {"kernel": (I, gates * D)}, "dense_h": {"kernel": (D, gates * D)}}
    return shapes | {biased: shapes[biased] | {"bias": (gates * D,)}}


def fdl_shapes(gates):
    return {"w": (I, gates * D), "u": (D, gates * D), "b": (gates * D,)}


# cell -> layout -> (one step, shapes of its weights); the second form of a layout has a name of its own
CELLS: dict[str, dict[str, tuple[Any, Any]]] = {
    "gru": {
        "fdl": (gru_fdl, fdl_shapes(3) | {"b_s": (D,)}),
        "torch_cell": (gru_torch, torch_shapes(3)),
        "keras": (gru_keras, [(I, 3 * D), (D, 3 * D), (2, 3 * D)]),
        "flax": (gru_flax, gates_of(("ir", "iz", "in"), ("hr", "hz", "hn"), biased=("ir", "iz", "in", "hn"))),
        "nnx": (gru_nnx, joined(3, biased="dense_i")),
        "equinox": (gru_equinox, {"weight_ih": (12, I), "weight_hh": (12, D), "bias": (12,), "bias_n": (D,)}),
    },
    "gru before": {
        "fdl": (gru_fdl, fdl_shapes(3)),
        "keras": (gru_keras_before, [(I, 3 * D), (D, 3 * D), (3 * D,)]),
    },
    "lstm": {
        "fdl": (lstm_fdl, fdl_shapes(4)),
        "torch_cell": (lstm_torch, torch_shapes(4)),
        "keras": (lstm_keras, [(I, 4 * D), (D, 4 * D), (4 * D,)]),
        "flax": (lstm_flax, gates_of(("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho"), biased=("hi", "hf", "hg", "ho"))),
        "nnx": (lstm_nnx, gates_of(("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho"), biased=("hi", "hf", "hg", "ho"))),
        "nnx_optimized": (lstm_nnx_optimized, joined(4, biased="dense_h")),
        "equinox": (lstm_equinox, {"weight_ih": (16, I), "weight_hh": (16, D), "bias": (16,)}),
    },
    "rnn": {
        "fdl": (rnn_fdl, fdl_shapes(1)),
        "torch_cell": (rnn_torch, torch_shapes(1)),
        "keras": (rnn_keras, [(I, D), (D, D), (D,)]),
        "flax": (rnn_flax, gates_of(("i",), ("h",), biased=("i",))),
        "nnx": (rnn_nnx, joined(1, biased="dense_i")),
    },
}  # fmt: skip


def drawn(shapes: Any, seed: int = 0, dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(seed)
    is_shape = lambda x: isinstance(x, tuple)
    return jax.tree.map(lambda shape: 0.7 * rng.standard_normal(shape).astype(dtype), shapes, is_leaf=is_shape)


def close(got: Any, want: Any, rtol: float = 1e-12) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(1, np.abs(b).max()))

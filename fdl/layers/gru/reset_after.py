"""The gated recurrent unit of cuDNN, PyTorch and Keras: the reset comes after the product.

    z  = g(x w_z + h u_z + b_z)            update gate: the share of the state that is kept
    r  = g(x w_r + h u_r + b_r)            reset gate
    s  = h u_n + b_s
    n  = f(x w_n + b_n + r * s)            candidate
    h' = z * h + (1 - z) * n

All three products take h, so they are one. Note that z means the opposite of the z in gated.py.

Backward, with products of equal shapes taken entry by entry:

    dn = dh' (1 - z) f'(n)    ds = dn r              dz = dh' (h - n) g'(z)          dr = dn s g'(r)
    dh = dh' z + dz u_z^T + dr u_r^T + ds u_n^T
    du_z = h^T dz             du_r = h^T dr          du_n = h^T ds                   db_s = sum of ds, db of the others

Source: Cho et al. 2014, first version of the preprint; Chetlur et al. (cuDNN); fdl.convert has the layouts of the peers.
"""

import functools

import jax.numpy as jnp

from fdl.layers._recurrent.cell import Cell, curve, row, textbook


@functools.cache
def reset_after(gate: str, activation: str) -> Cell:
    g, f = curve("gru", "gate", gate), curve("gru", "activation", activation)
    plain_g, plain_f = textbook(gate), textbook(activation)

    def shapes(inputs, features):
        return {"w": (inputs, 3 * features), "u": (features, 3 * features), "b": (3 * features,), "b_s": (features,)}

    def equation(params, state, x):
        h = state["h"]
        a = (x @ params["w"] if "w" in params else x) + row(params["b"])
        x_z, x_r, x_n = jnp.split(a, 3, axis=1)
        h_z, h_r, h_n = jnp.split(h @ params["u"], 3, axis=1)
        z, r = plain_g(x_z + h_z), plain_g(x_r + h_r)
        n = plain_f(x_n + r * (h_n + row(params["b_s"])))
        return {"h": z * h + (1 - z) * n}

    def split(params):
        return {name: params[name] for name in ("u", "b", "b_s")}

    def step(weights, state, a):
        h = state["h"]
        size = h.shape[1]
        a, p = a + row(weights["b"]), h @ weights["u"]
        gate, gate_kept = g(a[:, : 2 * size] + p[:, : 2 * size])
        z, r = gate[:, :size], gate[:, size:]
        s = p[:, 2 * size :] + row(weights["b_s"])
        n, n_kept = f(a[:, 2 * size :] + r * s)
        return {"h": z * h + (1 - z) * n}, (z, r, gate_kept, s, n, n_kept)

    def back(flipped, state, kept, dstate):
        h, dh = state["h"], dstate["h"]
        z, r, gate_kept, s, n, n_kept = kept
        dn = dh * (1 - z) * f.slope(n, n_kept)
        slope = g.slope(jnp.concatenate([z, r], axis=1), gate_kept)
        dgate = jnp.concatenate([dh * (h - n), dn * s], axis=1) * slope
        ds = dn * r
        through = jnp.concatenate([dgate, ds], axis=1)
        return {"h": dh * z + through @ flipped["u"]}, (jnp.concatenate([dgate, dn], axis=1), through)

    def gradients(state, kept, errors):
        outer, through = errors
        size = state["h"].shape[1]
        db_s = jnp.sum(through[:, 2 * size :], axis=0)
        return {"u": state["h"].T @ through, "b": jnp.sum(outer, axis=0), "b_s": db_s}, outer

    return Cell("gru", shapes, equation, split, step, back, gradients)

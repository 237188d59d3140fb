"""CARU, the content-adaptive recurrent unit: the weight of the content itself, x_n, scales the update.

    x_n = x w_n + b_n
    n   = f(h u_n + c_n + x_n)
    z   = g(h u_z + c_z + x w_z + b_z)
    l   = g(x_n) * z
    h'  = (1 - l) * h + l * n

The first step has no past to weigh: h' = x_n, or with `first="tanh"` h' = f(x_n), as in the author's code. The state says in
"started" whether there was a step: 0 at the beginning and after a reset, then 1.

Backward, with products of equal shapes taken entry by entry:

    dn = dh' l f'(n)        dl = dh' (n - h)        dz = dl g(x_n) g'(z)        dx_n = dn + dl z g'(x_n)
    dh = dh' (1 - l) + dn u_n^T + dz u_z^T          du = h^T [dn, dz]           dc = sum of [dn, dz], db = sum of [dx_n, dz]

and at a first step dx_n = dh', or dh' f'(x_n), alone. Source: Chan et al. 2020, eq. 3.
"""

import functools

import jax.numpy as jnp

from fdl.layers._recurrent.cell import Cell, curve, row, textbook


@functools.cache
def content_adaptive(gate: str, activation: str, first: str) -> Cell:
    g, f = curve("gru", "gate", gate), curve("gru", "activation", activation)
    plain_g, plain_f = textbook(gate), textbook(activation)

    def shapes(inputs, features):
        wide = 2 * features
        return {"w": (inputs, wide), "u": (features, wide), "b": (wide,), "c": (wide,)}

    def equation(params, state, x):
        h, started = state["h"], state["started"]
        a = (x @ params["w"] if "w" in params else x) + row(params["b"])
        x_n, x_z = jnp.split(a, 2, axis=1)
        h_n, h_z = jnp.split(h @ params["u"] + row(params["c"]), 2, axis=1)
        n, z = plain_f(h_n + x_n), plain_g(h_z + x_z)
        share = plain_g(x_n) * z
        new = (1 - share) * h + share * n
        beginning = plain_f(x_n) if first == "tanh" else x_n
        return {"h": jnp.where(started > 0, new, beginning), "started": jnp.ones_like(started)}

    def split(params):
        return {name: params[name] for name in ("u", "b", "c")}

    def step(weights, state, a):
        h, started = state["h"], state["started"]
        x_n, x_z = jnp.split(a + row(weights["b"]), 2, axis=1)
        h_n, h_z = jnp.split(h @ weights["u"] + row(weights["c"]), 2, axis=1)
        (n, n_kept), (z, z_kept), (weight, weight_kept) = f(h_n + x_n), g(h_z + x_z), g(x_n)
        beginning, beginning_kept = f(x_n) if first == "tanh" else (x_n, ())
        share = weight * z
        after = jnp.where(started > 0, (1 - share) * h + share * n, beginning)
        kept = (n, n_kept, z, z_kept, weight, weight_kept, beginning, beginning_kept)
        return {"h": after, "started": jnp.ones_like(started)}, kept

    def back(flipped, state, kept, dstate):
        h, started, dh = state["h"], state["started"] > 0, dstate["h"]
        n, n_kept, z, z_kept, weight, weight_kept, beginning, beginning_kept = kept
        of_first = dh * f.slope(beginning, beginning_kept) if first == "tanh" else dh
        of_first = jnp.where(started, jnp.zeros_like(dh), of_first)
        dh = jnp.where(started, dh, jnp.zeros_like(dh))
        dn = dh * weight * z * f.slope(n, n_kept)
        dshare = dh * (n - h)
        dz = dshare * weight * g.slope(z, z_kept)
        dx_n = dn + dshare * z * g.slope(weight, weight_kept) + of_first
        through = jnp.concatenate([dn, dz], axis=1)
        before = {"h": dh * (1 - weight * z) + through @ flipped["u"], "started": jnp.zeros_like(dh)}
        return before, (through, dx_n)

    def gradients(state, kept, errors):
        through, dx_n = errors
        outer = jnp.concatenate([dx_n, through[:, dx_n.shape[1] :]], axis=1)
        return {"u": state["h"].T @ through, "b": jnp.sum(outer, axis=0), "c": jnp.sum(through, axis=0)}, outer

    return Cell("gru", shapes, equation, split, step, back, gradients, state=("h", "started"))

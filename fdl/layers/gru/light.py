"""LiGRU: one gate, no reset; a rectified candidate, which batch normalization of the input part keeps from exploding.

    z  = g(x w_z + h u_z)             the share of the state that is kept
    n  = f(x w_n + h u_n)             candidate; f is relu
    h' = z * h + (1 - z) * n

Backward, with products of equal shapes taken entry by entry:

    dn = dh' (1 - z) f'(n)            dz = dh' (h - n) g'(z)
    dh = dh' z + dz u_z^T + dn u_n^T  du = h^T [dz, dn]

There is no bias: batch normalization over examples and time, applied to x w before the loop, has one. With f = softplus this
is the geometric-mean approximation of bayesian.py. Source: Ravanelli et al. 2018, eq. 6 to 8.
"""

import functools

import jax.numpy as jnp

from fdl.layers._recurrent.cell import Cell, curve, textbook


@functools.cache
def light(gate: str, activation: str) -> Cell:
    g, f = curve("gru", "gate", gate), curve("gru", "activation", activation)
    plain_g, plain_f = textbook(gate), textbook(activation)

    def equation(params, state, x):
        h = state["h"]
        a = (x @ params["w"] if "w" in params else x) + h @ params["u"]
        a_z, a_n = jnp.split(a, 2, axis=1)
        z = plain_g(a_z)
        return {"h": z * h + (1 - z) * plain_f(a_n)}

    def step(weights, state, a):
        h = state["h"]
        a_z, a_n = jnp.split(a + h @ weights["u"], 2, axis=1)
        (z, z_kept), (n, n_kept) = g(a_z), f(a_n)
        return {"h": z * h + (1 - z) * n}, (z, z_kept, n, n_kept)

    def back(flipped, state, kept, dstate):
        h, dh = state["h"], dstate["h"]
        z, z_kept, n, n_kept = kept
        dz = dh * (h - n) * g.slope(z, z_kept)
        dn = dh * (1 - z) * f.slope(n, n_kept)
        errors = jnp.concatenate([dz, dn], axis=1)
        return {"h": dh * z + errors @ flipped["u"]}, errors

    def gradients(state, kept, errors):
        return {"u": state["h"].T @ errors}, errors

    return Cell("gru", shapes, equation, split, step, back, gradients)


def shapes(inputs: int, features: int) -> dict[str, tuple[int, ...]]:
    return {"w": (inputs, 2 * features), "u": (features, 2 * features)}


def split(params):
    return {"u": params["u"]}

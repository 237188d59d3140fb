"""The gated recurrent unit of Cho et al. 2014, its three reductions, and the minimal gated unit: the reset comes before the product.

    z  = g(x w_z + h u_z + b_z)            update gate: the share of the state that is new
    r  = g(x w_r + h u_r + b_r)            reset gate
    n  = f(x w_n + (r * h) u_n + b_n)      candidate
    h' = (1 - z) * h + z * n

| variant | gates from         | variant | one gate, z = r, from |
|---------|--------------------|---------|-----------------------|
| full    | x, h and a bias    | mgu     | x, h and a bias       |
| type1   | h and a bias       | mgu1    | h and a bias          |
| type2   | h alone            | mgu2    | h alone               |
| type3   | a bias alone       | mgu3    | a bias alone          |

Backward. h' depends on h directly and through n, z and r; q = r * h stands between r and n:

    dn = dh' z f'(n)          dq = dn u_n^T          dz = dh' (n - h) g'(z)          dr = dq h g'(r)
    dh = dh' (1 - z) + dq r + dz u_z^T + dr u_r^T
    du_n = q^T dn             du_z = h^T dz          du_r = h^T dr                   db = sum of the errors

where * and products of equal shapes are taken entry by entry. With one gate dz and dr add up in it.
Source: Cho et al. 2014, eq. 5 to 8; Dey & Salem 2017 (reductions); Zhou et al. 2016 (minimal gated unit).
"""

import functools

import jax.numpy as jnp

from fdl.layers._recurrent.cell import Cell, curve, row, textbook

FED = {"full": "xhb", "type1": "hb", "type2": "h", "type3": "b"}
FED |= {f"mgu{name.removeprefix('full').removeprefix('type')}": fed for name, fed in FED.items()}


@functools.cache
def gated(variant: str, gate: str, activation: str) -> Cell:
    fed = FED[variant]
    gates = 1 if variant.startswith("mgu") else 2
    g, f = curve("gru", "gate", gate), curve("gru", "activation", activation)
    plain_g, plain_f = textbook(gate), textbook(activation)

    def shapes(inputs, features):
        wide = (gates + 1) * features
        return {
            "w": (inputs, wide if "x" in fed else features),
            "u": (features, wide if "h" in fed else features),
            "b": (wide if "b" in fed else features,),
        }

    def parts(params, features):
        """The columns of each parameter: of the gates, of the candidate."""
        return {name: (v[..., :-features], v[..., -features:]) for name, v in params.items()}

    def equation(params, state, x):
        h = state["h"]
        part = parts(params, h.shape[1])
        a = jnp.zeros((x.shape[0], gates * h.shape[1]), x.dtype)
        w, x_n = part.get("w", (None, None)), None
        if "x" in fed:
            a = a + (x @ w[0] if "w" in part else x[:, : -h.shape[1]])
        x_n = x @ w[1] if "w" in part else x[:, -h.shape[1] :]
        if "h" in fed:
            a = a + h @ part["u"][0]
        if "b" in fed:
            a = a + row(part["b"][0])
        z, r = plain_g(a[:, : h.shape[1]]), plain_g(a[:, -h.shape[1] :])
        n = plain_f(x_n + (r * h) @ part["u"][1] + row(part["b"][1]))
        return {"h": (1 - z) * h + z * n}

    def split(params):
        part = parts({name: params[name] for name in ("u", "b")}, params["u"].shape[0])
        weights = {"u_n": part["u"][1], "b_n": part["b"][1]}
        weights |= {"u_g": part["u"][0]} if "h" in fed else {}
        return weights | ({"b_g": part["b"][0]} if "b" in fed else {})

    def step(weights, state, a):
        h = state["h"]
        size = h.shape[1]
        summands = [a[:, :-size]] if "x" in fed else []
        summands += [h @ weights["u_g"]] if "h" in fed else []
        summands += [row(weights["b_g"])] if "b" in fed else []
        gate, gate_kept = g(jnp.broadcast_to(sum(summands[1:], summands[0]), (h.shape[0], gates * size)))
        z, r = gate[:, :size], gate[:, -size:]
        n, n_kept = f(a[:, -size:] + (r * h) @ weights["u_n"] + row(weights["b_n"]))
        return {"h": (1 - z) * h + z * n}, (gate, gate_kept, n, n_kept)

    def back(flipped, state, kept, dstate):
        h, dh = state["h"], dstate["h"]
        gate, gate_kept, n, n_kept = kept
        size = h.shape[1]
        z, r = gate[:, :size], gate[:, -size:]
        dn = dh * z * f.slope(n, n_kept)
        dq = dn @ flipped["u_n"]
        of_z, of_r = dh * (n - h), dq * h
        dgate = (of_z + of_r if gates == 1 else jnp.concatenate([of_z, of_r], axis=1)) * g.slope(gate, gate_kept)
        dh = dh * (1 - z) + dq * r
        if "h" in fed:
            dh = dh + dgate @ flipped["u_g"]
        return {"h": dh}, jnp.concatenate([dgate, dn], axis=1)

    def gradients(state, kept, errors):
        h, gate = state["h"], kept[0]
        size = h.shape[1]
        dn, q = errors[:, -size:], gate[:, -size:] * h
        du_n = q.T @ dn
        du = jnp.concatenate([h.T @ errors[:, :-size], du_n], axis=1) if "h" in fed else du_n
        db = jnp.sum(errors, axis=0) if "b" in fed else jnp.sum(dn, axis=0)
        return {"u": du, "b": db}, errors if "x" in fed else dn

    return Cell("gru", shapes, equation, split, step, back, gradients)

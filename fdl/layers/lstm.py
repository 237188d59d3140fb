"""Long short-term memory: a cell that is added to, so that its error does not have to pass through a matrix at every step.

    i  = g(x w_i + h u_i + b_i [+ p_i c])         input gate
    r  = g(x w_r + h u_r + b_r [+ p_r c])         forget gate
    n  = f(x w_n + h u_n + b_n)                   candidate
    c' = r * c + i * n
    o  = g(x w_o + h u_o + b_o [+ p_o c'])        output gate
    h' = o * f(c')

The columns of w, u and b are in this order: i, r, n, o. The terms in brackets are peepholes: p [3, D] for i, r and o.

Backward, with products of equal shapes taken entry by entry; the error of the cell has two ways in, dc' from the next step and
through h':

    do = dh' f(c') g'(o)      dc = dc' + dh' o f'(c') [+ do p_o]
    di = dc n g'(i)           dr = dc c g'(r)           dn = dc i f'(n)
    dc_before = dc r [+ di p_i + dr p_r]                dh_before = [di, dr, dn, do] u^T
    dp = [sum di c, sum dr c, sum do c']

Shapes: x [N, T, I], w [I, 4D], u [D, 4D], b [4D], y [N, T, D]; the state is {"h", "c"}. The bias of the forget gate starts at
`forget_bias`. Source: Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000 (forget gate, bias); Gers & Schmidhuber
2000 (peepholes).

    >>> params, _ = fdl.lstm(4).init(jax.random.key(0), (7, 3))
    >>> y, last = fdl.ops.lstm(params, jnp.ones((2, 7, 3), jnp.float32))
    >>> y.shape, sorted(last)
    ((2, 7, 4), ['c', 'h'])
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from fdl.errors import require_bool, require_number
from fdl.layer import Layer, bind
from fdl.layers._recurrent import engine
from fdl.layers._recurrent.cell import Cell, curve, glorot_uniform, orthogonal, row, textbook
from fdl.layers._recurrent.layer import recurrent, weights
from fdl.op import Op


@functools.cache
def cell(peephole: bool, gate: str, activation: str) -> Cell:
    g, f = curve("lstm", "gate", gate), curve("lstm", "activation", activation)
    plain_g, plain_f = textbook(gate), textbook(activation)

    def shapes(inputs, features):
        plain = {"w": (inputs, 4 * features), "u": (features, 4 * features), "b": (4 * features,)}
        return plain | ({"p": (3, features)} if peephole else {})

    def equation(params, state, x):
        h, c = state["h"], state["c"]
        a = (x @ params["w"] if "w" in params else x) + h @ params["u"] + row(params["b"])
        a_i, a_r, a_n, a_o = jnp.split(a, 4, axis=1)
        p_i, p_r, p_o = params["p"][:, None] if peephole else (jnp.zeros((1, h.shape[1]), h.dtype),) * 3
        i, r, n = plain_g(a_i + p_i * c), plain_g(a_r + p_r * c), plain_f(a_n)
        c = r * c + i * n
        return {"h": plain_g(a_o + p_o * c) * plain_f(c), "c": c}

    def split(params):
        weights = {name: params[name] for name in ("u", "b")}
        return weights | ({f"p_{gate}": p for gate, p in zip("iro", params["p"], strict=True)} if peephole else {})

    def step(weights, state, a):
        h, c = state["h"], state["c"]
        a_i, a_r, a_n, a_o = jnp.split(a + h @ weights["u"] + row(weights["b"]), 4, axis=1)
        if peephole:
            a_i, a_r = a_i + row(weights["p_i"]) * c, a_r + row(weights["p_r"]) * c
        (i, i_kept), (r, r_kept), (n, n_kept) = g(a_i), g(a_r), f(a_n)
        c = r * c + i * n
        (o, o_kept), (out, out_kept) = g(a_o + row(weights["p_o"]) * c if peephole else a_o), f(c)
        kept = (i, r, n, o, out), (i_kept, r_kept, n_kept, o_kept, out_kept), (c if peephole else ())
        return {"h": o * out, "c": c}, kept

    def back(flipped, state, kept, dstate):
        (i, r, n, o, out), (i_kept, r_kept, n_kept, o_kept, out_kept), _ = kept
        dh, c = dstate["h"], state["c"]
        do = dh * out * g.slope(o, o_kept)
        dc = dstate["c"] + dh * o * f.slope(out, out_kept)
        dc = dc + do * row(flipped["p_o"]) if peephole else dc
        di, dr = dc * n * g.slope(i, i_kept), dc * c * g.slope(r, r_kept)
        errors = jnp.concatenate([di, dr, dc * i * f.slope(n, n_kept), do], axis=1)
        dc = dc * r
        dc = dc + di * row(flipped["p_i"]) + dr * row(flipped["p_r"]) if peephole else dc
        return {"h": errors @ flipped["u"], "c": dc}, errors

    def gradients(state, kept, errors):
        dparams = {"u": state["h"].T @ errors, "b": jnp.sum(errors, axis=0)}
        if peephole:
            di, dr, _, do = jnp.split(errors, 4, axis=1)
            seen = ((di, state["c"]), (dr, state["c"]), (do, kept[2]))
            dparams["p"] = jnp.stack([jnp.sum(error * c, axis=0) for error, c in seen])
        return dparams, errors

    return Cell("lstm", shapes, equation, split, step, back, gradients, state=("h", "c"))


def equation(
    params,
    x,
    state=None,
    mask=None,
    resets=None,
    *,
    peephole=False,
    gate="sigmoid",
    activation="tanh",
    reverse=False,
    truncate=None,
    keep="gates",
):
    run = {"reverse": reverse, "truncate": truncate, "keep": keep}
    return engine.equation(cell(peephole, gate, activation), params, x, state, mask, resets, **run)


op = Op(equation, *engine.passes(cell), name="lstm")


def _init(key: Any, inputs: int, dtype: Any, *, forget_bias: float, **drawn: Any) -> dict:
    params = weights(key, inputs, dtype, **drawn)
    features = params["u"].shape[0]
    return params | {"b": params["b"].at[features : 2 * features].set(forget_bias)}


def lstm(
    features: int,
    return_final: bool = False,
    *,
    forget_bias: float = 1.0,
    peephole: bool = False,
    gate: str = "sigmoid",
    activation: str = "tanh",
    reverse: bool = False,
    truncate: int | None = None,
    keep: str = "gates",
    stateful: int | None = None,
    w_init: Callable = glorot_uniform,
    u_init: Callable = orthogonal,
) -> Layer:
    """[N, T, I] -> [N, T, D], or with return_final [N, D]; params {"w" [I, 4D], "u" [D, 4D], "b" [4D]}, peepholes "p" [3, D].

    Options as in `gru`.

        >>> params, _ = fdl.lstm(4).init(jax.random.key(0), (7, 3))
        >>> params["w"].shape, params["u"].shape
        ((3, 16), (4, 16))
    """
    require_bool("lstm", "peephole", peephole)
    require_number("lstm", "forget_bias", forget_bias, -100, 100, remedy="1 keeps the cell's error alive at the start")
    made = cell(peephole, gate, activation)
    options = {"peephole": peephole, "gate": gate, "activation": activation}
    bound = op.bind(**options, reverse=reverse, truncate=truncate, keep=keep)
    drawn = {"cell": made, "features": features, "w_init": w_init, "u_init": u_init}
    init = bind(_init, forget_bias=float(forget_bias), **drawn)
    return recurrent(bound, made, features, return_final=return_final, stateful=stateful, init=init)

"""The simple recurrent layer (Elman): h[t] = f(x[t] w + h[t-1] u + b).

Backward, with dh[t] the error of all that h[t] reaches (_recurrent/engine.py):

    da[t]   = dh[t] f'(h[t])                      entry by entry
    dh[t-1] = dy[t-1] + da[t] u^T                 back through the same weights at every step: (u^T)^k after k of them,
                                                  which vanishes or explodes with the singular values of u diag(f')
    dw = sum_t x[t]^T da[t]      du = sum_t h[t-1]^T da[t]      db = sum_t da[t]      dx[t] = da[t] w^T

Shapes: x [N, T, I], w [I, D], u [D, D], b [D], y [N, T, D]. Source: Elman 1990; Werbos 1990.

    >>> params, _ = fdl.rnn(4).init(jax.random.key(0), (7, 3))
    >>> y, last = fdl.ops.rnn(params, jnp.ones((2, 7, 3), jnp.float32))
    >>> y.shape, last["h"].shape
    ((2, 7, 4), (2, 4))
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp

from fdl.layer import Layer, bind
from fdl.layers._recurrent import engine
from fdl.layers._recurrent.cell import Cell, curve, glorot_uniform, orthogonal, row, textbook
from fdl.layers._recurrent.layer import recurrent, weights
from fdl.op import Op


@functools.cache
def cell(activation: str) -> Cell:
    f, plain_f = curve("rnn", "activation", activation), textbook(activation)

    def shapes(inputs, features):
        return {"w": (inputs, features), "u": (features, features), "b": (features,)}

    def plain(params, state, x):
        a = x @ params["w"] if "w" in params else x
        return {"h": plain_f(a + state["h"] @ params["u"] + row(params["b"]))}

    def split(params):
        return {name: params[name] for name in ("u", "b")}

    def step(weights, state, a):
        h, kept = f(a + state["h"] @ weights["u"] + row(weights["b"]))
        return {"h": h}, (h, kept)

    def back(flipped, state, kept, dstate):
        da = dstate["h"] * f.slope(*kept)
        return {"h": da @ flipped["u"]}, da

    def gradients(state, kept, da):
        return {"u": state["h"].T @ da, "b": jnp.sum(da, axis=0)}, da

    return Cell("rnn", shapes, plain, split, step, back, gradients)


def equation(
    params, x, state=None, mask=None, resets=None, *, activation="tanh", reverse=False, truncate=None, keep="gates"
):
    run = {"reverse": reverse, "truncate": truncate, "keep": keep}
    return engine.equation(cell(activation), params, x, state, mask, resets, **run)


op = Op(equation, *engine.passes(cell), name="rnn")


def rnn(
    features: int,
    activation: str = "tanh",
    return_final: bool = False,
    *,
    reverse: bool = False,
    truncate: int | None = None,
    keep: str = "gates",
    stateful: int | None = None,
    w_init: Callable = glorot_uniform,
    u_init: Callable = orthogonal,
) -> Layer:
    """[N, T, I] -> [N, T, D], or with return_final [N, D]; params {"w" [I, D], "u" [D, D], "b" [D]}. Options as in `gru`.

    >>> params, _ = fdl.rnn(4).init(jax.random.key(0), (7, 3))
    >>> params["w"].shape, params["u"].shape
    ((3, 4), (4, 4))
    """
    made = cell(activation)
    bound = op.bind(activation=activation, reverse=reverse, truncate=truncate, keep=keep)
    init = bind(weights, cell=made, features=features, w_init=w_init, u_init=u_init)
    return recurrent(bound, made, features, return_final=return_final, stateful=stateful, init=init)

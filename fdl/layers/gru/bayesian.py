"""LiBRU, the light Bayesian recurrent unit: h is the probability that a feature is present, updated by Bayes' rule.

On probabilities, with l = log(h + 1e-11):

    z  = sigmoid(x w_z + l u_z)
    c  = sigmoid(x w_c + l u_c)
    h' = z * h + (1 - z) * c

On log-probabilities (h is the logarithm of the above; the same unit, without the small number):

    z  = sigmoid(x w_z + h u_z)
    c  = log sigmoid(x w_c + h u_c)
    h' = log(z exp(h) + (1 - z) exp(c))

The authors' published code has c = softplus(...) there, which is another function: variant "libru_softplus". The geometric
mean in place of the arithmetic one, h' = z h + (1 - z) softplus(x w_c + h u_c), is variant "ligru" with activation "softplus".

Backward on probabilities, with products of equal shapes taken entry by entry:

    dz = dh' (h - c) z (1 - z)        dc = dh' (1 - z) c (1 - c)        dl = [dz, dc] u^T
    dh = dh' z + dl / (h + 1e-11)     du = l^T [dz, dc]

On logarithms, with s = exp(log z + h - h'), the share of the old state in the new one:

    dz = dh' (s - z)                  dc = dh' (1 - s) c', c' = 1 - exp(c), or for softplus 1 - exp(-c)
    dh = dh' s + [dz, dc] u^T         du = h^T [dz, dc]

for log z has the slope 1 - z and log(1 - z) the slope -z: s (1 - z) - (1 - s) z = s - z. On probabilities a state starts from 0,
on logarithms from log 1e-11. Source: Bittar & Garner 2021, eq. 19.
"""

import functools
import math

import jax
import jax.numpy as jnp

from fdl.layers._recurrent.cell import Cell
from fdl.layers.gru.light import shapes, split

SMALL = 1e-11


def _pre(params, x, l):
    return jnp.split((x @ params["w"] if "w" in params else x) + l @ params["u"], 2, axis=1)


def _share(a):
    return 1 / (1 + jnp.exp(-a))


def _probability_equation(params, state, x):
    h = state["h"]
    a_z, a_c = _pre(params, x, jnp.log(h + SMALL))
    return {"h": _share(a_z) * h + _share(-a_z) * _share(a_c)}


def _probability_step(weights, state, a):
    h = state["h"]
    pre = a + jnp.log(h + SMALL) @ weights["u"]
    # small probabilities count, so 1 - z and 1 - c must not cancel
    (z, c), (not_z, not_c) = (jnp.split(jax.lax.logistic(sign * pre), 2, axis=1) for sign in (1, -1))
    return {"h": z * h + not_z * c}, (z, not_z, c, not_c)


def _probability_back(flipped, state, kept, dstate):
    h, dh = state["h"], dstate["h"]
    z, not_z, c, not_c = kept
    errors = jnp.concatenate([dh * (h - c) * z * not_z, dh * not_z * c * not_c], axis=1)
    return {"h": dh * z + errors @ flipped["u"] / (h + SMALL)}, errors


def _probability_gradients(state, kept, errors):
    return {"u": jnp.log(state["h"] + SMALL).T @ errors}, errors


@functools.cache
def probabilities(gate: str, activation: str) -> Cell:
    """Its curves follow from Bayes' rule: gate and activation have no say."""
    return Cell(
        "gru", shapes, _probability_equation, split, _probability_step, _probability_back, _probability_gradients
    )


@functools.cache
def logarithms(gate: str, activation: str, softplus: bool) -> Cell:
    """As `probabilities`."""

    def equation(params, state, x):
        h = state["h"]
        a_z, a_c = _pre(params, x, h)
        c = jnp.log1p(jnp.exp(a_c)) if softplus else -jnp.log1p(jnp.exp(-a_c))
        return {"h": jnp.log(_share(a_z) * jnp.exp(h) + _share(-a_z) * jnp.exp(c))}

    def step(weights, state, a):
        h = state["h"]
        a_z, a_c = jnp.split(a + h @ weights["u"], 2, axis=1)
        c = jax.nn.softplus(a_c) if softplus else -jax.nn.softplus(-a_c)
        old, new = h - jax.nn.softplus(-a_z), c - jax.nn.softplus(a_z)
        share, other = jax.lax.logistic(old - new), jax.lax.logistic(new - old)
        after = jnp.maximum(old, new) + jnp.log1p(jnp.exp(-jnp.abs(old - new)))
        z, not_z = jax.lax.logistic(a_z), jax.lax.logistic(-a_z)
        # share - z, without cancelling where both are near 1
        moved = jnp.where(share + z > 1, not_z - other, share - z)
        return {"h": after}, (moved, share, other * jax.lax.logistic(a_c if softplus else -a_c))

    def back(flipped, state, kept, dstate):
        dh = dstate["h"]
        moved, share, slope = kept
        errors = jnp.concatenate([dh * moved, dh * slope], axis=1)
        return {"h": dh * share + errors @ flipped["u"]}, errors

    def gradients(state, kept, errors):
        return {"u": state["h"].T @ errors}, errors

    return Cell("gru", shapes, equation, split, step, back, gradients, empty=math.log(SMALL))

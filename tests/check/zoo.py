"""Right and wrong backward passes for the tests of the prover: batch norm, a recurrence, and ways to plant a fault."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.op import Op

CHANGES = {
    "zero": lambda g: jnp.zeros_like(g),
    "negated": lambda g: -g,
    "scaled by 0.9": lambda g: g * jnp.asarray(0.9, g.dtype),
}


def normal(seed, *shape, scale=1.0, mean=0.0, dtype: Any = np.float32):
    return jnp.asarray(mean + scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def labels(seed, count, classes):
    return jnp.asarray(np.random.default_rng(seed).integers(0, classes, count), jnp.int32)


def planted(op, leaf, change):
    """`op` with one leaf of its gradient changed; leaf: its place among all leaves of the cotangents."""

    def backward(residuals, dout, **options):
        flat, structure = jax.tree.flatten(op._backward(residuals, dout, **options), is_leaf=lambda x: x is None)
        flat[leaf] = change(flat[leaf])
        return jax.tree.unflatten(structure, flat)

    return Op(op._equation, op._forward, backward, name=op.name, options=op.options)


def one_entry_off(index, share):
    """Adds a share of itself to one entry."""
    return lambda g: g.at[index].multiply(jnp.asarray(1 + share, g.dtype))


def custom(function, forward, backward):
    function = jax.custom_vjp(function)
    function.defvjp(forward, backward)
    return function


# ---- batch norm


def batch_norm_equation(params, x):
    mean = jnp.mean(x, axis=0, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=0, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5) * params["scale"][None] + params["shift"][None]


def batch_norm_forward(params, x):
    centred = x - jnp.mean(x, axis=0, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=0, keepdims=True) + jnp.asarray(1e-5, x.dtype))
    xhat = centred * inverse
    return xhat * params["scale"][None] + params["shift"][None], (params["scale"], xhat, inverse)


def batch_norm_backward(residuals, dy, count=None):
    scale, xhat, inverse = residuals
    count = xhat.shape[0] if count is None else count
    dxhat = dy * scale[None]
    through_statistics = jnp.sum(dxhat, axis=0, keepdims=True) + xhat * jnp.sum(dxhat * xhat, axis=0, keepdims=True)
    dx = inverse * (dxhat - through_statistics / count)
    return {"scale": jnp.sum(dy * xhat, axis=0), "shift": jnp.sum(dy, axis=0)}, dx


batch_norm = Op(batch_norm_equation, batch_norm_forward, batch_norm_backward, name="batch_norm")


def batch_norm_params(features, dtype: Any = np.float32):
    return {"scale": normal(7, features, dtype=dtype), "shift": normal(8, features, dtype=dtype)}


# ---- a recurrence: h[t] = tanh(x[t] + h[t-1] u)


def rnn_equation(u, x):
    def step(h, x_t):
        h = jnp.tanh(x_t + h @ u)
        return h, h

    return jax.lax.scan(step, jnp.zeros_like(x[0]), x)[1]


def rnn_forward(u, x):
    h = rnn_equation(u, x)
    return h, (u, h)


def rnn_backward(residuals, dh):
    u, h = residuals
    before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])

    def step(carried, now):
        h_t, dh_t = now
        dz = (dh_t + carried) * (1 - h_t * h_t)
        return dz @ u.T, dz

    dz = jax.lax.scan(step, jnp.zeros_like(h[0]), (h, dh), reverse=True)[1]
    return jnp.einsum("tni,tno->io", before, dz), dz


rnn = Op(rnn_equation, rnn_forward, rnn_backward, name="rnn")

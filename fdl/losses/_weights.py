"""What the reductions share: weights like the values or their leading axes, and values that do not count."""

import jax.numpy as jnp

from fdl.errors import refuse, require_array


def aligned(values, weights):
    """weights [N] against values [N, T]: every step has its example's weight."""
    weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
    return jnp.broadcast_to(weights, values.shape).astype(values.dtype)


def check(where, name, weights, values):
    require_array(where, name, weights)
    if weights.ndim > values.ndim or weights.shape != values.shape[: weights.ndim]:
        refuse(
            where,
            f"{name} has shape {list(weights.shape)}, values has shape {list(values.shape)}; "
            "wanted the same shape, or the leading axes of it",
        )


def counted(values, weights):
    """The values in the dtype of the weights, 0 where these are 0: NaN may stand there, and 0 * NaN is NaN."""
    return jnp.where(weights == 0, jnp.zeros_like(weights), values.astype(weights.dtype))


def summed_back(dweights, weights):
    """The cotangent of weights from that of the aligned ones: the sum over the axes along which they were repeated."""
    return dweights.sum(axis=tuple(range(weights.ndim, dweights.ndim))).astype(weights.dtype)

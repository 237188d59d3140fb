"""Every activation as the textbook writes it, never optimised: the oracle wherever it does not overflow.

The cases are written as `where`, so that JAX's derivative of an equation at a kink is the subgradient of the table.
"""

import math

import jax
import jax.numpy as jnp

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def _like(option, x):
    return jnp.asarray(option, x.dtype)


def sigmoid(x):
    return 1 / (1 + jnp.exp(-x))


def log_sigmoid(x):
    return -jnp.log(1 + jnp.exp(-x))


def softplus(x):
    return jnp.log(1 + jnp.exp(x))


def tanh(x):
    return (jnp.exp(x) - jnp.exp(-x)) / (jnp.exp(x) + jnp.exp(-x))


def relu(x):
    return jnp.where(x > 0, x, 0)


def relu6(x):
    return jnp.where(x >= 6, 6, jnp.where(x > 0, x, 0))


def leaky_relu(x, *, slope=0.01):
    return jnp.where(x > 0, x, _like(slope, x) * x)


def elu(x, *, alpha=1.0):
    return jnp.where(x > 0, x, _like(alpha, x) * (jnp.exp(x) - 1))


def celu(x, *, alpha=1.0):
    alpha = _like(alpha, x)
    return jnp.where(x > 0, x, alpha * (jnp.exp(x / alpha) - 1))


def selu(x):
    return SELU_SCALE * jnp.where(x > 0, x, SELU_ALPHA * (jnp.exp(x) - 1))


def gelu(x, *, approximate=False):
    if approximate:
        return 0.5 * x * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + jax.scipy.special.erf(x / math.sqrt(2)))


def silu(x):
    return x / (1 + jnp.exp(-x))


def mish(x):
    return x * jnp.tanh(jnp.log(1 + jnp.exp(x)))


def softsign(x):
    return x / (1 + jnp.abs(x))


def hard_sigmoid(x):
    return relu6(x + 3) / 6


def hard_tanh(x):
    return jnp.where(x >= 1, 1, jnp.where(x > -1, x, -1))


def hard_silu(x):
    return x * hard_sigmoid(x)


def squareplus(x, *, b=4.0):
    return (x + jnp.sqrt(x * x + _like(b, x))) / 2


def sparse_plus(x):
    return jnp.where(x >= 1, x, jnp.where(x > -1, (x + 1) * (x + 1) / 4, 0))

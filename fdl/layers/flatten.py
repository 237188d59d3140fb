"""Flatten: y[n, d] = x[n, a, b, ...] with d running over all axes but the first, in row-major order.

Backward. Every entry of x goes to one place of y and nowhere else, so dx is dy put back into the shape of x.

Shapes: x [N, ...], y [N, D] with D the product of the other axes. Errors: InputError for an x without a batch axis.

    >>> fdl.ops.flatten(jnp.ones((2, 3, 4))).shape
    (2, 12)
"""

import math

import jax.numpy as jnp

from fdl.errors import require_array, require_rank_at_least
from fdl.layer import Layer
from fdl.op import Op, Static


def equation(x):
    return jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def forward(x):
    require_array("flatten", "x", x)
    require_rank_at_least("flatten", "x", x, 1, "a batch axis first")
    return equation(x), Static(x.shape)


def backward(residuals, dy):
    return (dy.reshape(residuals.value),)


op = Op(equation, forward, backward)


def flatten() -> Layer:
    """[N, ...] -> [N, D].

    >>> fdl.flatten().apply({}, {}, jnp.ones((2, 28, 28, 1)))[0].shape
    (2, 784)
    """
    return Layer.from_op("flatten", op)

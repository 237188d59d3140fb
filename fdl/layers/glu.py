"""Gated linear unit: one half of the features, gated by the sigmoid of the other half.

    [a, b] = x split in two along axis        y = a sigmoid(b)

Backward. y[i] depends on a[i] and b[i] alone, and sigmoid' = sigmoid (1 - sigmoid), so

    da[i] = dy[i] sigmoid(b[i])        db[i] = dy[i] a[i] sigmoid'(b[i])        dx = [da, db]

Where the gate is open (b large) the error reaches a undiminished: unlike in tanh(a) sigmoid(b), a does not saturate.

Facts. No Lipschitz constant: the slope in b is a sigmoid'(b), as large as a. It saturates by b alone: sigmoid(b) < 0.01 shuts
off a for b < -4.6, and the gate learns less than 0.04 of its best for |b| > 4.6. No dead region.

Limits.
| input                | y        | da       | db         | why                                                        |
|----------------------|----------|----------|------------|------------------------------------------------------------|
| b = +inf, 1e30       | a        | dy       | 0          | the gate is open                                           |
| b = -inf, -1e30      | 0        | 0        | 0          | the gate is shut                                           |
| a = +-inf, gate > 0  | +-inf    | finite   | +-inf dy   |                                                            |
| a = +-inf, gate 0    | NaN      | 0        | NaN        | inf * 0 has no limit: loud                                 |
| a or b = NaN         | NaN      | NaN if b | NaN        | loud; da does not depend on a                              |

16-bit inputs are computed in float32 and rounded once. Shapes: x [..., 2 D, ...], y [..., D, ...]. Errors: InputError
for an axis that x lacks or that cannot be halved. Source: Dauphin, Fan, Auli & Grangier 2017, eq. 1.

    >>> fdl.ops.glu(jnp.float32([[6, 0]]))  # 6 sigmoid(0)
    Array([[3.]], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import refuse, require_float
from fdl.layer import Layer
from fdl.layers.activations import ACTIVATIONS
from fdl.layers.softmax import require_axis
from fdl.op import Op, accumulator

_sigmoid = ACTIVATIONS["sigmoid"]


def equation(x, *, axis=-1):
    a, b = jnp.split(x, 2, axis=axis)
    return a / (1 + jnp.exp(-b))


def forward(x, *, axis):
    _check(x, axis)
    a, b = _halves(x, axis)
    return (a * _sigmoid.f(b)).astype(
        x.dtype
    ), x  # the output of the layer before; the gate is rebuilt: one exponential


def backward(x, dy, *, axis):
    a, b = _halves(x, axis)
    wide = dy.astype(a.dtype)
    da = wide * _sigmoid.f(b)
    db = wide * (a * _sigmoid.f1(b))
    return (jnp.concatenate([da, db], axis=axis).astype(x.dtype),)


op = Op(equation, forward, backward)


def _halves(x, axis):
    return jnp.split(x.astype(accumulator(x.dtype)), 2, axis=axis)


def _check(x, axis):
    require_float("glu", "x", x)
    require_axis("glu", x, axis)
    if x.shape[axis] % 2:
        refuse("glu", f"axis {axis} of x {list(x.shape)} has size {x.shape[axis]}, wanted an even size: two halves")


def glu(axis: int = -1) -> Layer:
    """y = a sigmoid(b) with [a, b] the halves of x along `axis` (the batch axis is axis 0): [..., 2 D] -> [..., D].

    >>> fdl.glu().apply({}, {}, jnp.ones((2, 8), jnp.float32))[0].shape
    (2, 4)
    """
    return Layer.from_op("glu", op.bind(axis=axis))

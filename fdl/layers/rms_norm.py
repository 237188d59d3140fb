"""RMS normalization: every example by its own root mean square; layer normalization without the mean.

    x^ = x / sqrt(1/D sum_d x[d]^2 + eps)        y = scale x^

Backward. x[d] reaches the loss by itself and by the mean of squares; with g = dy scale

    dx[d] = (g[d] - x^[d] E[g x^]) / sqrt(E[x^2] + eps)        dscale[d] = sum_n dy[n, d] x^[n, d]

The error loses its share along x^ alone: a shift of all entries is no longer invisible.

Limits: x = 0: y = 0, dx = g / sqrt(eps). Entries up to 8e37 are right (0 or NaN in the peers above 1e19): they are divided by the largest
first, whose reciprocal has to be a normal number. eps = 0 and x = 0: y = 0, dx = 0.

Shapes: x [..., D], scale [D], params may lack it. Errors: InputError, InputTypeError. Source: Zhang & Sennrich 2019, eq. 4.

    >>> fdl.ops.rms_norm({"scale": jnp.float32([1, 1])}, jnp.float32([[3, 3]]), eps=0.0)
    Array([[1., 1.]], dtype=float32)
"""

from typing import Any

import jax.numpy as jnp

from fdl.errors import require_number, require_rank_at_least
from fdl.layer import Layer, bind
from fdl.layers._affine import affine, affine_cotangents, init_affine, require_affine, require_flags, scaled
from fdl.layers._moments import reciprocal_deviation
from fdl.layers._sums import unshared
from fdl.op import Op, accumulator

EPS = 1e-6


def equation(params, x, *, eps=EPS):
    return affine(params, x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + jnp.asarray(eps, x.dtype)))


def forward(params, x, *, eps):
    require_number("rms_norm", "eps", eps, 0, float("inf"), remedy="it is added to the mean square, 1e-6 by default")
    require_affine("rms_norm", params, x, known=("scale",))
    wide = x.astype(accumulator(x.dtype))
    square, eps = jnp.mean(wide * wide, axis=-1, keepdims=True), jnp.asarray(eps, wide.dtype)
    reciprocal = reciprocal_deviation(square, lambda: wide, x.shape[-1], (x.ndim - 1,), eps)
    return affine(params, wide * reciprocal).astype(x.dtype), (params, x, reciprocal)


def backward(residuals, dy):
    params, x, reciprocal = residuals
    dy, wide = dy.astype(reciprocal.dtype), x.astype(reciprocal.dtype)
    normalized = lambda: wide * unshared(reciprocal)[0]
    g = scaled(params, dy)
    dx = (g - normalized() * jnp.mean(g * normalized(), axis=-1, keepdims=True)) * reciprocal
    return affine_cotangents(params, dy, normalized()), dx.astype(x.dtype)


op = Op(equation, forward, backward)


def _init(key: Any, spec: Any, dtype: Any, *, scale: bool) -> dict:
    require_rank_at_least("rms_norm", "one example", spec, 1, "the features last")
    return init_affine(spec.shape[-1:], dtype, scale, False)


def rms_norm(eps: Any = EPS, *, scale: bool = True) -> Layer:
    """[..., D] -> the same, each with mean square 1; params {"scale": 1}.

    >>> params, _ = fdl.rms_norm().init(jax.random.key(0), (7, 8))
    >>> params["scale"].shape
    (8,)
    """
    require_flags("rms_norm", scale=scale)
    require_number("rms_norm", "eps", eps, 0, float("inf"), remedy="it is added to the mean square, 1e-6 by default")
    return Layer.from_op("rms_norm", op.bind(eps=eps), bind(_init, scale=scale))

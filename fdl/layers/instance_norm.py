"""Instance normalization: every feature map of every example by its own mean and variance over its places.

    x^ = (x - mean[n, c]) / sqrt(var[n, c] + eps)        y = scale x^ + shift

It is group normalization with one feature per group, and that is how it is computed; the derivation is there.

Limits: as layer_norm.py; an image of one place gives y = shift, dx = 0. Shapes: x [N, ..., C], scale and shift [C]. Errors: InputError,
InputTypeError. Source: Ulyanov, Vedaldi & Lempitsky 2016, eq. 2 (there without scale and shift).

    >>> params = {"scale": jnp.float32([1]), "shift": jnp.float32([0])}
    >>> fdl.ops.instance_norm(params, jnp.float32([1, 3]).reshape(1, 2, 1), eps=0.0).ravel()
    Array([-1.,  1.], dtype=float32)
"""

from typing import Any

import jax.numpy as jnp

from fdl.errors import refuse, require_rank_at_least
from fdl.layer import Layer, bind
from fdl.layers._affine import affine, init_affine, require_affine, require_flags
from fdl.layers.group_norm import backward as group_backward
from fdl.layers.group_norm import normalized, require_options, require_places
from fdl.op import Op

EPS = 1e-5


def equation(params, x, *, eps=EPS, fast=False):
    places = tuple(range(1, x.ndim - 1))
    deviation = x - jnp.mean(x, axis=places, keepdims=True)
    var = jnp.mean(deviation**2, axis=places, keepdims=True)
    return affine(params, deviation / jnp.sqrt(var + jnp.asarray(eps, x.dtype)))


def forward(params, x, *, eps, fast):
    require_options("instance_norm", 1, eps, fast)
    require_affine("instance_norm", params, x)
    if x.ndim < 3:
        refuse("instance_norm", f"x has shape {list(x.shape)}, wanted [N, ..., C] with at least one axis of places")
    require_places("instance_norm", x)
    return normalized(params, x, x.shape[-1], eps, fast)


def backward(residuals, dy):
    return group_backward(residuals, dy, groups=dy.shape[-1])


op = Op(equation, forward, backward)


def _init(key: Any, spec: Any, dtype: Any, *, scale: bool, shift: bool) -> dict:
    require_rank_at_least("instance_norm", "one example", spec, 2, "places, then the features")
    return init_affine(spec.shape[-1:], dtype, scale, shift)


def instance_norm(eps: Any = EPS, *, scale: bool = True, shift: bool = True, fast: bool = False) -> Layer:
    """[N, ..., C] -> the same, each feature map of each example with mean 0 and variance 1.

    >>> params, _ = fdl.instance_norm().init(jax.random.key(0), (7, 7, 8))
    >>> params["scale"].shape
    (8,)
    """
    require_options("instance_norm", 1, eps, fast)
    require_flags("instance_norm", scale=scale, shift=shift)
    init = bind(_init, scale=scale, shift=shift)
    return Layer.from_op("instance_norm", op.bind(eps=eps, fast=fast), init)

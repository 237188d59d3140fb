"""Layer normalization: every example, or every step of a sequence, by its own mean and variance.

    mean = 1/D sum_d x[d]        var = 1/D sum_d (x[d] - mean)^2
    x^ = (x - mean) / sqrt(var + eps)        y = scale x^ + shift

d runs over the last axis, or over the last `dims` axes together. Nothing depends on the batch: training and use are the same.

Backward. x[d] reaches the loss by itself, the mean and the variance; with g = dy scale and n over all examples

    dx[d] = (g[d] - E[g] - x^[d] E[g x^]) / sqrt(var + eps)        E over d: see _moments.py
    dscale[d] = sum_n dy[n, d] x^[n, d]                            dshift[d] = sum_n dy[n, d]

Limits: all entries equal: y = shift, dx finite. D = 1: y = shift, dx = 0. Mean 1e4 with deviation 1e-2 is right (Flax's default is
wrong by a factor), deviations up to 3e38 / D are. eps = 0 and var = 0: x^ = 0.

Shapes: x [..., D], scale and shift [D] (x.shape[-dims:]), params may lack either. Errors: InputError, InputTypeError.
Source: Ba, Kiros & Hinton 2016, eq. 4.

    >>> params = {"scale": jnp.float32([1, 1]), "shift": jnp.float32([0, 0])}
    >>> fdl.ops.layer_norm(params, jnp.float32([[1, 3]]), eps=0.0)
    Array([[-1.,  1.]], dtype=float32)
"""

from typing import Any

import jax.numpy as jnp

from fdl.errors import require_bool, require_count, require_number, require_rank_at_least
from fdl.layer import Layer, bind
from fdl.layers._affine import affine, affine_cotangents, init_affine, require_affine, require_flags, scaled
from fdl.layers._moments import moments, pulled
from fdl.op import Op

EPS = 1e-5


def equation(params, x, *, eps=EPS, dims=1, fast=False):
    axes = _last(x, dims)
    deviation = x - jnp.mean(x, axis=axes, keepdims=True)
    var = jnp.mean(deviation**2, axis=axes, keepdims=True)
    return affine(params, deviation / jnp.sqrt(var + jnp.asarray(eps, x.dtype)))


def forward(params, x, *, eps, dims, fast):
    _check(params, x, eps, dims, fast)
    found = moments(x, _last(x, dims), eps, fast=fast)
    return affine(params, found.normalized(x)).astype(x.dtype), (params, x, found)


def backward(residuals, dy, *, dims):
    params, x, found = residuals
    dy = dy.astype(found.rstd.dtype)
    dx = pulled(scaled(params, dy), x, found, _last(x, dims))
    return affine_cotangents(params, dy, found.normalized(x)), dx.astype(x.dtype)


def _last(x, dims):
    return tuple(range(x.ndim - dims, x.ndim))


def _check(params, x, eps, dims, fast):
    where = "layer_norm"
    require_count(where, "dims", dims)
    require_number(where, "eps", eps, 0, float("inf"), remedy="it is added to the variance, 1e-5 by default")
    require_bool(where, "fast", fast)
    require_affine(where, params, x, dims)


op = Op(equation, forward, backward)


def _init(key: Any, spec: Any, dtype: Any, *, dims: int, scale: bool, shift: bool) -> dict:
    require_rank_at_least("layer_norm", "one example", spec, dims, "the features last")
    return init_affine(spec.shape[-dims:], dtype, scale, shift)


def layer_norm(eps: Any = EPS, *, dims: int = 1, scale: bool = True, shift: bool = True, fast: bool = False) -> Layer:
    """[..., D] -> the same, each with mean 0 and variance 1 over the last `dims` axes; params {"scale": 1, "shift": 0}.

    >>> params, _ = fdl.layer_norm().init(jax.random.key(0), (7, 8))
    >>> params["scale"].shape
    (8,)
    """
    require_count("layer_norm", "dims", dims)
    require_flags("layer_norm", scale=scale, shift=shift, fast=fast)
    require_number("layer_norm", "eps", eps, 0, float("inf"), remedy="it is added to the variance, 1e-5 by default")
    init = bind(_init, dims=dims, scale=scale, shift=shift)
    return Layer.from_op("layer_norm", op.bind(eps=eps, dims=dims, fast=fast), init)

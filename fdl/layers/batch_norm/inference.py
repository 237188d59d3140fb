"""Batch normalization with given statistics: an affine map of each feature, the same for every example (Algorithm 2, step 11).

    y = scale (x - mean) / sqrt(var + eps) + shift

Backward. With x^ = (x - mean) / sqrt(var + eps), summed over the examples and places i that share a feature,

    dx = dy scale / sqrt(var + eps)          dscale = sum_i dy[i] x^[i]          dshift = sum_i dy[i]
    dmean = - dshift scale / sqrt(var + eps)                  dvar = - dscale scale / (2 (var + eps))

mean and var are arguments like any other, so their cotangents are the true ones: a network trained through frozen statistics, or
with statistics that depend on something, gets what it needs.

Limits: var + eps = 0 gives y = shift and cotangents 0 for x, mean, var and scale; var < 0 gives NaN.

Shapes: x [N, ..., C]; scale, shift, mean, var [C], or all of x's shape but N with `per="activation"`. mean and var may be
float32 beside a 16-bit x. Errors: InputError, InputTypeError.

    >>> params = {"scale": jnp.float32([1]), "shift": jnp.float32([10])}
    >>> fdl.ops.batch_norm_inference(params, jnp.float32([[1], [3]]), jnp.float32([2]), jnp.float32([4]), eps=0.0).ravel()
    Array([ 9.5, 10.5], dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import refuse, require_float, require_number
from fdl.layers._affine import affine, scaled, spread
from fdl.layers._moments import reciprocal_root
from fdl.layers._sums import sums
from fdl.layers.batch_norm.normalize import EPS, check, reduced
from fdl.op import Op, accumulator


def equation(params, x, mean, var, *, eps=EPS, per="channel"):
    mean, var = spread(mean, x), spread(var, x)
    return affine(params, (x - mean) / jnp.sqrt(var + jnp.asarray(eps, x.dtype)))


def forward(params, x, mean, var, *, eps, per):
    where = "batch_norm_inference"
    check(params, x, None, per, where=where)
    require_number(where, "eps", eps, 0, float("inf"), remedy="it is added to the variance, 1e-5 by default")
    features = x.shape[1:] if per == "activation" else x.shape[-1:]
    for name, statistic in (("mean", mean), ("var", var)):
        require_float(where, name, statistic)
        if statistic.shape != features:
            refuse(where, f"{name} has shape {list(statistic.shape)}, x has {list(x.shape)}; wanted {list(features)}")
    deviation, rstd = _parts(x, mean, var, eps)
    return affine(params, deviation * rstd).astype(x.dtype), (params, x, mean, var)


def backward(residuals, dy, *, eps, per):
    params, x, mean, var = residuals
    axes = reduced(x, per)
    deviation, rstd = _parts(x, mean, var, eps)
    dy = dy.astype(rstd.dtype)
    dshift, dscale = sums((dy, dy * (deviation * rstd)), axes)
    dmean, dvar = -scaled(params, dshift) * rstd, -scaled(params, dscale) * rstd * rstd / 2
    found = {"scale": dscale, "shift": dshift}
    dparams = {name: found[name].reshape(params[name].shape).astype(params[name].dtype) for name in params}
    dx = (scaled(params, dy) * rstd).astype(x.dtype)
    return dparams, dx, dmean.reshape(mean.shape).astype(mean.dtype), dvar.reshape(var.shape).astype(var.dtype)


def _parts(x, mean, var, eps):
    """(x - mean, 1 / sqrt(var + eps))"""
    wide = accumulator(x.dtype)
    x = x.astype(wide)
    mean, var = spread(mean, x), spread(var, x)
    return x - mean, reciprocal_root(var + jnp.asarray(eps, wide))


op = Op(equation, forward, backward, name="batch_norm_inference")

"""Batch normalization on a mini-batch (Algorithm 1).

    mean = 1/m sum_i x[i]                        var = 1/m sum_i (x[i] - mean)^2
    x^[i] = (x[i] - mean) / sqrt(var + eps)      y[i] = scale x^[i] + shift

i runs over the m entries of one feature: over the examples and, for images and sequences, over all places (m = N H W, one
mean per feature map); with `per="activation"` over the examples alone. The output is (y, {"mean", "var"}).

Backward, as the paper has it "before simplification" (`terms` computes each), for the error dy:

    dx^[i]  = dy[i] scale
    dvar    = sum_i dx^[i] (x[i] - mean) (-1/2) (var + eps)^(-3/2)
    dmean   = - sum_i dx^[i] / sqrt(var + eps)  +  dvar sum_i (-2) (x[i] - mean) / m
    dx[i]   = dx^[i] / sqrt(var + eps)  +  dvar 2 (x[i] - mean) / m  +  dmean / m
    dscale  = sum_i dy[i] x^[i]                  dshift = sum_i dy[i]

x[i] reaches the loss by three paths: itself, the mean, the variance. The second sum of dmean is 0. Put together,

    dx[i] = scale / sqrt(var + eps) (dy[i] - dshift / m - x^[i] dscale / m)

which takes two sums and one pass, and keeps nothing but x. It shows what the layer does to the error: its mean over the batch
and its share along x^ are taken out, so that sum_i dx[i] = 0 and, up to eps, sum_i dx[i] x^[i] = 0. Cotangents of the returned
statistics, if any, add dmean/m + dvar 2 (x[i] - mean) / m.

Limits.
| input                          | y             | dx                    | why                                           |
|--------------------------------|---------------|-----------------------|-----------------------------------------------|
| one entry (m = 1), or all equal | shift        | 0 (m = 1), finite     | x = mean; PyTorch refuses m = 1               |
| var + eps = 0 (eps = 0)        | shift         | 0                     | the limit for x = mean                        |
| mean 1e4, deviation 1e-2       | right         | right                 | see _moments.py; every peer is 3 to 12 % off or worse |
| deviations up to 3e38 / m      | right         | right                 | scaled; var itself is inf above 1e19          |
| masked entries, NaN too        | 0             | 0                     | they do not count                             |
| nothing counts                 | 0             | 0                     |                                               |

Shapes: x [N, ..., C]; scale, shift, mean, var [C], or all of x's shape but N with `per="activation"`; params may lack "scale"
or "shift". mask [N] or [N, T] boolean. Statistics of 16-bit inputs are float32. `axis_name`: the batch is spread over this axis
of a mesh or a `vmap`, and the statistics are those of all of it. `fast`: E[x^2] - mean^2, wrong where the mean is large against the
deviations. Errors: InputError, InputTypeError.

    >>> params = {"scale": jnp.float32([1]), "shift": jnp.float32([0])}
    >>> y, batch = fdl.ops.batch_norm(params, jnp.float32([[1], [3]]), eps=0.0)
    >>> y.ravel(), batch["mean"]
    (Array([-1.,  1.], dtype=float32), Array([2.], dtype=float32))
"""

from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import (
    refuse,
    refuse_type,
    require_array,
    require_bool,
    require_mask,
    require_number,
    require_same_shape,
)
from fdl.layers._affine import affine, require_affine, scaled, spread
from fdl.layers._moments import how_many, moments, summed
from fdl.layers._sums import sums
from fdl.op import Op

EPS = 1e-5


def equation(params, x, mask=None, *, eps=EPS, per="channel", axis_name=None, fast=False):
    axes = reduced(x, per)
    counts = along(mask, x)
    total = lambda values: summed((values,), axes, counts, axis_name)[0]
    m = how_many(x, axes, counts, axis_name)
    clean = x if counts is None else jnp.where(counts, x, jnp.zeros_like(x))
    mean = total(clean) / m
    var = total((clean - mean) ** 2) / m
    y = affine(params, (clean - mean) / jnp.sqrt(var + jnp.asarray(eps, x.dtype)))
    y = y if counts is None else jnp.where(counts, y, jnp.zeros_like(y))
    return y, {"mean": _features(mean, axes), "var": _features(var, axes)}


def forward(params, x, mask=None, *, eps, per, axis_name, fast):
    check(params, x, mask, per, axis_name)
    require_number("batch_norm", "eps", eps, 0, float("inf"), remedy="it is added to the variance, 1e-5 by default")
    require_bool("batch_norm", "fast", fast)
    axes, counts = reduced(x, per), along(mask, x)
    clean = x if counts is None else jnp.where(counts, x, jnp.zeros_like(x))
    found = moments(clean, axes, eps, counts=counts, axis_name=axis_name, fast=fast)
    y = affine(params, found.normalized(clean)).astype(x.dtype)
    y = y if counts is None else jnp.where(counts, y, jnp.zeros_like(y))
    # x^ is not kept: it is one subtraction and one product per entry of x, which is there anyway
    return (y, {"mean": _features(found.mean, axes), "var": _features(found.var, axes)}), (params, clean, mask, found)


def backward(residuals, dout, *, per, axis_name):
    params, x, mask, found = residuals
    dy, dstatistics = dout
    axes, counts = reduced(x, per), along(mask, x)
    dy = dy.astype(found.rstd.dtype)
    dy = dy if counts is None else jnp.where(counts, dy, jnp.zeros_like(dy))
    dshift, dscale = sums((dy, dy * found.normalized(x)), axes)
    of_all = (dshift, dscale) if axis_name is None else jax.lax.psum((dshift, dscale), axis_name)
    mean_dy, mean_along = (total / found.count for total in of_all)
    dx = scaled(params, dy - mean_dy - found.normalized(x) * mean_along) * found.rstd
    dmean, dvar = (spread(dstatistics[name], dy) / found.count for name in ("mean", "var"))
    if axis_name is not None:
        dmean, dvar = jax.lax.psum((dmean, dvar), axis_name)
    dx = dx + dmean + 2 * dvar * found.centred(x)
    dx = dx if counts is None else jnp.where(counts, dx, jnp.zeros_like(dx))
    dparams = {"scale": dscale, "shift": dshift}
    dparams = {name: dparams[name].reshape(params[name].shape).astype(params[name].dtype) for name in params}
    return dparams, dx.astype(x.dtype), None


def terms(params, x, dy, *, eps=EPS, per="channel"):
    """The paper's six formulas before simplification, by name: dnormalized, dvar, dmean, dx, dscale, dshift."""
    check(params, x, None, per, where="batch_norm.terms")
    require_same_shape("batch_norm.terms", "dy", dy, "x", x)
    axes = reduced(x, per)
    m = how_many(x, axes, None, None)
    found = moments(x, axes, eps)
    total = lambda values: jnp.sum(values, axis=axes, keepdims=True)
    deviation = found.centred(x)
    dnormalized = scaled(params, dy)
    dvar = total(dnormalized * deviation) * (-1 / 2) * found.rstd**3
    dmean = -total(dnormalized) * found.rstd + dvar * total(-2 * deviation) / m
    dx = dnormalized * found.rstd + dvar * 2 * deviation / m + dmean / m
    named = {"dvar": dvar, "dmean": dmean, "dscale": total(dy * deviation * found.rstd), "dshift": total(dy)}
    return {"dnormalized": dnormalized, "dx": dx} | {name: _features(x, axes) for name, x in named.items()}


# ---- shapes


def reduced(x: Any, per: str) -> tuple[int, ...]:
    """The axes that are averaged over."""
    return (0,) if per == "activation" else tuple(range(x.ndim - 1))


def along(mask: Any, x: Any) -> Any:
    """The mask as booleans that broadcast against x; None if all counts."""
    return None if mask is None else mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


def _features(kept: Any, axes: tuple[int, ...]) -> Any:
    return jnp.squeeze(kept, axes)


def check(params: Any, x: Any, mask: Any, per: Any, axis_name: Any = None, where: str = "batch_norm") -> None:
    """The door of both ops."""
    require_array(where, "x", x)
    if per not in ("channel", "activation"):
        refuse(where, f'per is {per!r}, wanted "channel" (one mean per feature map) or "activation" (one per entry)')
    require_affine(where, params, x, x.ndim - 1 if per == "activation" else 1)
    if x.ndim < 2:
        refuse(where, f"x has shape {list(x.shape)}, wanted [N, ..., C]: examples first, features last")
    if 0 in x.shape:
        refuse(where, f"x has shape {list(x.shape)}: there is nothing to take statistics of; leave out empty batches")
    if mask is not None:
        require_mask(where, mask, x, 1 if per == "activation" else x.ndim - 1)
    if axis_name is not None:
        if not isinstance(axis_name, str | tuple):
            refuse_type(where, f"axis_name is {axis_name!r}, wanted the name of an axis of a mesh or a vmap")
        try:
            jax.lax.axis_size(axis_name)
        except NameError:
            refuse(
                where,
                f"there is no axis {axis_name!r} here: call it inside shard_map, or vmap with axis_name={axis_name!r}",
            )


op = Op(equation, forward, backward, name="batch_norm")

"""Group normalization: the features of every example in groups, each by its mean and variance over its places and features.

    x^ = (x - mean[n, g]) / sqrt(var[n, g] + eps)        y = scale x^ + shift

mean and var run over all places and the C / groups features of group g of example n. One group is layer normalization over an
image; as many groups as features is instance normalization (instance_norm.py). Nothing depends on the batch.

Backward: dx by the three paths as in _moments.py, with E over the entries of a group; dscale[c] = sum dy x^ and dshift[c] = sum dy
over all examples and places.

Limits: as layer_norm.py. Shapes: x [N, ..., C], scale and shift [C]. Errors: InputError where groups does not divide C,
InputTypeError. Source: Wu & He 2018, eq. 1 to 5.

    >>> params = {"scale": jnp.ones((4,), jnp.float32), "shift": jnp.zeros((4,), jnp.float32)}
    >>> fdl.ops.group_norm(params, jnp.float32([[1, 3, 10, 30]]), groups=2, eps=0.0)
    Array([[-1.,  1., -1.,  1.]], dtype=float32)
"""

import math
from typing import Any

import jax.numpy as jnp

from fdl.errors import refuse, require_bool, require_count, require_number, require_rank_at_least
from fdl.layer import Layer, bind
from fdl.layers._affine import affine, affine_cotangents, init_affine, require_affine, require_flags, scaled
from fdl.layers._moments import moments, pulled
from fdl.op import Op

EPS = 1e-5
_AXES = (1, 3)  # of [N, places, groups, C / groups]


def equation(params, x, *, groups, eps=EPS, fast=False):
    split = _split(x, groups)
    deviation = split - jnp.mean(split, axis=_AXES, keepdims=True)
    var = jnp.mean(deviation**2, axis=_AXES, keepdims=True)
    return affine(params, (deviation / jnp.sqrt(var + jnp.asarray(eps, x.dtype))).reshape(x.shape))


def forward(params, x, *, groups, eps, fast):
    _check(params, x, groups, eps, fast)
    return normalized(params, x, groups, eps, fast)


def normalized(params, x, groups, eps, fast):
    """The forward behind the door."""
    found = moments(_split(x, groups), _AXES, eps, fast=fast)
    y = affine(params, found.normalized(_split(x, groups)).reshape(x.shape))
    return y.astype(x.dtype), (params, x, found)


def backward(residuals, dy, *, groups):
    params, x, found = residuals
    dy, split = dy.astype(found.rstd.dtype), _split(x, groups)
    dx = pulled(_split(scaled(params, dy), groups), split, found, _AXES).reshape(x.shape)
    return affine_cotangents(params, dy, found.normalized(split).reshape(x.shape)), dx.astype(x.dtype)


def _split(x, groups):
    """[N, places, groups, C / groups]"""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), groups, x.shape[-1] // groups)


def _check(params, x, groups, eps, fast):
    where = "group_norm"
    require_options(where, groups, eps, fast)
    require_affine(where, params, x)
    if x.ndim < 2:
        refuse(where, f"x has shape {list(x.shape)}, wanted [N, ..., C]: examples first, features last")
    require_places(where, x)
    _require_equal_groups(groups, x.shape[-1])


def _require_equal_groups(groups, features):
    if features % groups:
        refuse("group_norm", f"groups is {groups}, which does not divide the {features} features")


def require_places(where, x):
    if 0 in x.shape[1:-1]:
        refuse(where, f"x has shape {list(x.shape)}: there are no places to take statistics of; see the layer before")


def require_options(where, groups, eps, fast):
    require_count(where, "groups", groups)
    require_number(where, "eps", eps, 0, float("inf"), remedy="it is added to the variance, 1e-5 by default")
    require_bool(where, "fast", fast)


op = Op(equation, forward, backward)


def _init(key: Any, spec: Any, dtype: Any, *, groups: int, scale: bool, shift: bool) -> dict:
    require_rank_at_least("group_norm", "one example", spec, 1, "the features last")
    _require_equal_groups(groups, spec.shape[-1])
    return init_affine(spec.shape[-1:], dtype, scale, shift)


def group_norm(groups: int, eps: Any = EPS, *, scale: bool = True, shift: bool = True, fast: bool = False) -> Layer:
    """[N, ..., C] -> the same, each group of C / groups features with mean 0 and variance 1 in every example.

    >>> params, _ = fdl.group_norm(4).init(jax.random.key(0), (7, 7, 8))
    >>> params["scale"].shape
    (8,)
    """
    require_options("group_norm", groups, eps, fast)
    require_flags("group_norm", scale=scale, shift=shift)
    init = bind(_init, groups=groups, scale=scale, shift=shift)
    return Layer.from_op("group_norm", op.bind(groups=groups, eps=eps, fast=fast), init)

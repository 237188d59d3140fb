"""The learned scale and shift of the features, which every normalization ends with."""

import math
from typing import Any

import jax.numpy as jnp

from fdl.errors import refuse, require_bool, require_float, require_rank_at_least, require_same_dtype
from fdl.layers._sums import sums


def affine(params: Any, normalized: Any) -> Any:
    """scale x^ + shift over the last axes, for those of them that are there."""
    y = normalized
    if "scale" in params:
        y = y * spread(params["scale"], y)
    if "shift" in params:
        y = y + spread(params["shift"], y)
    return y


def scaled(params: Any, dy: Any) -> Any:
    """The error at x^: dy scale."""
    return dy * spread(params["scale"], dy) if "scale" in params else dy


def affine_cotangents(params: Any, dy: Any, normalized: Any) -> dict[str, Any]:
    """{"scale": sum dy x^, "shift": sum dy} over everything before the features."""
    if not params:
        return {}
    features = next(iter(params.values())).shape
    rows = lambda x: x.reshape(math.prod(x.shape[: x.ndim - len(features)]), *features)
    totals = sums(tuple(rows(dy * normalized if name == "scale" else dy) for name in params), (0,))
    return {name: total[0].astype(params[name].dtype) for name, total in zip(params, totals, strict=True)}


def init_affine(features: tuple[int, ...], dtype: Any, scale: bool, shift: bool) -> dict[str, Any]:
    params = {"scale": jnp.ones(features, dtype)} if scale else {}
    return params | ({"shift": jnp.zeros(features, dtype)} if shift else {})


def require_affine(where: str, params: Any, x: Any, dims: int = 1, known: tuple[str, ...] = ("scale", "shift")) -> None:
    """The door: x is floating and has `dims` axes of features, and params fit them."""
    require_float(where, "x", x)
    require_rank_at_least(where, "x", x, dims, "the features last")
    features = x.shape[x.ndim - dims :]
    if 0 in features:
        refuse(where, f"x has shape {list(x.shape)}: there are no features to normalize")
    if not isinstance(params, dict) or set(params) - set(known):
        got = sorted(params) if isinstance(params, dict) else type(params).__name__
        refuse(
            where, f"params is {got}, wanted a dict with {' and '.join(map(repr, known))}, or without; init makes it"
        )
    for name, value in params.items():
        require_float(where, name, value)
        if value.shape != features:
            refuse(where, f"{name} has shape {list(value.shape)}, x has shape {list(x.shape)}; wanted {list(features)}")
        require_same_dtype(where, "x", x, name, value)


def require_flags(where: str, **flags: Any) -> None:
    """The door of the layers, for what is there or not."""
    for name, value in flags.items():
        require_bool(where, name, value)


def spread(features: Any, x: Any) -> Any:
    """Features as they broadcast against x, in its dtype."""
    return features.reshape((1,) * (x.ndim - features.ndim) + features.shape).astype(x.dtype)

"""Per parameter leaf: sizes of weight, gradient and update, gradient noise, agreement with the last gradient, symmetry of units."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.doctor.signals import squared
from fdl.doctor.watch import Seen
from fdl.op import accumulator


def leaves(seen: dict[str, Seen]) -> list[tuple[str, str]]:
    """(layer, leaf) of every parameter array, in the order of execution; of nested ones the leaf is "block/w"."""
    return [(name, path) for name, one in seen.items() for path in _flat(one.params)]


def leaf(tree: Any, layer: str, path: str, own: str | None = None) -> Any:
    """One array of params, or of a tree like it. own: the name of a model that is a single layer, whose params are the tree."""
    steps = path.split("/") if layer == own else [*layer.split("/"), *path.split("/")]
    for step in steps:
        tree = tree[step]
    return tree


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {path: v for name, inner in tree.items() for path, v in _flat(inner, f"{prefix}/{name}".strip("/")).items()}


def dot(a: Any, b: Any) -> Any:
    dtype = accumulator(a.dtype)
    return jnp.vdot(a.astype(dtype).reshape(-1), b.astype(dtype).reshape(-1))


def spread(w: Any) -> Any:
    """How far the units (the last axis) differ: max_j |p_j - p_0| / max |p|, where p = r w is seen along a fixed direction r
    without structure; 0 where all units are alike. NaN for a vector, and for a single unit."""
    dtype = accumulator(w.dtype)
    if w.ndim < 2 or w.shape[-1] < 2:
        return jnp.full((), jnp.nan, dtype)
    seen = directions((w.size // w.shape[-1],), dtype) @ w.reshape(-1, w.shape[-1]).astype(dtype)
    largest = jnp.max(jnp.abs(seen))
    return jnp.max(jnp.abs(seen - seen[:1])) / jnp.where(largest > 0, largest, jnp.ones_like(largest))


def noise(seen: Seen, examples: Any, exact: bool) -> dict[str, Any]:
    """{leaf: sum over its entries of the variance, from example to example, of the gradient of one example's loss}.

    G = sum_n g_n, where g_n is example n's share of the batch's gradient; so N g_n is its own gradient, whose mean is G:

        noise = sum_n ||N g_n - G||^2 / (N - 1) = (N^2 sum_n ||g_n||^2 - N ||G||^2) / (N - 1)

    The g_n are all computed (by `vmap`) if `exact`. Dense layers on [N, I] do not need them: g_n = x_n dy_n^T has the norm
    ||x_n|| ||dy_n||. Else sum_n ||g_n||^2 is estimated, without bias: for independent signs s_n it is the expectation of
    ||sum_n s_n g_n||^2 (Hutchinson 1990), and sum_n s_n g_n is what the backward pass makes of the errors s_n dy_n.
    NaN for layers that mix examples and for those in front of one, where the errors of examples are not their own (the shares
    then cancel each other: what is left says nothing of noise); and for fewer than two examples.
    """
    names = _flat(seen.params)
    if seen.state or seen.layer.examples is not None or seen.x.shape[0] < 2:
        return {name: jnp.full((), jnp.nan, accumulator(v.dtype)) for name, v in names.items()}
    shares = _all_shares(seen) if exact else _shares(seen)
    totals = {name: squared(of) for name, of in _flat(seen.dparams).items()}
    several = jnp.maximum(examples - 1, 1)
    return {name: (examples**2 * shares[name] - examples * totals[name]) / several for name in names}


def _shares(seen: Seen) -> dict[str, Any]:
    """{leaf: sum_n ||g_n||^2}, exact or estimated."""
    if seen.layer.name == "dense" and seen.x.ndim == 2:
        wide = accumulator(seen.dy.dtype)
        of_dy, of_x = (jnp.sum(a.astype(wide) ** 2, axis=1) for a in (seen.dy, seen.x))
        return {"w": jnp.vdot(of_x, of_dy), "b": jnp.sum(of_dy)}
    signs = jnp.sign(directions(seen.dy.shape[:1], seen.dy.dtype)).reshape(-1, *(1,) * (seen.dy.ndim - 1))
    return {name: squared(of) for name, of in _flat(seen.layer.backward(seen.residuals, signs * seen.dy)[0]).items()}


def _all_shares(seen: Seen) -> dict[str, Any]:
    def gradient(x, dy, mask):
        mask = None if mask is None else mask[None]
        walk = dataclasses.replace(seen.walk, mask=mask)
        _, _, residuals = seen.layer._run(walk, seen.params, seen.state, x[None])
        return _flat(seen.layer.backward(residuals, dy[None])[0])

    shares = jax.vmap(gradient)(seen.x, seen.dy, seen.walk.mask)
    return {name: squared(share) for name, share in shares.items()}


def directions(shape: tuple[int, ...], dtype: Any) -> Any:
    """Fixed numbers in [-1/2, 1/2) without structure: a start, or signs, that no pattern of a layer is in step with."""
    bits = np.random.default_rng(0).integers(2**23, size=shape)
    return jnp.asarray((bits + 0.5) / 2**23 - 0.5, dtype)

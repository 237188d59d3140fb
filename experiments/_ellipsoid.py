"""The minimum of a convex function with kinks, by its subgradients alone, and a proof of how low it is at least."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Least(NamedTuple):
    point: Any  # [D]
    value: Any
    gap: Any  # the function is nowhere in the starting ball lower than value - gap


def ellipsoid(value_and_gradient: Callable[[Any], tuple[Any, Any]], centre: Any, radius: Any, steps: int) -> Least:
    """Minimise over the ball of `radius` about `centre` [D], D >= 2; under jit and vmap.

    Descent stalls at a kink, where the gradient says nothing about how close the minimum is. Here the minimum is kept
    inside an ellipsoid {z: (z - c)^T P^-1 (z - c) <= 1}. It lies where g (z - c) <= 0, and the least ellipsoid around
    that half is smaller by a factor below 1 that depends on D only (Shor 1977; Grötschel, Lovász & Schrijver 1988,
    chapter 3). Inside, g (z - c) >= -sqrt(g^T P g), which bounds the function from below.
    """
    size = centre.shape[0]
    grown, cut = size**2 / (size**2 - 1), 2 / (size + 1)

    def step(_, carry):
        centre, shape, (point, value, lowest) = carry
        here, g = value_and_gradient(centre)
        width = jnp.sqrt(jnp.maximum(g @ shape @ g, 0.0))
        better = here <= value
        best = jnp.where(better, centre, point), jnp.where(better, here, value), jnp.maximum(lowest, here - width)
        live = width > 1e-20  # an exact minimum, or an ellipsoid flatter than rounding
        towards = jnp.where(live, shape @ g / jnp.where(live, width, 1.0), 0.0)
        smaller = grown * (shape - cut * jnp.outer(towards, towards))
        return centre - towards / (size + 1), jnp.where(live, smaller, shape), best

    start = centre, radius**2 * jnp.eye(size), (centre, jnp.inf, -jnp.inf)
    point, value, lowest = jax.lax.fori_loop(0, steps, step, start)[2]
    return Least(point, value, value - lowest)

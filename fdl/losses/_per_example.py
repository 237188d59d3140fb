"""What the losses that compare pred [..., D] with target [..., D] share: the door, and the way back from their mean."""

import jax.numpy as jnp

from fdl.errors import refuse, require_pair
from fdl.op import accumulator


def opened(where, pred, target, names=("pred", "target")):
    """(pred, target), found to match, in the dtype of the computation: float32 for 16 bits."""
    require_pair(where, names[0], pred, names[1], target, 1, "the outputs of an example last")
    if pred.shape[-1] == 0:
        refuse(where, f"{names[0]} has shape {list(pred.shape)}: an example without outputs; leave it out")
    return widened(pred, target)


def widened(*arrays):
    return tuple(x.astype(accumulator(x.dtype)) for x in arrays)


def through_mean(dloss, slope):
    """The cotangent of x where loss = mean_d f(x[d]) and slope[d] = f'(x[d]): dloss [...], slope [..., D]."""
    return times(dloss[..., None] / slope.shape[-1], slope)


def times(dloss, slope):
    """dloss * slope, and exactly 0 where dloss is 0: an example without weight may hold NaN, and 0 * NaN is NaN.

    Only a slope that is not finite is replaced, so that the derivative by dloss is the slope also where dloss is 0.
    """
    return dloss * jnp.where((dloss == 0) & ~jnp.isfinite(slope), jnp.zeros_like(slope), slope)


def step(x):
    """The derivative of max(x, 0): 1 above 0, 0 at the kink and below, NaN for NaN (a comparison would hide it)."""
    return jnp.where(jnp.isnan(x), x, (x > 0).astype(x.dtype))

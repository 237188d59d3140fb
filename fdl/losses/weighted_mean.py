"""The weighted sum divided by the number of examples: Keras's default reduction, `sum_over_batch_size`.

    weighted_mean = 1/N sum_n m[n] w[n] v[n],   N = sum_n m[n]        m the mask, 1 where an example counts; 1 by default

How it differs from `mean`, which divides by the sum of the weights (Keras's `mean_with_sample_weight`): doubling every
weight doubles this value and leaves that one alone, and an example of weight 0 is in N here and nowhere there. With class
weights, or importance weights whose expectation is 1, this is the estimate that keeps its scale from batch to batch; a mask
of padding belongs in `mask`, not in the weights. Without weights the two are the same.

Backward, for a cotangent dmean

    dv[n] = dmean m[n] w[n] / N
    dw[n] = dmean m[n] v[n] / N                          N does not depend on w

Limits.
| input                          | value              | dv          | dw         | why                                             |
|--------------------------------|--------------------|-------------|------------|-------------------------------------------------|
| v NaN or inf at weight 0       | leaves it out      | exactly 0   | v / N      | what has no weight does not count; Keras: NaN   |
| v NaN or inf where masked      | leaves it out      | exactly 0   | exactly 0  | what is masked is not there; Keras: NaN         |
| w NaN where masked             | leaves it out      | exactly 0   | exactly 0  |                                                 |
| all weights 0, or all masked   | 0                  | 0           | v / N, or 0| nothing counts                                  |
| empty                          | refused            |             |            | the mean of nothing; Keras returns an empty array|

Shapes: values [N] or [N, T], weights and mask like values or [N] for values [N, T] (then every step has its example's). The
mask is boolean, or integer with 0 and 1; it has no derivative. 16-bit values are accumulated in float32, and the value is
float32. Errors: InputError, InputTypeError. Source: Keras 3, keras/src/losses/loss.py, reduce_weighted_values.

    >>> fdl.losses.weighted_mean(jnp.float32([1, 3]), jnp.float32([1, 0.5]))  # over the number of examples
    Array(1.25, dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import refuse, refuse_type, require_float, shown
from fdl.losses._weights import aligned, check, counted, summed_back
from fdl.op import Op, accumulator


def equation(values, weights=None, mask=None):
    m = jnp.ones_like(values) if mask is None else aligned(values, mask.astype(bool))
    w = jnp.ones_like(values) if weights is None else aligned(values, weights)
    return jnp.sum(m * w * values) / jnp.sum(m)


def forward(values, weights=None, mask=None):
    require_float("losses.weighted_mean", "values", values)
    if values.size == 0:
        shape = list(values.shape)
        refuse("losses.weighted_mean", f"values has shape {shape}: the mean of nothing; leave out empty batches")
    for name, given in (("weights", weights), ("mask", mask)):
        if given is not None:
            check("losses.weighted_mean", name, given, values)
    if mask is not None and jnp.issubdtype(mask.dtype, jnp.inexact):
        refuse_type("losses.weighted_mean", f"mask is {shown(mask)}, wanted booleans; pass mask != 0, or weights=")
    share, number = _shares(values, weights, mask)
    return jnp.sum(share * counted(values, share)) / number, (values, weights, mask)


def backward(residuals, dmean):
    values, weights, mask = residuals
    share, number = _shares(values, weights, mask)
    dvalues = (dmean / number * share).astype(values.dtype)
    if weights is None or not jnp.issubdtype(weights.dtype, jnp.floating):
        return dvalues, None, None
    present = jnp.ones_like(share) if mask is None else aligned(share, mask.astype(bool))
    return dvalues, summed_back(dmean / number * counted(values, present), weights), None


def _shares(values, weights, mask):
    """(m w, N), of values' shape and a scalar, in the dtype of the sum; w may be NaN where m is 0."""
    dtype = accumulator(values.dtype)
    share = jnp.ones(values.shape, dtype) if weights is None else aligned(values, weights).astype(dtype)
    if mask is None:
        return share, jnp.asarray(values.size, dtype)
    present = aligned(values, mask.astype(bool)).astype(dtype)
    return jnp.where(present == 0, jnp.zeros_like(share), share), jnp.maximum(present.sum(), jnp.ones((), dtype))


weighted_mean = Op(equation, forward, backward, name="losses.weighted_mean")

"""The mean over examples, weighted or not: how every loss becomes one number.

    mean = sum_n w[n] v[n] / sum_n w[n]                  all w equal 1 by default

Backward, for a cotangent dmean, with W = sum_n w[n]

    dv[n] = dmean w[n] / W
    dw[n] = dmean (v[n] - mean) / W                      w[n] stands in the sum and in W: quotient rule

Limits.
| input                     | mean               | dv          | why                                                       |
|---------------------------|--------------------|-------------|-----------------------------------------------------------|
| v NaN or inf at weight 0  | leaves it out      | exactly 0   | what has no weight does not count, and 0 * NaN is avoided |
| all weights 0             | 0                  | 0           | nothing counts; optax gives NaN                           |
| empty                     | refused            |             | the mean of nothing; Keras returns an empty array, optax NaN |
| weights below 0           | as the formula says|             | inf or NaN if they cancel out                             |
| v NaN, by its weight 0    |                    | dw = NaN    | what it would count is not known                          |

A second derivative at an example of weight 0 that holds NaN may be NaN.

Shapes: values [N] or [N, T], weights like values or [N] for values [N, T] (then every step has its example's weight).
16-bit values are accumulated in float32, and the mean is float32. Errors: InputError, InputTypeError.

    >>> fdl.losses.mean(jnp.float32([1, 2, 9]), jnp.float32([1, 1, 0]))
    Array(1.5, dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import refuse, require_float
from fdl.losses._weights import aligned, check, counted, summed_back
from fdl.op import Op, accumulator


def equation(values, weights=None):
    if weights is None:
        return jnp.mean(values)
    weights = aligned(values, weights)
    total = jnp.sum(weights)
    total = jnp.where(jnp.any(weights != 0), total, jnp.ones_like(total))  # nothing counts: 0
    return jnp.sum(weights * values) / total


def forward(values, weights=None):
    require_float("losses.mean", "values", values)
    if values.size == 0:
        refuse("losses.mean", f"values has shape {list(values.shape)}: the mean of nothing; leave out empty batches")
    total_dtype = accumulator(values.dtype)
    if weights is None:
        return jnp.mean(values, dtype=total_dtype), (values, None, None, None)
    check("losses.mean", "weights", weights, values)
    wide_weights = aligned(values, weights).astype(total_dtype)
    total = wide_weights.sum()
    safe_total = jnp.where(jnp.any(wide_weights != 0), total, jnp.ones_like(total))
    mean = jnp.sum(wide_weights * counted(values, wide_weights)) / safe_total
    return mean, (values, weights, mean, safe_total)


def backward(residuals, dmean):
    values, weights, mean, total = residuals
    if weights is None:
        return jnp.broadcast_to(dmean / values.size, values.shape).astype(values.dtype), None
    wide_weights = aligned(values, weights).astype(mean.dtype)
    dvalues = (dmean / total * wide_weights).astype(values.dtype)
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        return dvalues, None
    return dvalues, summed_back(dmean / total * (values.astype(mean.dtype) - mean), weights)


mean = Op(equation, forward, backward, name="losses.mean")

"""The sum over examples, weighted or not: `mean` without its denominator.

    sum = sum_n w[n] v[n]                                all w equal 1 by default

Backward, for a cotangent dsum

    dv[n] = dsum w[n]
    dw[n] = dsum v[n]

Limits.
| input                     | sum                | dv          | why                                                       |
|---------------------------|--------------------|-------------|-----------------------------------------------------------|
| v NaN or inf at weight 0  | leaves it out      | exactly 0   | what has no weight does not count; dw is v, as it is      |
| all weights 0             | 0                  | 0           | nothing counts                                            |
| empty                     | 0                  | empty       | the sum of nothing; the mean of nothing is refused        |

Shapes: values [N] or [N, T], weights like values or [N] for values [N, T] (then every step has its example's weight).
16-bit values are accumulated in float32, and the sum is float32. Errors: InputError, InputTypeError.

    >>> fdl.losses.sum(jnp.float32([1, 2, 9]), jnp.float32([1, 1, 0]))
    Array(3., dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import require_float
from fdl.losses._weights import aligned, check, counted, summed_back
from fdl.op import Op, accumulator


def equation(values, weights=None):
    return jnp.sum(values if weights is None else aligned(values, weights) * values)


def forward(values, weights=None):
    require_float("losses.sum", "values", values)
    total_dtype = accumulator(values.dtype)
    if weights is None:
        return jnp.sum(values, dtype=total_dtype), (values, None)
    check("losses.sum", "weights", weights, values)
    wide_weights = aligned(values, weights).astype(total_dtype)
    return jnp.sum(wide_weights * counted(values, wide_weights)), (values, weights)


def backward(residuals, dsum):
    values, weights = residuals
    if weights is None:
        return jnp.broadcast_to(dsum, values.shape).astype(values.dtype), None
    dvalues = (dsum * aligned(values, weights).astype(dsum.dtype)).astype(values.dtype)
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        return dvalues, None
    return dvalues, summed_back(dsum * values.astype(dsum.dtype), weights)


sum = Op(equation, forward, backward, name="losses.sum")

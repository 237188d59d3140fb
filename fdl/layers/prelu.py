"""PReLU: a leaky ReLU whose slope is learned, one per channel.

    y[n, c] = x[n, c]            for x[n, c] > 0
              s[c] x[n, c]       else

Shapes: x [..., C], s [C], y [..., C]; n runs over all axes before the last.

Backward. y[n, c] depends on x[n, c] and, where that is not positive, on s[c], shared by all examples: errors add up.

    dx[n, c] = dy[n, c] (1 if x[n, c] > 0 else s[c])
    ds[c]    = sum_n dy[n, c] min(x[n, c], 0)

Facts. Lipschitz constant max(1, |s|). It does not saturate; x <= 0 is dead where s = 0.

Limits.
| input            | value     | dx           | ds           | why                                             |
|------------------|-----------|--------------|--------------|-------------------------------------------------|
| x = 0            | 0         | s dy         | 0            | the left slope, as in PyTorch and `leaky_relu`  |
| x = inf          | inf       | dy           | 0            |                                                 |
| x = -inf         | -inf s    | s dy         | -inf dy      | 0 for s = 0: not 0 * -inf                       |
| x = NaN          | NaN       | NaN          | NaN          | loud; PyTorch passes s dy                       |

16-bit inputs are computed and summed in float32 and rounded once. Errors: InputError where the channels of x are not
those of s; InputTypeError for a dtype that is not floating or differs. Source: He et al. 2015,
section 2.

    >>> fdl.ops.prelu({"slope": jnp.float32([0.5])}, jnp.float32([[-2], [2]])).ravel()
    Array([-1.,  2.], dtype=float32)
"""

from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_float, require_number, require_rank_at_least, require_same_dtype
from fdl.layer import Layer, bind
from fdl.op import Op, accumulator


def init(key: Any, spec: jax.ShapeDtypeStruct, dtype: Any, *, slope: float) -> dict:
    require_rank_at_least("prelu", "one example", spec, 1, "channels last")
    return {"slope": jnp.full(spec.shape[-1], slope, dtype)}


def _row(slope, x):
    return slope.reshape((1,) * (x.ndim - 1) + (-1,))  # [..., C]


def equation(params, x):
    return jnp.where(x > 0, x, _row(params["slope"], x) * x)


def forward(params, x):
    _check(params, x)
    slope = _row(params["slope"], x)
    below = jnp.where(slope == 0, jnp.zeros_like(x), slope * x)
    return jnp.where(x <= 0, below, x), (params, x)  # x exists anyway; its signs alone would not give ds


def backward(residuals, dy):
    params, x = residuals
    wide = accumulator(x.dtype)
    x, dy, slope = x.astype(wide), dy.astype(wide), params["slope"].astype(wide)
    dx = dy * jnp.where(x <= 0, _row(slope, x), jnp.where(jnp.isnan(x), x, jnp.ones_like(x)))
    dslope = (dy * jnp.minimum(x, 0)).sum(axis=tuple(range(x.ndim - 1)))  # [C]
    dtype = params["slope"].dtype
    return {"slope": dslope.astype(dtype)}, dx.astype(dtype)


def _check(params, x):
    if not isinstance(params, dict) or set(params) != {"slope"}:
        got = sorted(params) if isinstance(params, dict) else type(params).__name__
        refuse("prelu", f'params is {got}, wanted a dict with "slope" [C]; init makes it')
    slope = params["slope"]
    require_float("prelu", "x", x)
    require_float("prelu", "slope", slope)
    if x.ndim < 1 or slope.shape != x.shape[-1:]:
        channels = x.shape[-1] if x.ndim else "no axis"
        refuse(
            "prelu",
            f"got channels {channels}, its slopes want {list(slope.shape)}: x has shape {list(x.shape)}; "
            "check the layer before",
        )
    require_same_dtype("prelu", "x", x, "slope", slope)


op = Op(equation, forward, backward)


def prelu(slope: float = 0.25) -> Layer:
    """y = x for x > 0, else s x with a learned s per channel (the last axis); params {"slope" [C]}, at first `slope`.

    Weight decay would pull a slope to 0 and so to relu; He et al. use none.

        >>> params, _ = fdl.prelu().init(jax.random.key(0), (8,))
        >>> params["slope"].shape
        (8,)
    """
    require_number("prelu", "slope", slope, -3e38, 3e38, remedy="it is the initial slope for x <= 0")
    return Layer.from_op("prelu", op, bind(init, slope=float(slope)))

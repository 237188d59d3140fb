"""Dropout: in training, y = x m / (1 - rate) with m[i] = 1 with probability 1 - rate, else 0; in use, y = x.

E[y] = x, so nothing is rescaled in use ("inverted" dropout).

Backward. y[i] depends on x[i] alone, with the factor it was multiplied by: dx = dy m / (1 - rate).

The mask comes from 24 random bits per entry against the rate, whatever the dtype of x: a float64 run drops the same entries
as a float32 run.

Limits.
| input          | value                          | gradient         | why                                         |
|----------------|--------------------------------|------------------|---------------------------------------------|
| rate 0         | x                              | dy               | nothing is dropped                          |
| rate 1         | 0                              | 0                | everything is dropped; no 0 * inf           |
| a dropped inf, NaN | 0                          | 0                | chosen by the mask, not multiplied by it    |
| a kept NaN     | NaN                            | dy / (1 - rate)  | linear in x                                 |
| rate outside [0, 1], NaN | refused              |                  | Flax takes -0.1 and scales by 0.91          |

Shapes: x any, key a PRNG key (no cotangent), y as x. Source: Srivastava et al. 2014, section 4.

    >>> y = fdl.ops.dropout(jnp.ones((1000,), jnp.float32), jax.random.key(0), rate=0.5)
    >>> sorted(set(y.tolist()))  # dropped, or made up for
    [0.0, 2.0]
"""

import jax
import jax.numpy as jnp

from fdl.errors import require_float, require_key, require_number
from fdl.layer import Layer
from fdl.layers._training import in_training
from fdl.op import Op


def _keep(x, key, rate):
    uniform = (jax.random.bits(key, x.shape, jnp.uint32) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)
    return uniform >= jnp.asarray(rate, jnp.float32)


def _scaled(keep, x, rate):
    # rate 1 keeps nothing; its 1 / 0 must not be computed, for inf * 0 would come back in a second derivative
    share = 1 - jnp.asarray(rate, x.dtype)
    share = jnp.where(share > 0, share, jnp.ones_like(share))
    return jnp.where(keep, x / share, jnp.zeros((), x.dtype))


def equation(x, key, *, rate=0.5):
    return jnp.where(_keep(x, key, rate), x / (1 - jnp.asarray(rate, x.dtype)), jnp.zeros((), x.dtype))


def forward(x, key, *, rate):
    require_float("dropout", "x", x)
    require_key("dropout", key, "pass key=jax.random.key(0)")
    require_number("dropout", "rate", rate, 0, 1, remedy="it is the probability of dropping an entry")
    keep = _keep(x, key, rate)
    return _scaled(keep, x, rate), keep  # one byte per entry; drawing it again costs more than the rest


def backward(keep, dy, *, rate):
    return _scaled(keep, dy, rate), None


op = Op(equation, forward, backward)


def dropout(rate: float) -> Layer:
    """Drops entries with probability `rate` in training, passes x in use. Needs a key when training.

    >>> y, _ = fdl.dropout(0.5).apply({}, {}, jnp.ones((2, 3), jnp.float32), train=True, key=jax.random.key(0))
    >>> y.shape
    (2, 3)
    """
    require_number("dropout", "rate", rate, 0, 1, remedy="it is the probability of dropping an entry")
    return in_training(op.bind(rate=rate))

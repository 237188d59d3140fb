"""L1: the penalty that makes weights exactly 0.

    penalty = strength * sum |w|                       Keras's convention, and Lasso's with strength = its alpha

Backward. Every w stands in the sum once, and d|w|/dw = sign(w): dw = dpenalty strength sign(w), of the same size however
small w is; that is why L1 gets weights to 0 and L2, whose pull fades with w, does not. A filtered-out array gets 0.

Limits.
| w          | penalty     | dw        | why                                                                               |
|------------|-------------|-----------|-----------------------------------------------------------------------------------|
| 0, -0      | 0           | 0         | the subgradients are [-strength, strength]; jax.grad of abs: +strength; torch: 0 |
| tiny       | strength w  | +-strength| the pull does not fade                                                            |
| inf        | inf         | strength  |                                                                                   |
| NaN        | NaN         | NaN       | loud                                                                              |

Gradient steps cross 0 and come back instead of stopping there: for exact zeros take `proximal_l1`, not this gradient.

MAP. -log p(w) of a Laplace prior p(w) = exp(-|w| / b) / 2b is |w| / b + log 2b: minimising
loss + strength sum |w| maximises p(data | w) p(w), if the loss is -log p(data | w), with b = 1 / strength. For a loss that is
the mean over N examples of their -log likelihood, b = 1 / (N strength).

`strength` may be a traced scalar. Sums are accumulated in float32 for 16 bits.
Errors: InputError for a negative or NaN strength, or a filter that matches no array.
Source: Tibshirani 1996, sections 1 and 5; Goodfellow, Bengio & Courville 2016, section 7.1.2.
"""

from typing import Any

import jax.numpy as jnp

from fdl.errors import require_number
from fdl.op import Op
from fdl.regularizers._chosen import Filter, chosen, like, pulled, total, weights_only


def equation(params, *, strength, filter):
    return sum(like(strength, w) * jnp.sum(jnp.abs(w)) for seen, w in chosen("l1", params, filter) if seen)


def forward(params, *, strength, filter):
    norm = total("l1", params, filter, lambda w: jnp.sum(jnp.abs(w)))
    return like(strength, norm) * norm, params  # the signs are rebuilt


def backward(params, dpenalty, *, strength, filter):
    slope = lambda w: dpenalty.astype(w.dtype) * like(strength, w) * jnp.sign(w)  # sign(0) = 0
    return (pulled("l1", params, filter, slope),)


_L1 = Op(equation, forward, backward, name="regularizers.l1")


def l1(strength: Any, *, filter: Filter = weights_only) -> Op:
    """strength * sum |w| (see the module's docstring): a Laplace prior, with exact zeros by `proximal_l1`.

    >>> fdl.regularizers.l1(0.5)({"w": jnp.float32([[1, -3]]), "b": jnp.float32([9])})  # biases are left out
    Array(2., dtype=float32)
    """
    require_number("regularizers.l1", "strength", strength, 0, float("inf"), remedy="a penalty pushes towards 0")
    return _L1.bind(strength=strength, filter=filter)

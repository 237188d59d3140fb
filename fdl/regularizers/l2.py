"""L2: the penalty that makes weights small.

    penalty = strength * sum w^2                       Keras's convention
    penalty = strength / 2 * sum w^2                   with `half`: the gradient is then strength w, as in weight decay

Backward. Every w stands in the sum once: dw = dpenalty 2 strength w, or dpenalty strength w with `half`. A filtered-out
array gets 0. Under plain SGD the second is weight decay, w <- (1 - learning_rate strength) w - learning_rate dloss; under
Adam it is not, because Adam divides this gradient too by the root of its second moment. Decoupled decay is
`optax.adamw(learning_rate, weight_decay=strength, mask=fdl.regularizers.mask)` (Loshchilov & Hutter 2019, section 2).

Limits.
| w                    | penalty | dw           | why                                                                       |
|----------------------|---------|--------------|---------------------------------------------------------------------------|
| 0                    | 0       | 0            |                                                                           |
| beyond 1.8e19, float32| inf    | 2 strength w | the square overflows, the gradient does not                               |
| NaN                  | NaN     | NaN          | loud                                                                      |

MAP. -log p(w) of a Gaussian prior of variance v is w^2 / 2v + a constant: minimising loss + strength sum w^2 maximises
p(data | w) p(w), if the loss is -log p(data | w), with v = 1 / (2 strength), or 1 / strength with `half`. For a loss that
is the mean over N examples of their -log likelihood, v = 1 / (2 N strength).

`strength` may be a traced scalar. Sums are accumulated in float32 for 16 bits.
Errors: InputError for a negative or NaN strength, or a filter that matches no array.
Source: Goodfellow, Bengio & Courville 2016, sections 7.1.1 and 5.6.1.
"""

from typing import Any

import jax.numpy as jnp

from fdl.errors import require_bool, require_number
from fdl.op import Op
from fdl.regularizers._chosen import Filter, chosen, like, pulled, total, weights_only


def equation(params, *, strength, half, filter):
    share = strength / 2 if half else strength
    return sum(like(share, w) * jnp.sum(w**2) for seen, w in chosen("l2", params, filter) if seen)


def forward(params, *, strength, half, filter):
    squares = total("l2", params, filter, lambda w: jnp.sum(w * w))
    return like(strength / 2 if half else strength, squares) * squares, params


def backward(params, dpenalty, *, strength, half, filter):
    factor = strength if half else 2 * strength
    return (pulled("l2", params, filter, lambda w: dpenalty.astype(w.dtype) * like(factor, w) * w),)


_L2 = Op(equation, forward, backward, name="regularizers.l2")


def l2(strength: Any, *, half: bool = False, filter: Filter = weights_only) -> Op:
    """strength * sum w^2, or strength / 2 * sum w^2 with `half` (see the module's docstring): a Gaussian prior.

    >>> fdl.regularizers.l2(0.5)({"w": jnp.float32([[1, -3]]), "b": jnp.float32([9])})
    Array(5., dtype=float32)
    """
    require_number("regularizers.l2", "strength", strength, 0, float("inf"), remedy="a penalty pushes towards 0")
    require_bool("regularizers.l2", "half", half)
    return _L2.bind(strength=strength, half=half, filter=filter)

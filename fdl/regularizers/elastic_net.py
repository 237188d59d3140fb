"""Elastic net: L1 and L2 together, so that weights of correlated inputs shrink to 0 together instead of one of them.

    penalty = l1 * sum |w| + l2 * sum w^2              Keras's L1L2(l1, l2)
    penalty = l1 * sum |w| + l2 / 2 * sum w^2          with `half`: scikit-learn's ElasticNet(alpha, l1_ratio) is
                                                       l1 = alpha l1_ratio, l2 = alpha (1 - l1_ratio)

Backward. The sum of both: dw = dpenalty (l1 sign(w) + 2 l2 w), or dpenalty (l1 sign(w) + l2 w) with `half`. A
filtered-out array gets 0.

Limits.
| w                     | penalty | dw              | why                                                                   |
|-----------------------|---------|-----------------|-----------------------------------------------------------------------|
| 0, -0                 | 0       | 0               | the subgradients are [-l1, l1]; jax.grad of abs gives +l1             |
| beyond 1.8e19, float32| inf     | l1 sign(w) + 2 l2 w | the square overflows, the gradient does not                       |
| NaN                   | NaN     | NaN             | loud                                                                  |

Where l1 or l2 is 0 this is `l2` or `l1`. MAP: a prior that is the product of a Laplace and a Gaussian density, normalised.
Both strengths may be traced scalars. Errors: InputError for a negative or NaN strength, or a filter that matches no array.
Source: Zou & Hastie 2005, section 2.1 (the "naive" elastic net).
"""

from typing import Any

import jax.numpy as jnp

from fdl.errors import require_bool, require_number
from fdl.op import Op
from fdl.regularizers._chosen import Filter, added, chosen, like, pulled, total, weights_only


def equation(params, *, l1, l2, half, filter):
    share = l2 / 2 if half else l2
    return sum(
        like(l1, w) * jnp.sum(jnp.abs(w)) + like(share, w) * jnp.sum(w**2)
        for seen, w in chosen("elastic_net", params, filter)
        if seen
    )


def forward(params, *, l1, l2, half, filter):
    norm = total("elastic_net", params, filter, lambda w: jnp.sum(jnp.abs(w)))
    squares = total("elastic_net", params, filter, lambda w: jnp.sum(w * w))
    return added([like(l1, norm) * norm, like(l2 / 2 if half else l2, squares) * squares]), params


def backward(params, dpenalty, *, l1, l2, half, filter):
    factor = l2 if half else 2 * l2
    slope = lambda w: dpenalty.astype(w.dtype) * (like(l1, w) * jnp.sign(w) + like(factor, w) * w)
    return (pulled("elastic_net", params, filter, slope),)


_ELASTIC_NET = Op(equation, forward, backward, name="regularizers.elastic_net")


def elastic_net(l1: Any, l2: Any, *, half: bool = False, filter: Filter = weights_only) -> Op:
    """l1 * sum |w| + l2 * sum w^2, or l2 / 2 with `half` (see the module's docstring).

    >>> fdl.regularizers.elastic_net(l1=1.0, l2=0.5)({"w": jnp.float32([[1, -3]])})
    Array(9., dtype=float32)
    """
    for name, strength in (("l1", l1), ("l2", l2)):
        remedy = "a penalty pushes towards 0"
        require_number("regularizers.elastic_net", name, strength, 0, float("inf"), remedy=remedy)
    require_bool("regularizers.elastic_net", "half", half)
    return _ELASTIC_NET.bind(l1=l1, l2=l2, half=half, filter=filter)

"""Orthogonal: the penalty that turns the rows, or the columns, of every weight matrix away from each other.

    n[i] = u[i] / |u[i]|        G[i, j] = n[i] . n[j]        u the S rows of w, or its columns
    penalty = strength * mean_{i < j} |G[i, j]| = strength / (S (S - 1)) * sum_{i != j} |G[i, j]|

Keras's OrthogonalRegularizer. The penalty is between 0 (orthogonal) and strength (all parallel) for each array, and sums
over the arrays. It says nothing about lengths. More rows than columns cannot all be orthogonal; take the shorter mode.
Arrays of rank above 2, such as convolution kernels [K, K, I, O], are matrices [K K I, O] here; Keras refuses them.

Backward, with c = dpenalty strength / (S (S - 1))

    dG[i, j] = c sign(G[i, j]) for i != j, 0 on the diagonal
    dn[i]    = sum_j (dG[i, j] + dG[j, i]) n[j] = 2 sum_j dG[i, j] n[j]                     dn = 2 dG n
    du[i]    = (dn[i] - n[i] (n[i] . dn[i])) / |u[i]|         the part of dn along n[i] would only change the length

Limits.
| input                  | penalty           | du            | why                                                              |
|------------------------|-------------------|---------------|------------------------------------------------------------------|
| a row of zeros         | its products are 0| 0             | it has no direction; Keras's gradient is NaN                     |
| orthogonal rows, G = 0 | 0                 | 0             | 0 is a subgradient of |G| there                                  |
| parallel rows          | strength          | 0             | G is at its extreme, also among the directions                   |
| one row                | 0                 | 0             | no pairs; Keras gives NaN (0 / 0)                                |
| rows of 1e25 or 1e-25  | as at length 1    | finite        | rows are scaled by their largest entry before they are squared   |
| NaN                    | NaN               | NaN           | loud                                                             |

`strength` may be a traced scalar. Errors: InputError for a negative or NaN strength, another mode, a filter that matches no
array or chooses one of rank below 2.
Source: Keras 3, keras/src/regularizers/regularizers.py; derivation above.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_number
from fdl.op import Op
from fdl.regularizers._chosen import Filter, chosen, like, pulled, total, weights_only


def equation(params, *, strength, mode, filter):
    value = 0
    for seen, w in chosen("orthogonal", params, filter):
        if seen:
            n = _rows(w, mode)
            n = n / jnp.linalg.norm(n, axis=1, keepdims=True)
            value += like(strength, w) * jnp.sum(jnp.abs((n @ n.T) * _pairs(n)))
    return value


def forward(params, *, strength, mode, filter):
    def mean_product(w):
        n, _ = _directions(_rows(w, mode))
        return jnp.sum(jnp.abs(_products(n, n.T)) * _pairs(n))

    value = total("orthogonal", params, filter, mean_product)
    return like(strength, value) * value, params  # directions and products, [S, D] and [S, S], are rebuilt


def backward(params, dpenalty, *, strength, mode, filter):
    def pull(w):
        u = _rows(w, mode)
        n, length = _directions(u)
        dgram = dpenalty.astype(w.dtype) * like(strength, w) * jnp.sign(_products(n, n.T)) * _pairs(n)
        dn = 2 * _products(dgram, n)
        du = (dn - n * jnp.sum(n * dn, axis=1, keepdims=True)) / length
        du = jnp.where(jnp.any(u != 0, axis=1, keepdims=True), du, jnp.zeros_like(du))
        return (du if mode == "rows" else du.T).reshape(w.shape)

    return (pulled("orthogonal", params, filter, pull),)


def _rows(w, mode):
    """The vectors to be made orthogonal, [S, D]."""
    if w.ndim < 2:
        refuse("regularizers.orthogonal", f"the filter chooses an array of shape {list(w.shape)}, wanted a matrix")
    matrix = w.reshape(-1, w.shape[-1])
    return matrix if mode == "rows" else matrix.T


def _directions(u):
    """(u / |u|, |u|) by row, 0 and 1 for a row of zeros: scaled, so that no square overflows or vanishes."""
    # the result does not depend on the scale: it is no path of the derivative
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(u), axis=1, keepdims=True))
    scale = jnp.where(scale == 0, jnp.ones_like(scale), scale)
    u = u / scale
    square = jnp.sum(u * u, axis=1, keepdims=True)
    length = jnp.sqrt(jnp.where(square == 0, jnp.ones_like(square), square))
    return u / length, length * scale


def _products(a, b):
    return jnp.matmul(a, b, precision="highest")  # a product rounded to another sign would turn the gradient round


def _pairs(n):
    """1 / (S (S - 1)) off the diagonal, 0 on it."""
    size = n.shape[0]
    return (1 - jnp.eye(size, dtype=n.dtype)) / max(1, size * (size - 1))


_ORTHOGONAL = Op(equation, forward, backward, name="regularizers.orthogonal")


def orthogonal(strength: Any = 0.01, *, mode: str = "rows", filter: Filter = weights_only) -> Op:
    """strength * mean |cosine| between the rows or columns of every weight matrix (see the module's docstring).

    >>> fdl.regularizers.orthogonal(1.0)({"w": jnp.float32([[1, 0], [0, 2]])})
    Array(0., dtype=float32)
    """
    remedy = "a negative one would make vectors parallel"
    require_number("regularizers.orthogonal", "strength", strength, 0, float("inf"), remedy=remedy)
    if mode not in ("rows", "columns"):
        refuse("regularizers.orthogonal", f"mode is {mode!r}, wanted 'rows' or 'columns'")
    return _ORTHOGONAL.bind(strength=strength, mode=mode, filter=filter)

"""Whitening over a batch: mean 0, and covariance the identity. Of all matrices that do this, the symmetric one (ZCA).

    mean = 1/m sum_n x[n]                  d[n] = x[n] - mean
    S = 1/m sum_n d[n]^T d[n] + eps I      S = U diag(l) U^T        y[n] = d[n] W,  W = S^(-1/2) = U diag(l^(-1/2)) U^T

n runs over the m examples and, for images and sequences, all places. The symmetric root moves x least and has no arbitrary signs,
permutations or rotations, as U alone has (PCA whitening): y is a smooth function of x wherever S is positive.

Backward. x reaches y by itself, by the mean, and by S. For an error dy, the part by way of W has dW = d^T dy, of which the symmetric
half G = (dW + dW^T) / 2 counts. A change dS of S changes W by U (F o (U^T dS U)) U^T, where F are the divided differences of l^(-1/2):

    F[i, j] = (l[i]^(-1/2) - l[j]^(-1/2)) / (l[i] - l[j])   = -(r[i] r[j])^2 / (r[i] + r[j])        r = l^(-1/2)

The first form is 0/0 at equal eigenvalues; the second is the same number without a difference, and there it is the derivative
-1/2 l^(-3/2). So nothing is singular where eigenvalues meet, though the eigenvectors are (JAX's derivative of `eigh` is NaN there):

    Sbar = U (F o (U^T G U)) U^T           dd = dy W + 2/m d Sbar           dx = dd - mean_n dd

Second derivatives differentiate this code, `eigh` included: they want distinct eigenvalues.

Limits.
| input                          | y             | dx                  | why                                                   |
|--------------------------------|---------------|---------------------|-------------------------------------------------------|
| equal eigenvalues              | right         | right               | see F                                                 |
| fewer examples than features   | right         | right               | the other eigenvalues are eps                         |
| one example, or all equal      | 0             | 0 (m = 1), finite   | d = 0                                                 |
| S = 0 (eps = 0)                | 0             | 0                   | choice: what does not vary stays at its mean          |
| eps = 0, S singular            | noise         | noise               | eigenvalues that should be 0 are rounding: eps is for that |
| mean 1e4, deviation 1e-2       | right         | right               | an entry of x is subtracted first: exact              |
| deviations up to 3e38 / m      | right         | right               | divided by the largest; their sum is not              |
| NaN                            | NaN           | NaN                 | all examples share S                                  |

The relative error is a few machine epsilons times max(l) / min(l). Cost: 3 products of [m, D] with [D, D], and one eigendecomposition of
[D, D], which is serial: the reason why batch norm normalizes each feature by itself (section 3).

Shapes: x [N, ..., D], y and dx the same. 16-bit inputs are computed in float32. Errors: InputError, InputTypeError.
Source: Ioffe & Szegedy 2015, section 2; Huang, Yang, Lang & Deng 2018, section 3.2, for ZCA; the derivative of a function of a symmetric
matrix by divided differences: Daleckii & Krein 1965.

    >>> y = fdl.ops.whiten(jnp.float32([[1, 2], [3, 5], [2, 2], [0, 3]]))
    >>> (y.T @ y / 4).round(2)  # the covariance of y
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
"""

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_float, require_number, require_rank_at_least
from fdl.layers._moments import reciprocal_root
from fdl.op import Op, accumulator

EPS = 1e-5


def equation(x, *, eps=EPS):
    d = x - jnp.mean(x, axis=tuple(range(x.ndim - 1)), keepdims=True)
    rows = d.reshape(-1, x.shape[-1])
    s = rows.T @ rows / len(rows) + jnp.asarray(eps, x.dtype) * jnp.eye(x.shape[-1], dtype=x.dtype)
    l, u = jnp.linalg.eigh(s)
    return d @ (u / jnp.sqrt(l)[None, :] @ u.T)


def forward(x, *, eps):
    _check(x, eps)
    d, size = _deviations(x)
    covariance, eps = d.T @ d / len(d), jnp.asarray(eps, d.dtype) / size / size
    l, u = jnp.linalg.eigh(covariance)
    r = reciprocal_root(jnp.maximum(l, 0) + eps)  # a covariance has no negative eigenvalues, its rounding may
    y = d @ _rotated(u, r)
    # d is not kept: it is one subtraction per entry of x, which is there anyway
    return y.reshape(x.shape).astype(x.dtype), (x, u, r)


def backward(residuals, dy):
    x, u, r = residuals
    d, size = _deviations(x)
    dy = dy.astype(r.dtype).reshape(d.shape)
    g = u.T @ (d.T @ dy) @ u
    sums = r[:, None] + r[None, :]
    differences = -((r[:, None] * r[None, :]) ** 2) / jnp.where(sums > 0, sums, jnp.ones_like(sums))  # F [D, D]
    dcovariance = u @ (differences * (g + g.T)) @ u.T  # 2 Sbar
    dd = dy @ _rotated(u, r) + d @ (dcovariance / len(d))
    dx = (dd - jnp.mean(dd, axis=0, keepdims=True)) / size
    return (dx.reshape(x.shape).astype(x.dtype),)


def _rotated(u, r):
    """W = U diag(r) U^T."""
    return (u * r[None, :]) @ u.T


def _deviations(x):
    """(d [m, D] divided by a size, that size): y does not depend on it, and the squares do not overflow."""
    rows = x.astype(accumulator(x.dtype)).reshape(-1, x.shape[-1])
    shifted = rows - jax.lax.stop_gradient(rows[:1])
    d = shifted - jnp.mean(shifted, axis=0, keepdims=True)
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(d)))
    size = jnp.where((size > 1) & jnp.isfinite(size), size, jnp.ones_like(size))
    return d / size, size


def _check(x, eps):
    where = "whiten"
    require_float(where, "x", x)
    require_rank_at_least(where, "x", x, 2, "examples first, features last")
    if 0 in x.shape:
        refuse(where, f"x has shape {list(x.shape)}: there is nothing to take a covariance of; leave out empty batches")
    require_number(where, "eps", eps, 0, float("inf"), remedy="it is added to the eigenvalues, 1e-5 by default")


op = Op(equation, forward, backward, name="whiten")

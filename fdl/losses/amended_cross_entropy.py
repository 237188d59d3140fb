"""Amended cross-entropy: the cost of each of K classifiers in an ensemble, less what the others would pay for its code.

    loss[k] = H(p, q[k]) - lambda/K sum_{j != k} H(q[j], q[k])        H(a, b) = - sum_v a[v] log b[v]
            = - sum_v w[k, v] log q[k, v]                             w[k, v] = p[v] - lambda/K sum_{j != k} q[j, v]

lambda, here `diversity`, is between 0 (each does its best alone) and 1 (as diverse as possible).

Backward. q[k] is in loss[k] under the logarithm, and in every other loss[j] as a part of w[j]; so for a cotangent dloss [K]

    dq[k, v] = - dloss[k] w[k, v] / q[k, v] + lambda/K sum_{j != k} dloss[j] log q[j, v]
    dp[v]    = - sum_k dloss[k] log q[k, v]

The second term of dq is what k does to the costs of the others. Training each classifier on its own cost alone, as the paper
does, leaves it out: pass the others through `jax.lax.stop_gradient`.

Limits.
| input                | loss[k]       | dq[k, v]            | why                                                               |
|----------------------|---------------|---------------------|-------------------------------------------------------------------|
| diversity = 0        | H(p, q[k])    | - dloss p/q         | cross_entropy.py, and its limits                                  |
| q[k, v] = 0, w > 0   | inf           | -inf                | what happened was impossible                                      |
| q[k, v] = 0, w < 0   | -inf          | inf                 | only others believe in v: no lower bound, the reward has no end   |
| q[k, v] = 0, w = 0   | leaves it out | the second term     | w log q -> 0                                                      |
| q[j, v] = 0, j != k  |               | -inf (diversity > 0)| a little mass there makes loss[j] -inf                            |
| q < 0, q = inf, NaN  | NaN           | NaN                 | not a probability: loud                                           |

Shapes: pred q [..., K, V], target p [..., V], loss [..., K]: one value per classifier. Errors: InputError, InputTypeError.
Source: Shoham & Permuter 2019 (arXiv 2007.08140), as given in Wikipedia's "Cross-entropy". The default diversity is the middle
of its range, not a recommendation.

    >>> two = jnp.float32([[[0.5, 0.5], [0.5, 0.5]]])  # what two members say of one example
    >>> fdl.losses.amended_cross_entropy(two, jnp.float32([[1, 0]]), diversity=0.5)[0, 0] / jnp.log(2)  # 1 - 1/4
    Array(0.75, dtype=float32)
"""

import jax.numpy as jnp

from fdl.errors import refuse, require_float, require_number, require_rank_at_least, require_same_dtype
from fdl.losses._per_example import times, widened
from fdl.losses._probabilities import measure, ratio, surprise
from fdl.op import Op


def equation(pred, target, *, diversity=0.5):
    count = pred.shape[-2]
    share = jnp.asarray(diversity, pred.dtype) / count
    h = -jnp.einsum("...jv,...kv->...jk", pred, jnp.log(pred))  # [..., K, K], H(q[j], q[k])
    others = jnp.sum(h, axis=-2) - jnp.einsum("...kk->...k", h)
    return -jnp.einsum("...v,...kv->...k", target, jnp.log(pred)) - share * others


def forward(pred, target, *, diversity):
    _check(pred, target, diversity)
    q, w, _ = _weights(pred, target, diversity)
    return jnp.sum(surprise(w, q), axis=-1), (pred, target)


def backward(residuals, dloss, *, diversity):
    pred, target = residuals
    q, w, share = _weights(pred, target, diversity)
    dloss, log_q = dloss[..., None], jnp.log(q)
    dpred = _others(times(share * dloss, log_q)) - times(dloss, ratio(w, q))
    dtarget = -jnp.sum(times(dloss, log_q), axis=-2)
    return dpred.astype(pred.dtype), dtarget.astype(target.dtype)


def _weights(pred, target, diversity):
    """(q, w, lambda/K)"""
    q, p = widened(pred, target)
    q = measure(q)
    share = jnp.asarray(diversity, q.dtype) / q.shape[-2]
    return q, p[..., None, :] - share * _others(q), share


def _others(x):
    """sum_{j != k} x[..., j, :] for each k. Not the total less x[k]: that is NaN where x[k] is infinite."""
    count = x.shape[-2]
    own = jnp.eye(count, dtype=bool).reshape((1,) * (x.ndim - 2) + (count, count, 1))
    x = x[..., None, :, :]
    return jnp.sum(jnp.where(own, jnp.zeros_like(x), x), axis=-2)


def _check(pred, target, diversity):
    where = "amended_cross_entropy"
    require_float(where, "pred", pred)
    require_float(where, "target", target)
    require_rank_at_least(where, "pred", pred, 2, "classifiers, then classes")
    if target.shape != pred.shape[:-2] + pred.shape[-1:]:
        refuse(
            where,
            f"pred has shape {list(pred.shape)} and target has shape {list(target.shape)}; wanted pred [..., K, V] for K "
            f"classifiers and target {[*pred.shape[:-2], pred.shape[-1]]}, the same for all of them",
        )
    require_same_dtype(where, "pred", pred, "target", target)
    require_number(where, "diversity", diversity, 0, 1, remedy="0 is none, 1 the most")


amended_cross_entropy = Op(equation, forward, backward)

"""What the losses of probabilities and logits share: the door, logarithms that are right at 0, and label smoothing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_axis, require_bool, require_number, require_pair
from fdl.losses._per_example import widened
from fdl.losses.softmax_cross_entropy import shifted


def opened_along(where, pred, target, from_logits, label_smoothing, axis):
    """(pred, target), found to match, in the dtype of the computation; the options are checked."""
    require_pair(where, "pred", pred, "target", target, 1, "the entries of an example along an axis")
    require_bool(where, "from_logits", from_logits)
    require_number(where, "label_smoothing", label_smoothing, 0, 1, remedy="0 leaves the labels, 1 forgets them")
    require_axis(where, axis, pred)
    if pred.shape[axis] == 0:
        refuse(where, f"pred has shape {list(pred.shape)}: an example without entries along axis {axis}; leave it out")
    return widened(pred, target)


def smoothed(target, label_smoothing, classes):
    """target (1 - s) + s / classes: the share s of every label is spread over all the classes."""
    s = jnp.asarray(label_smoothing, target.dtype)
    return target * (1 - s) + s / classes


def kept(label_smoothing, dtype):
    """d smoothed / d target."""
    return 1 - jnp.asarray(label_smoothing, dtype)


def classes_last(pred, target, label_smoothing, axis):
    """(pred, smoothed target), both [..., V] and in the dtype of the computation."""
    x, t = (jnp.moveaxis(array, axis, -1) for array in widened(pred, target))
    return x, smoothed(t, label_smoothing, t.shape[-1])


# ---- what is no probability is NaN from here on


def measure(p):
    """p, with NaN where it is no finite number >= 0."""
    return _where_valid((p >= 0) & (p < jnp.inf), p)


def probability(p):
    """p, with NaN outside [0, 1]."""
    return _where_valid((p >= 0) & (p <= 1), p)


def _where_valid(valid, p):
    unsigned = jnp.where(jnp.signbit(p), jnp.zeros_like(p), p)  # 1 / -0.0 would be -inf
    return jnp.where(valid, unsigned, jnp.full_like(p, jnp.nan))


# ---- 0 log 0 = 0, and its derivatives. The guards stand on the input of log and of the division: on their output they would
# leave NaN in second derivatives


def or_one(weight, p):
    """p, and 1 where p and its weight are 0."""
    return jnp.where((weight == 0) & (p == 0), jnp.ones_like(p), p)


def surprise(weight, p):
    """-weight log p, and 0 where both are 0: what cannot happen and does not happen costs nothing."""
    return -weight * jnp.log(or_one(weight, p))


def ratio(weight, p):
    """weight / p, and 0 where both are 0: - d surprise / dp."""
    return weight / or_one(weight, p)


def weighted(weight, x):
    """weight * x, and 0 where the weight is 0 and x infinite."""
    return weight * jnp.where((weight == 0) & jnp.isinf(x), jnp.zeros_like(x), x)


def power(u, gamma):
    """u^gamma for u >= 0, 0^0 = 1; the derivative at 0, infinite for 0 < gamma < 1, is taken as 0."""
    gamma = jnp.asarray(gamma, u.dtype)
    steep = (u == 0) & (gamma < 1)
    at_zero = (gamma == 0).astype(u.dtype)
    return jnp.where(steep, at_zero, jnp.power(jnp.where(steep, jnp.ones_like(u), u), gamma))


# ---- shares of a whole


class Shares(NamedTuple):
    """[..., V] each, with full relative accuracy at both ends: q = 1 - 1e-20 has rest = 1e-20 and log q = -1e-20.

    log_q_counted is 0 where q and t are 0: an infinite log q that does not count would leave NaN in second derivatives.
    """

    q: jax.Array
    rest: jax.Array  # 1 - q
    log_q: jax.Array
    log_q_counted: jax.Array
    total: jax.Array  # [..., 1], what p adds up to


def shares(x, t, from_logits):
    """Of logits, or of masses p, [..., V]; t are the weights of log q."""
    x = x if from_logits else measure(x)
    # the first of the largest, in two reductions: argmax takes three times as long on a CPU
    places = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    largest = x == jnp.max(x, axis=-1, keepdims=True)
    at_top = places == jnp.min(jnp.where(largest, places, x.shape[-1]), axis=-1, keepdims=True)
    nothing = jnp.zeros_like(x)
    top = jnp.sum(jnp.where(at_top, x, nothing), axis=-1, keepdims=True)
    z = shifted(x, top[..., 0]) if from_logits else None
    p = x if z is None else jnp.exp(z)
    others = jnp.sum(jnp.where(at_top, nothing, p), axis=-1, keepdims=True)
    total = others + (top if z is None else 1)
    total = jnp.where(total == 0, jnp.full_like(total, jnp.nan), total)  # no distribution
    q, rest = p / total, jnp.where(at_top, others, total - p) / total
    skipped = (t == 0) & (q == 0)
    if z is not None:
        log_q = z - jnp.log1p(others)
        return Shares(q, rest, log_q, jnp.where(skipped, nothing, log_q), total)
    of_top = -jnp.log1p(others / jnp.where(top == 0, jnp.ones_like(top), top))
    one = jnp.ones_like(q)
    log_q, counted = (jnp.log(jnp.where(at_top | skip, one, q)) for skip in (jnp.zeros_like(at_top), skipped))
    return Shares(q, rest, jnp.where(at_top, of_top, log_q), jnp.where(at_top, of_top, counted), total)

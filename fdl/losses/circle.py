"""Circle loss: pairs of one class are pulled together, pairs of different classes pushed apart, the worst pairs most.

    d[i,j] = max(1 - s[i,j], 0)        s[i,j] = sum_k x[i,k] r[j,k]        embeddings x and references r have unit length
    a[i,j] = - gamma relu(margin + d) (margin - d)             for j of i's class: its positives
    b[i,j] =   gamma relu(1 + margin - d) (1 - margin - d)     for j of another class: its negatives
    loss[i] = log(1 + sum_j exp(a[i,j]) sum_j exp(b[i,j])) = softplus(A + B)        A, B: the two log-sums of exponentials

With `remove_diagonal`, example i is not its own positive. Without references, every example is compared with the batch.

Backward. d softplus(A + B) = sigmoid(A + B) (dA + dB), and dA/da[i,j] is the softmax of a over the positives, so

    ds[i,j] = dloss[i] sigmoid(A + B) (softmax(a)[j] da/ds + softmax(b)[j] db/ds)
    dx = ds r        dr = ds^T x        (both for x where it is its own reference)
    da/dd = gamma (relu(margin + d) - [margin + d > 0] (margin - d)) = 2 gamma d          dd/ds = -[s < 1]
    db/dd = gamma (-relu(1 + margin - d) - [1 + margin - d > 0] (1 - margin - d)) = -2 gamma (1 - d)

Keras differentiates the weights (the relu factors) too, the paper holds them constant: `stop_weights=True` drops the bracketed terms.

Limits.
| input                      | loss | gradient | why                                                                  |
|----------------------------|------|----------|----------------------------------------------------------------------|
| no positive or no negative | 0    | 0        | an empty sum; Keras the same (and it leaves losses of 0 out of its mean) |
| gamma 80, any similarity   | right| right    | log-sums of exponentials: exp(a) may be exp(300)                     |
| s = 1, s > 1 by rounding   | d = 0| 0 through that pair | 0 is a subgradient of the kink                             |
| margin + d = 0 or 1 + margin - d = 0 | 0 for that term | 0 through the weight | likewise; JAX's relu agrees                    |
| similarity +-inf, NaN      | inf or NaN | NaN | loud; lengths other than 1 are not checked                            |

Shapes: pred x [N, D], target [N] int, ref_embeddings r [M, D], ref_labels [M] int (by default pred and target), loss [N].
Errors: InputError, InputTypeError. Source: Sun et al. 2020, eq. 6 and 8; Keras's `circle` (there ref_labels come first).

    >>> x = jnp.float32([[1, 0], [0.6, 0.8], [0, 1]])
    >>> fdl.losses.circle(x, jnp.int32([0, 0, 1])).shape
    (3,)
"""

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_float, require_integer, require_number, require_same_dtype
from fdl.losses._per_example import times
from fdl.op import Op, accumulator


def equation(
    pred,
    target,
    ref_embeddings=None,
    ref_labels=None,
    *,
    remove_diagonal=True,
    gamma=80.0,
    margin=0.4,
    stop_weights=False,
):
    reference = pred if ref_embeddings is None else ref_embeddings
    positive, negative = _pairs(target, target if ref_labels is None else ref_labels, remove_diagonal)
    d = jnp.maximum(1 - jnp.einsum("ik,jk->ij", pred, reference), 0)
    weigh = jax.lax.stop_gradient if stop_weights else lambda weight: weight
    a = -gamma * weigh(jnp.maximum(margin + d, 0)) * (margin - d)
    b = gamma * weigh(jnp.maximum(1 + margin - d, 0)) * (1 - margin - d)
    total = jax.nn.logsumexp(a, axis=1, where=positive) + jax.nn.logsumexp(b, axis=1, where=negative)
    return jax.nn.softplus(total)


def forward(pred, target, ref_embeddings=None, ref_labels=None, *, remove_diagonal, gamma, margin, stop_weights):
    _check(pred, target, ref_embeddings, ref_labels, gamma, margin)
    wide = accumulator(pred.dtype)
    reference = pred if ref_embeddings is None else ref_embeddings
    # gamma magnifies an error of the similarity eighty times: no reduced-precision products
    s = jnp.matmul(pred.astype(wide), reference.astype(wide).T, precision="highest")  # [N, M]
    positive, negative = _pairs(target, target if ref_labels is None else ref_labels, remove_diagonal)
    a, _, b, _ = _exponents(s, gamma, margin, stop_weights)
    log_a, log_b = _log_sum(a, positive), _log_sum(b, negative)  # [N]
    loss = jnp.logaddexp(log_a + log_b, jnp.zeros_like(log_a))
    return loss, (pred, target, ref_embeddings, ref_labels, s, log_a, log_b)


def backward(residuals, dloss, *, remove_diagonal, gamma, margin, stop_weights):
    pred, target, ref_embeddings, ref_labels, s, log_a, log_b = residuals
    positive, negative = _pairs(target, target if ref_labels is None else ref_labels, remove_diagonal)
    a, da, b, db = _exponents(s, gamma, margin, stop_weights)
    slope = jax.nn.sigmoid(log_a + log_b)
    shares = _softmax(a, positive, log_a) * da + _softmax(b, negative, log_b) * db
    ds = times(dloss[:, None], slope[:, None] * shares)
    x = pred.astype(s.dtype)
    # an example without weight may hold NaN, and is a factor of dref
    x = jnp.where((dloss == 0)[:, None] & ~jnp.isfinite(x), jnp.zeros_like(x), x)
    if ref_embeddings is None:
        return jnp.matmul(ds + ds.T, x, precision="highest").astype(pred.dtype), None, None, None
    dpred = jnp.matmul(ds, ref_embeddings.astype(s.dtype), precision="highest")
    dref = jnp.matmul(ds.T, x, precision="highest")
    return dpred.astype(pred.dtype), None, dref.astype(ref_embeddings.dtype), None


def _exponents(s, gamma, margin, stop_weights):
    """a, da/ds, b, db/ds for all pairs, [N, M] each."""
    gamma, margin = jnp.asarray(gamma, s.dtype), jnp.asarray(margin, s.dtype)
    d = jnp.maximum(1 - s, 0)
    dd = -(s < 1).astype(s.dtype)
    near, far = jnp.maximum(margin + d, 0), jnp.maximum(1 + margin - d, 0)  # the two weights
    dnear, dfar = (near > 0).astype(s.dtype), -(far > 0).astype(s.dtype)
    if stop_weights:  # constants, for the second derivative as well
        near, far = jax.lax.stop_gradient((near, far))
        dnear, dfar = jnp.zeros_like(near), jnp.zeros_like(far)
    a, b = -gamma * near * (margin - d), gamma * far * (1 - margin - d)
    return a, gamma * (near - dnear * (margin - d)) * dd, b, gamma * (dfar * (1 - margin - d) - far) * dd


def _log_sum(exponents, mask):
    """log sum exp over the masked entries of each row; -inf for none, with derivative 0."""
    some = mask.any(axis=1)
    kept = jnp.where(mask, exponents, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.where(some, kept.max(axis=1, initial=-jnp.inf), jnp.zeros((), exponents.dtype)))
    total = jnp.exp(kept - top[:, None]).sum(axis=1)
    return jnp.where(some, top + jnp.log(jnp.where(some, total, jnp.ones_like(total))), -jnp.inf)


def _softmax(exponents, mask, log_sum):
    shift = jnp.where(jnp.isneginf(log_sum), jnp.zeros_like(log_sum), log_sum)
    return jnp.exp(jnp.where(mask, exponents - shift[:, None], -jnp.inf))


def _pairs(labels, ref_labels, remove_diagonal):
    """(same class, another class), [N, M]."""
    same = labels[:, None] == ref_labels[None, :]
    return (same & ~jnp.eye(*same.shape, dtype=bool) if remove_diagonal else same), ~same


def _check(pred, target, ref_embeddings, ref_labels, gamma, margin):
    require_number("circle", "gamma", gamma, 0, float("inf"), remedy="Keras's default is 80")
    require_number("circle", "margin", margin, -1, 1, remedy="Keras's default is 0.4")
    name, reference = ("pred", pred) if ref_embeddings is None else ("ref_embeddings", ref_embeddings)
    labels_name, labels = ("target", target) if ref_labels is None else ("ref_labels", ref_labels)
    for n, embeddings, m, of_them in (("pred", pred, "target", target), (name, reference, labels_name, labels)):
        require_float("circle", n, embeddings)
        require_integer("circle", m, of_them)
        if embeddings.ndim != 2 or of_them.shape != embeddings.shape[:1]:
            refuse(
                "circle",
                f"{n} has shape {list(embeddings.shape)}, {m} has shape {list(of_them.shape)}; "
                "wanted embeddings [N, D] and one label for each, [N]",
            )
    require_same_dtype("circle", "pred", pred, name, reference)
    if reference.shape[1] != pred.shape[1]:
        refuse(
            "circle",
            f"pred has shape {list(pred.shape)}, {name} has shape {list(reference.shape)}; they must have equal widths",
        )


circle = Op(equation, forward, backward)

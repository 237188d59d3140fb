"""Linear cross-entropy: the last layer, the softmax and the cross-entropy in one, without the [N, V] logits in memory.

    z[n,v] = sum_d x[n,d] w[d,v] + bias[v]        lse[n] = log sum_v exp(z[n,v])        p[n,v] = exp(z[n,v] - lse[n])
    loss[n] = weights[n] (lse[n] - (1 - e) z[n,target[n]] - e/V sum_v z[n,v] + z_loss lse[n]^2)        e: label_smoothing

The classes are taken `chunk` at a time. Forward keeps for every example the largest logit so far and the sum of
exponentials relative to it, rescaled when a larger one comes; backward computes each chunk's logits again. These are
four products of the size N D V, where the dense form has three, but none of its passes over [N, V] arrays.

Backward. lse's derivative by z[n,v] is p[n,v], so for a cotangent dloss

    dz[n,v] = dloss[n] weights[n] (p[n,v] (1 + 2 z_loss lse[n]) - (1 - e) [v == target[n]] - e/V)
    dx = dz w^T        dw = x^T dz        dbias[v] = sum_n dz[n,v]        dweights[n] = dloss[n] loss[n] / weights[n]

dw and dbias of a chunk are complete when it has been visited, and dx is summed over the chunks, in float32 for 16-bit arguments.

Limits.
| input                           | loss          | gradient         | why                                                          |
|---------------------------------|---------------|------------------|--------------------------------------------------------------|
| logits up to +-1e30             | right         | right            | the largest logit is subtracted first                        |
| a logit of -inf (a masked class)| leaves it out | 0 there          | inf with label smoothing, which wants every class            |
| the target's logit is -inf      | inf           | as p - [v == t]  | an impossible class was wanted                               |
| a logit of +inf (bias)          | 0 or inf      | p is one-hot     | the limit; shared equally among several +inf                 |
| target == ignore_index          | 0             | 0                | exactly, even where x holds NaN                              |
| weight 0                        | 0             | 0 for x, w, bias | likewise; dweights stays dloss times the unweighted loss     |
| NaN with dloss 0                | NaN           | 0                | an example without weight does not count                     |
| target outside [0, V)           | NaN           | NaN              | loud; optax wraps -1, Keras gives 0                          |
| all logits -inf, NaN            | NaN           | NaN              | loud                                                         |

Shapes: x [..., D], w [D, V], target [...] int, bias [V], weights [...] (float; int or bool without a cotangent), loss
[...], at least float32. Errors: InputError, InputTypeError. Source: Milakov & Gimelshein 2018 (the running maximum);
Wijmans et al. 2024 (logits computed again); z_loss: Chowdhery et al. 2022, section 5.

    >>> x, w = jnp.zeros((2, 3), jnp.float32), jnp.ones((3, 4), jnp.float32)
    >>> fdl.losses.linear_cross_entropy(x, w, jnp.int32([0, 3])).round(4)  # log 4: all classes alike
    Array([1.3863, 1.3863], dtype=float32)
"""

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_array, require_float, require_integer, require_number, require_same_dtype
from fdl.losses._per_example import times
from fdl.losses.softmax_cross_entropy_with_integer_labels import indices, one_if_class
from fdl.op import Op, accumulator


def equation(x, w, target, bias=None, weights=None, *, ignore_index=None, label_smoothing=0.0, z_loss=0.0, chunk=None):
    logits = jnp.einsum("...d,dv->...v", x, w)
    if bias is not None:
        logits = logits + bias.reshape((1,) * (x.ndim - 1) + (-1,))
    lse = jnp.log(jnp.sum(jnp.exp(logits), axis=-1))
    hit = jax.nn.one_hot(target, w.shape[1], dtype=logits.dtype)
    wanted = (1 - label_smoothing) * hit + label_smoothing / w.shape[1]
    loss = lse - jnp.sum(wanted * logits, axis=-1) + z_loss * lse**2
    loss = loss * one_if_class(target, logits, ignore_index)
    if ignore_index is not None:
        loss = jnp.where(target == ignore_index, 0.0, loss)
    return loss if weights is None else weights.astype(loss.dtype) * loss


def forward(x, w, target, bias=None, weights=None, *, ignore_index, label_smoothing, z_loss, chunk):
    _check(x, w, target, bias, weights, label_smoothing, z_loss, chunk)
    rows, labels = x.reshape(-1, x.shape[-1]), indices(target.reshape(-1))  # [n, D], [n]
    n, v = rows.shape[0], w.shape[1]
    wide = accumulator(x.dtype)
    huge = float(jnp.finfo(wide).max)

    def visit(kept, start, size):
        top, rest, picked, mean = kept
        z, hit, _ = _logits(rows, w, bias, labels, start, size)
        new = jnp.maximum(top, jax.lax.stop_gradient(z.max(axis=1)))
        # without the target's share: one that is almost sure keeps its digits, where log(rest + 1) would be 0
        others = jnp.where(hit, jnp.zeros_like(z), jnp.exp(z - new[:, None]))
        rest = rest * jnp.exp(top - new) + others.sum(axis=1)
        picked = picked + jnp.where(hit, z, jnp.zeros_like(z)).sum(axis=1)
        if _in_use(label_smoothing):  # the mean of z - top: no digits are lost where all logits are large
            moved = jnp.asarray(start, wide) * jnp.where(top == -huge, jnp.zeros_like(top), top - new)
            mean = mean + (moved + (z - new[:, None]).sum(axis=1)) / v
        return new, rest, picked, mean

    zero = jnp.zeros_like(rows[:, 0], wide)
    # from -huge, not -inf: a chunk of masked classes leaves it there, and exp(-inf + huge) is 0
    first = (zero - huge, zero, zero, zero)
    top, rest, picked, mean = _over_chunks(visit, first, v, _chunk_size(chunk, n, v))
    share = jnp.exp(picked - top)  # of the target
    log_total = jnp.log1p(rest + (share - 1))
    e, z_loss = jnp.asarray(label_smoothing, wide), jnp.asarray(z_loss, wide)
    gap = jnp.where((top == huge) & (picked < huge), jnp.inf, top - picked)
    mean = jnp.where((top == huge) & (mean < 0), -jnp.inf, mean)  # beside +inf every finite logit is infinitely low
    loss = log_total + times(1 - e, gap) - times(e, mean) + times(z_loss, (top + log_total) ** 2)
    loss = jnp.where((labels >= 0) & (labels < v), loss, jnp.nan)
    weight = _weight(labels, weights, ignore_index, wide)
    # the logits are not kept: backward computes them again, chunk by chunk
    return times(weight, loss).reshape(target.shape), (x, w, target, bias, weights, top, rest, share, loss)


def backward(residuals, dloss, *, ignore_index, label_smoothing, z_loss, chunk):
    x, w, target, bias, weights, top, rest, share, loss = residuals
    rows, labels, dloss = x.reshape(-1, x.shape[-1]), indices(target.reshape(-1)), dloss.reshape(-1)
    n, v = rows.shape[0], w.shape[1]
    wide = top.dtype
    weight = _weight(labels, weights, ignore_index, wide)
    # what does not count may hold NaN: every factor of its zero is made finite
    live = (dloss * weight != 0) | jnp.isfinite(loss)
    rows = jnp.where(live[:, None], rows, jnp.zeros_like(rows))
    top, rest, share = (jnp.where(live, a, b) for a, b in ((top, jnp.finfo(wide).max), (rest, 0.0), (share, 1.0)))
    total = rest + share
    lse = jnp.where(live, top + jnp.log(total), 0.0)
    scale = jnp.where(live, jnp.where(jnp.isnan(loss), loss, dloss * weight), 0.0)
    e, z_loss = jnp.asarray(label_smoothing, wide), jnp.asarray(z_loss, wide)
    of_exp, of_all = scale * (1 + 2 * z_loss * lse) / total, scale * e / v
    of_hit = scale * (e + 2 * z_loss * lse * share / total - rest / total)  # p - 1 without the difference
    columns = rows.T.astype(wide)  # [D, n]; transposed once, not by every product: 187 against 240 ms for all of dw

    def visit(kept, start, size):
        dx, dw, dbias = kept
        z, hit, w_chunk = _logits(rows, w, bias, labels, start, size)
        dz = jnp.where(hit, of_hit[:, None], of_exp[:, None] * jnp.exp(z - top[:, None]))
        if _in_use(label_smoothing):
            dz = dz - of_all[:, None]
        dx = dx + jnp.matmul(dz, w_chunk.T.astype(wide))
        dw = jax.lax.dynamic_update_slice_in_dim(dw, jnp.matmul(columns, dz).astype(w.dtype), start, axis=1)
        if bias is not None:
            dbias = jax.lax.dynamic_update_slice_in_dim(dbias, dz.sum(axis=0).astype(bias.dtype), start, axis=0)
        return dx, dw, dbias

    first = (jnp.zeros(rows.shape, wide), jnp.zeros_like(w), None if bias is None else jnp.zeros_like(bias))
    dx, dw, dbias = _over_chunks(visit, first, v, _chunk_size(chunk, n, v))
    dweights = None
    if weights is not None and jnp.issubdtype(weights.dtype, jnp.floating):
        counted = _weight(labels, None, ignore_index, wide)
        dweights = times(dloss, times(counted, loss)).reshape(weights.shape).astype(weights.dtype)
    return dx.reshape(x.shape).astype(x.dtype), dw, None, dbias, dweights


def _over_chunks(visit, kept, v, size):
    """`visit(kept, start, size)` over all classes. The first chunk, which takes what does not divide, is outside the
    loop: under `shard_map` the loop then starts from values that vary over the devices as those it makes."""
    first = v % size or size
    kept = visit(kept, 0, first)
    return jax.lax.fori_loop(0, (v - first) // size, lambda i, kept: visit(kept, first + i * size, size), kept)


def _chunk_size(chunk, n, v):
    """Classes in a chunk: those asked for, or as many as make a tile of a million logits, 512 to 4096, a quarter at most.

    Forward and backward in ms of CPU time (Xeon with AVX-512, float32), by chunk size and for optax's dense form:
    | N, D, V           | 128 | 256 | 512 | 1024 | 2048 | 4096 | optax |
    |-------------------|-----|-----|-----|------|------|------|-------|
    | 64, 256, 32768    | 33  | 41  | 37  | 37   | 35   | 34   | 24    |
    | 512, 256, 32768   | 240 | 215 | 208 | 199  | 197  | 195  | 235   |
    | 2048, 64, 32768   | 296 | 239 | 232 | 228  | 280  | 306  | 409   |
    | 2048, 256, 32768  | 857 | 791 | 752 | 777  | 777  | 797  | 867   |
    | 8192, 256, 8192   | 898 | 853 | 851 | 880  | 886  |      | 866   |
    | 1024, 1024, 16384 | 814 | 746 | 729 | 722  | 710  | 745  | 648   |
    | 4096, 128, 1000   | 27  | 25  | 44  | 45   |      |      | 22    |
    """
    if chunk is None:
        chunk = min(max(2**20 // max(n, 1), 512), 4096, max(v // 4, 128))
    return min(chunk, v)


def _logits(rows, w, bias, labels, start, size):
    """Logits of a chunk and where the target's is, [n, size], and the chunk of w, [D, size]."""
    wide = accumulator(rows.dtype)
    w_chunk = jax.lax.dynamic_slice_in_dim(w, start, size, axis=1)
    z = jnp.matmul(rows, w_chunk, preferred_element_type=wide)
    if bias is not None:
        z = z + jax.lax.dynamic_slice_in_dim(bias, start, size)[None, :].astype(wide)
    z = jnp.minimum(z, jnp.finfo(wide).max)  # +inf less the largest logit is NaN, the largest number less it is 0
    return z, (labels - start)[:, None] == jnp.arange(size, dtype=labels.dtype)[None, :], w_chunk


def _weight(labels, weights, ignore_index, dtype):
    """The weight of every example, [n]; 0 for the targets to ignore."""
    weight = jnp.ones_like(labels, dtype) if weights is None else weights.reshape(-1).astype(dtype)
    return weight if ignore_index is None else jnp.where(labels == ignore_index, 0.0, weight)


def _in_use(option):
    """False for a plain 0: its terms are left out of the program."""
    return not isinstance(option, int | float) or option != 0


def _check(x, w, target, bias, weights, label_smoothing, z_loss, chunk):
    where = "linear_cross_entropy"
    require_number(where, "label_smoothing", label_smoothing, 0, 1, remedy="0 is none")
    require_number(where, "z_loss", z_loss, 0, float("inf"), remedy="0 is none, 1e-4 is common")
    if chunk is not None and not (isinstance(chunk, int) and not isinstance(chunk, bool) and chunk > 0):
        refuse(
            where, f"chunk is {chunk!r}, wanted a number of classes, at least 1, or None to leave it to a measured rule"
        )
    require_float(where, "x", x)
    require_float(where, "w", w)
    require_integer(where, "target", target)
    require_same_dtype(where, "x", x, "w", w)
    if w.ndim != 2 or 0 in w.shape or x.ndim < 1 or x.shape[-1] != w.shape[0]:
        refuse(where, f"x has shape {list(x.shape)}, w has shape {list(w.shape)}; wanted x [..., D] and w [D, V]")
    if target.shape != x.shape[:-1]:
        refuse(
            where, f"target has shape {list(target.shape)}, x has shape {list(x.shape)}; wanted {list(x.shape[:-1])}"
        )
    if bias is not None:
        require_same_dtype(where, "w", w, "bias", bias)
        if bias.shape != w.shape[1:]:
            refuse(where, f"bias has shape {list(bias.shape)}, w has shape {list(w.shape)}; wanted {list(w.shape[1:])}")
    if weights is not None:
        require_array(where, "weights", weights)
        if weights.shape != target.shape:
            refuse(where, f"weights has shape {list(weights.shape)}, target {list(target.shape)}; wanted equal shapes")


linear_cross_entropy = Op(equation, forward, backward)

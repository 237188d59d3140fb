"""CTC: minus the log of the probability that the frames spell the labels, summed over all alignments.

An alignment gives every frame a class; it spells what is left when runs of one class become one and the blanks, class
0, are removed. With p[t,v] the softmax of the logits of frame t,

    loss = - log sum_(alignments that spell the labels) prod_t p[t, class of frame t]

The sum runs over paths through S = 2 L + 1 states: the L labels, with a blank before, between and after them. From one
frame to the next a path stays, goes to the next state, or from a label straight to the next label if they differ.

Backward. Let alpha_t(s) be the log of the probability of frames 0 to t on all paths that are then in state s, and
beta_t(s) that of the frames after t on all paths that start in s: two recursions over one graph, forward and backward
in time. alpha_t(s) + beta_t(s) is then the log of the probability of all paths through s at t, so that the posterior
occupancy of s is its softmax over s. As d log p[t,v] / dz[t,u] = [u == v] - p[t,u], and the occupancies of a frame sum
to 1,

    dlogits[t,v] = dloss (p[t,v] - sum_(s of class v) softmax_s(alpha_t + beta_t)[s])

Every step of both recursions subtracts the log-sum over the states: what adds up over thousands of frames is then one
number, the loss, and the posterior does not lose its digits to it.

Limits.
| input                                  | loss            | gradient     | why                                           |
|----------------------------------------|-----------------|--------------|-----------------------------------------------|
| more labels and repeats than frames    | inf             | 0            | impossible: seen in the loss, no harm in the update; |
|                                        |                 |              | Keras, optax: 1e5, not 0; PyTorch: inf, NaN   |
| labels that need a logit of -inf       | inf             | 0            | likewise                                      |
| no labels                              | - sum log p[t,0] | p - [v == 0] | only blanks                                  |
| no frames                              | 0 or inf        | 0            | 0 for no labels                               |
| frames from logit_lengths on, even NaN | leaves them out | 0            | padding                                       |
| logits up to +-1e30, 20,000 frames     | right           | right        | the largest logit first; normalised steps     |
| a logit of +inf                        | p is one-hot    | p is one-hot | the limit                                     |
| a label outside [1, V) that counts     | NaN             | NaN          | loud: 0 is the blank; Keras and optax take it for a label |
| a length outside [0, T] or [0, L]      | NaN             | NaN          | loud                                          |
| NaN, or a frame of -inf                | NaN             | NaN          | loud                                          |
| one of these three with dloss 0        | NaN             | 0            | an example without weight does not count      |

Shapes: logits [N, T, V], labels [N, L] int, padded with 0, logit_lengths and label_lengths [N] int (by default T and
the number of labels that are not 0), loss [N]. Errors: InputError, InputTypeError. Source: Graves, Fernandez, Gomez &
Schmidhuber 2006, eq. 3 to 16; Keras's `ctc`.

    >>> logits = jnp.zeros((1, 2, 3), jnp.float32)  # two frames; every one of the 9 paths has probability 1/9
    >>> jnp.exp(-fdl.losses.ctc(logits, jnp.int32([[1, 0]]))).round(4)  # "1" is spelt by 11, 1_ and _1
    Array([0.3333], dtype=float32)
"""

import jax
import jax.numpy as jnp

from fdl.errors import refuse, require_classes, require_float, require_integer
from fdl.losses.softmax_cross_entropy import normaliser, shifted
from fdl.losses.softmax_cross_entropy_with_integer_labels import indices
from fdl.op import Op


def equation(logits, labels, logit_lengths=None, label_lengths=None):
    frames, last, states, jump, _ = _graph(logits, labels, logit_lengths, label_lengths)
    p = jnp.exp(logits) / jnp.sum(jnp.exp(logits), axis=-1, keepdims=True)
    p = jnp.take_along_axis(p, states[:, None, :], axis=2)  # [N, T, S]

    def step(a, frame):
        t, p_t = frame
        came = a + _later(a, 1, 0) + jump.astype(a.dtype) * _later(a, 2, 0)
        return jnp.where(t < frames[:, None], came * p_t, a), None

    start = jnp.zeros(states.shape, logits.dtype).at[:, 0].set(1)
    a, _ = jax.lax.scan(step, start, (_places(logits.shape[1])[0], jnp.moveaxis(p, 1, 0)))
    return -jnp.log(jnp.sum(a * last.astype(a.dtype), axis=1))


def forward(logits, labels, logit_lengths=None, label_lengths=None):
    _check(logits, labels, logit_lengths, label_lengths)
    frames, last, states, jump, valid = _graph(logits, labels, logit_lengths, label_lengths)
    top, others, emitted, counts = _frames(logits, states, frames)

    def step(alpha, frame):
        log_p, counts = frame
        came = _log_add(alpha, _later(alpha, 1), jnp.where(jump, _later(alpha, 2), -jnp.inf))
        total, new = _normalised(came + log_p)
        new = jnp.where(counts[:, None], new, alpha)
        return new, (new, jnp.where(counts, total, jnp.zeros_like(total)))

    # before the first frame every path is on the blank at the front
    start = jnp.where(_places(states.shape[1]) == 0, 0.0, -jnp.inf).astype(top.dtype)
    start = jnp.where(valid[:, None], start, jnp.full_like(start, jnp.nan))
    alpha_last, (alpha, totals) = jax.lax.scan(step, start, (emitted, counts))
    log_p = totals.sum(axis=0) + _log_sum(jnp.where(last, alpha_last, -jnp.inf))  # [N]
    # alpha [T, N, S] is kept: to rebuild it would cost backward a third recursion
    return -log_p, (logits, labels, logit_lengths, label_lengths, top, others, alpha, log_p)


def backward(residuals, dloss):
    logits, labels, logit_lengths, label_lengths, top, others, alpha, log_p = residuals
    frames, last, states, jump, _ = _graph(logits, labels, logit_lengths, label_lengths)
    _, _, emitted, counts = _frames(logits, states, frames, (top, others))
    jump_next = jnp.pad(jump, ((0, 0), (0, 2)))[:, 2:]

    def step(beta, frame):
        log_p, counts, alpha = frame
        occupancy, total, _ = _shares(alpha + beta)
        occupancy = occupancy / total[:, None]
        here = beta + log_p
        left = _log_add(here, _sooner(here, 1), jnp.where(jump_next, _sooner(here, 2), -jnp.inf))
        return jnp.where(counts[:, None], _normalised(left)[1], beta), occupancy

    end = jnp.where(last, 0.0, -jnp.inf).astype(top.dtype)
    _, occupancy = jax.lax.scan(step, end, (emitted, counts, alpha), reverse=True)  # [T, N, S]
    p = jnp.exp(shifted(logits, top) - jnp.log1p(others)[..., None])  # [N, T, V]
    error = jax.vmap(lambda p, of, states: p.at[:, states].add(-of), (0, 1, 0))(p, occupancy, states)
    impossible, nan = jnp.isneginf(log_p), jnp.isnan(log_p)
    live = ~impossible & ~((dloss == 0) & nan)  # an example without weight may hold NaN
    dloss = jnp.where(nan, log_p, dloss)
    moves = (counts.T | nan[:, None]) & live[:, None]  # [N, T]
    dlogits = jnp.where(moves[..., None], dloss[:, None, None] * error, jnp.zeros_like(error))
    return dlogits.astype(logits.dtype), None, None, None


def _graph(logits, labels, logit_lengths, label_lengths):
    """Frames that count [N]; of the S = 2 L + 1 states: where a path may end [N, S], the class of each (0 for blanks and
    padding), where one may jump to from two before; and whether labels and lengths make sense [N]."""
    (n, t, v), length = logits.shape, labels.shape[1]
    labels = indices(labels)
    present = jnp.sum(labels != 0, axis=1, dtype=jnp.int32)
    symbols = present if label_lengths is None else label_lengths.astype(jnp.int32)
    frames = jnp.full_like(present, t) if logit_lengths is None else logit_lengths.astype(jnp.int32)
    counted = _places(length) < symbols[:, None]  # [N, L]
    in_range = (labels > 0) & (labels < v)
    valid = (in_range | ~counted).all(axis=1) & (symbols >= 0) & (symbols <= length) & (frames >= 0) & (frames <= t)
    labels = jnp.where(counted & in_range, labels, jnp.zeros_like(labels))
    states = jnp.pad(jnp.stack([jnp.zeros_like(labels), labels], axis=2).reshape(n, 2 * length), ((0, 0), (0, 1)))
    jump = (states != 0) & (states != _later(states, 2, 0))
    place = _places(2 * length + 1) - 2 * symbols[:, None]  # the last label is at -1, the blank after it at 0
    return frames, (place == 0) | (place == -1), states, jump, valid


def _frames(logits, states, frames, normalisers=None):
    """Largest logit and the sum of the other shares [N, T]; log p of every state [T, N, S]; which frames count [T, N]."""
    counts = _places(logits.shape[1]) < frames[:, None]  # [N, T]
    logits = jnp.where(counts[..., None], logits, jnp.zeros_like(logits))  # what does not count may be NaN
    top, others = normalisers or normaliser(logits)
    log_p = shifted(jnp.take_along_axis(logits, states[:, None, :], axis=2), top) - jnp.log1p(others)[..., None]
    return top, others, jnp.moveaxis(log_p, 1, 0), counts.T


def _places(length):
    return jnp.arange(length, dtype=jnp.int32)[None, :]


def _later(x, steps, fill=-jnp.inf):
    """x moved on by some states: what was at s - steps is at s."""
    return jnp.pad(x, ((0, 0), (steps, 0)), constant_values=fill)[:, : x.shape[1]]


def _sooner(x, steps):
    return jnp.pad(x, ((0, 0), (0, steps)), constant_values=-jnp.inf)[:, steps:]


def _log_add(*terms):
    """log of the sum of exponentials; -inf for a sum of nothing, with derivative 0."""
    return _log_sum(jnp.stack(terms, axis=-1))


def _log_sum(x):
    _, total, top = _shares(x)
    return top + jnp.log(total)


def _shares(x):
    """exp(x - top), their sum, and top, the largest x; of a row of -inf all shares are 0, the sum 1 and top is -inf."""
    top = jax.lax.stop_gradient(x.max(axis=-1))
    nothing = jnp.isneginf(top)
    shares = jnp.exp(x - jnp.where(nothing, jnp.zeros_like(top), top)[..., None])
    return shares, jnp.where(nothing, 1.0, shares.sum(axis=-1)), top


def _normalised(x):
    """(log-sum over the states [N], x less it); a row without any path stays -inf."""
    total = _log_sum(x)
    return total, x - jnp.where(jnp.isneginf(total), jnp.zeros_like(total), total)[:, None]


def _check(logits, labels, logit_lengths, label_lengths):
    require_float("ctc", "logits", logits)
    require_integer("ctc", "labels", labels)
    if logits.ndim != 3 or labels.ndim != 2 or labels.shape[0] != logits.shape[0]:
        refuse(
            "ctc",
            f"logits has shape {list(logits.shape)}, labels has shape {list(labels.shape)}; "
            "wanted logits [N, T, V] and labels [N, L], padded with 0",
        )
    require_classes("ctc", "logits", logits)
    for name, lengths in (("logit_lengths", logit_lengths), ("label_lengths", label_lengths)):
        if lengths is not None:
            require_integer("ctc", name, lengths)
            if lengths.shape != logits.shape[:1]:
                refuse(
                    "ctc", f"{name} has shape {list(lengths.shape)}, wanted one for each example, {[logits.shape[0]]}"
                )


ctc = Op(equation, forward, backward)

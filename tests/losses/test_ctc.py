"""CTC: all alignments counted one by one, every row of the limits table, lengths, long sequences, errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN

ctc = fdl.losses.ctc


def spelled(alignment):
    """Runs become one, blanks are removed."""
    return tuple(v for v, _ in itertools.groupby(alignment) if v != 0)


def by_enumeration(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    frames, classes = logits.shape
    paths = itertools.product(range(classes), repeat=frames)
    return -np.log(sum(np.prod(p[range(frames), path]) for path in paths if spelled(path) == labels))


@pytest.mark.parametrize("labels", [(1, 2, 1), (1, 1), (2,), (), (1, 1, 2)], ids=str)
def test_the_sum_over_all_alignments(labels, getkey):
    logits = jax.random.normal(getkey(), (1, 5, 3), jnp.float64)
    padded = jnp.asarray([[*labels, 0, 0, 0][:3]])
    np.testing.assert_allclose(ctc(logits, padded)[0], by_enumeration(np.asarray(logits[0]), labels), rtol=1e-12)


def test_value_as_in_keras():
    """The first example of Keras's test; its second one, [1, 2, 0, 2], has a blank among the labels."""
    logits = (jnp.arange(24, dtype=jnp.float32).reshape(2, 4, 3) - 12) / 100
    value = ctc(logits, jnp.asarray([[1, 2, 1, 0], [1, 2, 0, 2]]))
    np.testing.assert_allclose(value[0], 2.4429314, rtol=1e-6)
    assert jnp.isnan(value[1])


THIRD = np.log(3.0)
Z = [0.0, 0.0, 0.0]
# logits [T, 3], labels, loss, gradient [T, 3] or one number for all of it
ROWS = {
    "aa in two frames": ([Z, Z], [1, 1], INF, 0.0),
    "three labels in two frames": ([Z, Z], [1, 2, 1], INF, 0.0),
    "a label of probability 0": ([[0.0, -INF, 0.0]] * 2, [1], INF, 0.0),
    "a masked class that is not needed": (
        [[0.0, 0.0, -INF]] * 2,
        [1],
        np.log(4 / 3),
        [[1 / 2 - 1 / 3, 1 / 2 - 2 / 3, 0.0]] * 2,
    ),
    "no labels": ([Z, Z], [], 2 * THIRD, [[-2 / 3, 1 / 3, 1 / 3]] * 2),
    "one frame": ([Z], [2], THIRD, [[1 / 3, 1 / 3, -2 / 3]]),
    "huge": ([[0.0, 1e30, -1e30]] * 2, [1], 0.0, 0.0),
    "huge and wrong": ([[0.0, 1e30, -1e30]] * 2, [2], 3e30, [[-0.5, 1.0, -0.5]] * 2),
    "equal and huge": ([[1e8] * 3] * 2, [], 2 * THIRD, [[-2 / 3, 1 / 3, 1 / 3]] * 2),
    "+inf on the label": ([[0.0, INF, 0.0]] * 2, [1], 0.0, 0.0),
    "+inf elsewhere": ([[0.0, INF, 0.0]] * 2, [2], INF, 0.0),
    "NaN": ([[0.0, NAN, 0.0], Z], [1], NAN, NAN),
    "a frame of -inf": ([Z, [-INF] * 3], [1], NAN, NAN),
    "a label outside": ([Z, Z], [3], NAN, NAN),
    "a label below": ([Z, Z], [-1], NAN, NAN),
    "a blank among the labels": ([Z, Z, Z], [0, 1], NAN, NAN),
}


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.uint8, np.int64])
def test_limits(dtype):
    """All rows in one batch: none may touch another."""
    rows = {name: row for name, row in ROWS.items() if min([*row[1], 0]) >= np.iinfo(dtype).min}
    frames = max(len(row[0]) for row in rows.values())
    # what lies beyond an example's frames is NaN
    logits = np.stack(
        [np.pad(row[0], ((0, frames - len(row[0])), (0, 0)), constant_values=NAN) for row in rows.values()]
    )
    labels = np.stack([np.pad(np.asarray(row[1], dtype), (0, 3 - len(row[1]))) for row in rows.values()])
    lengths = np.asarray([len(row[0]) for row in rows.values()])
    dloss = np.random.default_rng(1).uniform(0.5, 2, len(rows)).astype(np.float32)

    @jax.jit
    def both(logits, dloss):
        values, pull = jax.vjp(lambda logits: ctc(logits, jnp.asarray(labels), jnp.asarray(lengths)), logits)
        return values, pull(dloss)[0]

    values, gradients = both(jnp.asarray(logits, jnp.float32), jnp.asarray(dloss))
    for i, (name, (_, _, value, gradient)) in enumerate(rows.items()):
        np.testing.assert_allclose(values[i], value, rtol=1e-6, err_msg=name)
        want = np.broadcast_to(np.asarray(gradient, np.float32), (lengths[i], 3))
        np.testing.assert_allclose(gradients[i, : lengths[i]] / dloss[i], want, rtol=1e-5, atol=1e-6, err_msg=name)
        assert np.isnan(value) or (gradients[i, lengths[i] :] == 0).all(), name


def test_lengths():
    logits, labels = jnp.zeros((5, 4, 3), jnp.float32), jnp.asarray([[1, 2]] * 5)
    frames, symbols = jnp.asarray([0, 0, 5, -1, 4]), jnp.asarray([0, 1, 2, 2, 3])
    both = jax.jit(lambda logits: jax.vjp(lambda logits: ctc(logits, labels, frames, symbols), logits))
    values, pull = both(logits)
    np.testing.assert_array_equal(values, [0.0, INF, NAN, NAN, NAN])
    (gradient,) = jax.jit(pull)(jnp.ones(5, jnp.float32))
    assert (gradient[:2] == 0).all() and jnp.isnan(gradient[3:]).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(ctc(logits[:, :0], jnp.asarray([[1, 0]] * 4 + [[0, 0]])), [INF] * 4 + [0.0])
    np.testing.assert_allclose(ctc(logits, labels[:, :0]), [4 * THIRD] * 5, rtol=1e-6)


def test_an_example_without_weight_may_hold_nan():
    logits = jnp.zeros((3, 4, 3), jnp.float32).at[0, 1].set(NAN)
    both = jax.jit(lambda logits: jax.vjp(lambda logits: ctc(logits, jnp.asarray([[1], [7], [2]])), logits))
    values, pull = both(logits)
    (gradient,) = jax.jit(pull)(jnp.asarray([0.0, 0.0, 1.0], jnp.float32))
    assert jnp.isnan(values[:2]).all() and (gradient[:2] == 0).all() and gradient[2].any()


def test_second_derivatives_are_finite_where_nothing_is_possible():
    loss = lambda logits: ctc(logits, jnp.asarray([[1, 1]])).sum()
    curved = jax.jit(jax.grad(lambda logits: jnp.sum(jax.grad(loss)(logits) ** 2)))
    assert (curved(jnp.zeros((1, 2, 3), jnp.float64)) == 0).all()


@pytest.mark.parametrize(("frames", "length", "error"), [(2_000, 100, 1e-3), (20_000, 50, 1e-3)])
def test_long_sequences_in_float32(frames, length, error):
    """The posterior in float32 against float64; at 2,000 frames optax's is off by 3e-2 and PyTorch's by 2e-2."""
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.standard_normal((1, frames, 6)), jnp.asarray(rng.integers(1, 6, (1, length)))
    both = jax.jit(jax.value_and_grad(lambda logits: ctc(logits, labels)[0]))
    logits = logits.astype(np.float32)
    value, gradient = map(np.asarray, both(jnp.asarray(logits)))
    want, want_gradient = both(jnp.asarray(logits, jnp.float64))
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, want_gradient, rtol=0, atol=error)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ctc(jnp.zeros((4, 3)), jnp.zeros((1, 2), jnp.int32)), r"wanted logits \[N, T, V\]"),
        (lambda: ctc(jnp.zeros((2, 4, 3)), jnp.zeros(2, jnp.int32)), r"labels has shape \[2\]"),
        (lambda: ctc(jnp.zeros((2, 4, 3)), jnp.zeros((1, 2), jnp.int32)), r"labels has shape \[1, 2\]"),
        (lambda: ctc(jnp.zeros((2, 4, 3)), jnp.zeros((2, 2))), "labels is float"),
        (lambda: ctc(jnp.zeros((2, 4, 3), jnp.int32), jnp.zeros((2, 2), jnp.int32)), "logits is int32"),
        (
            lambda: ctc(jnp.zeros((2, 4, 3)), jnp.zeros((2, 2), jnp.int32), jnp.zeros(1, jnp.int32)),
            r"logit_lengths has shape \[1\], wanted one for each example",
        ),
        (
            lambda: ctc(jnp.zeros((2, 4, 3)), jnp.zeros((2, 2), jnp.int32), label_lengths=jnp.zeros(2)),
            "label_lengths is float",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

"""Both softmax cross-entropies at the extremes: every row of their limits tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

INT = fdl.losses.softmax_cross_entropy_with_integer_labels
SOFT = fdl.losses.softmax_cross_entropy
INF, NAN = np.inf, np.nan

# logits, label, loss, gradient
ROWS = {
    "overflow": ([1e30, 0.0, -1e30], 1, 1e30, [1.0, -1.0, 0.0]),
    "equal and huge": ([1e8, 1e8, 1e8], 0, np.log(3), [-2 / 3, 1 / 3, 1 / 3]),
    "equal and hugely negative": ([-1e8, -1e8, -1e8], 2, np.log(3), [1 / 3, 1 / 3, -2 / 3]),
    "a masked class": ([0.0, -INF, 0.0], 0, np.log(2), [-0.5, 0.0, 0.5]),
    "the masked class wanted": ([0.0, -INF, 0.0], 1, INF, [0.5, -1.0, 0.5]),
    "+inf on the label": ([INF, 0.0, 1.0], 0, 0.0, [0.0, 0.0, 0.0]),
    "+inf elsewhere": ([INF, 0.0, 1.0], 1, INF, [1.0, -1.0, 0.0]),
    "two +inf share": ([INF, INF, 1.0], 0, np.log(2), [-0.5, 0.5, 0.0]),
    "confidently wrong": ([-1000.0, 0.0, 0.0], 0, 1000 + np.log(2), [-1.0, 0.5, 0.5]),
    "NaN": ([NAN, 0.0, 1.0], 1, NAN, [NAN, NAN, NAN]),
    "no class possible": ([-INF, -INF, -INF], 0, NAN, [NAN, NAN, NAN]),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("which", ["integer", "distribution"])
def test_limits(row, which):
    logits, label, want, want_gradient = ROWS[row]
    logits = jnp.asarray(logits, jnp.float32)
    target = jnp.asarray(label) if which == "integer" else jax.nn.one_hot(label, 3, dtype=jnp.float32)
    loss = INT if which == "integer" else SOFT
    value, gradient = jax.value_and_grad(loss)(logits, target)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(jax.jit(loss)(logits, target), want, rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3, 7, -100])
def test_a_label_outside_the_classes_is_loud(label):
    value, gradient = jax.value_and_grad(INT)(jnp.zeros(3, jnp.float32), jnp.asarray(label))
    assert jnp.isnan(value) and jnp.isnan(gradient).all()


def test_an_example_without_weight_may_hold_nan_or_no_label():
    logits = jnp.zeros((3, 4), jnp.float32).at[0, 1].set(NAN)
    values, pull = jax.vjp(lambda logits: INT(logits, jnp.asarray([1, -100, 2])), logits)
    (gradient,) = pull(jnp.asarray([0.0, 0.0, 1.0], jnp.float32))
    assert jnp.isnan(values[:2]).all() and (gradient[:2] == 0).all() and gradient[2].all()


@pytest.mark.parametrize("poison", [NAN, np.inf, -np.inf])
def test_a_distribution_without_weight_may_hold_anything(poison):
    logits = jnp.asarray([[1.0, 2.0], [poison, 0.0], [poison, poison]], jnp.float32)
    target = jnp.asarray([[1.0, 0.0], [poison, 1.0], [0.0, 1.0]], jnp.float32)
    _, pull = jax.vjp(fdl.losses.softmax_cross_entropy, logits, target)
    for gradient in pull(jnp.asarray([1.0, 0.0, 0.0], jnp.float32)):
        assert (gradient[1:] == 0).all() and gradient[0].all()


def test_no_classes_is_refused():
    for loss in (
        "softmax_cross_entropy_with_integer_labels",
        "sparse_categorical_crossentropy",
        "categorical_generalized_cross_entropy",
    ):
        with pytest.raises(ValueError, match="wanted at least one class"):
            fdl.losses.get(loss)(jnp.zeros((2, 0), jnp.float32), jnp.zeros(2, jnp.int32))
    with pytest.raises(ValueError, match="wanted at least one class"):
        fdl.losses.softmax_cross_entropy(jnp.zeros((2, 0), jnp.float32), jnp.zeros((2, 0), jnp.float32))


def test_small_integers_count_to_any_number_of_classes(getkey):
    """In 8 bits, 300 would be 44: label 44 out of range, or class 300 taken for it."""
    logits, labels = jax.random.normal(getkey(), (2, 301), jnp.float32), jnp.asarray([44, 3])
    both = jax.value_and_grad(lambda logits, labels: INT(logits, labels).sum())
    want = both(logits, labels)
    for dtype in (jnp.uint8, jnp.int8):
        got = both(logits, labels.astype(dtype))
        np.testing.assert_array_equal(got[1], want[1])
        assert got[0] == want[0]


def test_a_target_that_sums_to_s_pulls_with_s(getkey):
    logits, target = jax.random.normal(getkey(), (2, 4), jnp.float64)
    target = jnp.abs(target)
    gradient = jax.grad(SOFT)(logits, target)
    np.testing.assert_allclose(gradient, target.sum() * jax.nn.softmax(logits) - target, rtol=1e-12)


def test_the_two_agree_on_one_hot_targets(getkey):
    logits = 3 * jax.random.normal(getkey(), (5, 4), jnp.float64)
    labels = jnp.asarray([0, 3, 1, 2, 2])
    one_hot = jax.nn.one_hot(labels, 4, dtype=logits.dtype)
    np.testing.assert_allclose(INT(logits, labels), SOFT(logits, one_hot), rtol=1e-14)


def test_sequences_give_one_value_per_step(getkey):
    assert INT(jax.random.normal(getkey(), (2, 3, 5), jnp.float32), jnp.zeros((2, 3), jnp.int32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: INT(jnp.zeros((2, 3)), jnp.zeros((2, 3), jnp.int32)), "softmax_cross_entropy takes distributions"),
        (lambda: INT(jnp.zeros((2, 3)), jnp.zeros(3, jnp.int32)), r"labels has shape \[3\].*\[2\]"),
        (lambda: INT(jnp.zeros((2, 3)), jnp.zeros(2)), "labels is float.*integer"),
        (lambda: INT(jnp.zeros((2, 3), jnp.int32), jnp.zeros(2, jnp.int32)), "logits is int32.*floating"),
        (lambda: SOFT(jnp.zeros((2, 3)), jnp.zeros((2, 1))), "nothing is broadcast"),
        (lambda: SOFT(jnp.zeros((2, 3), jnp.float32), jnp.zeros((2, 3), jnp.float64)), "float32 and target is float64"),
        (lambda: SOFT(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)), "classes last"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

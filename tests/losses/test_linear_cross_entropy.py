"""Linear cross-entropy: the dense form's values at every row of its limits table, chunks, options, weights, memory, errors."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN
from tests.losses.test_softmax_cross_entropy import ROWS

fused = fdl.losses.linear_cross_entropy
INT = fdl.losses.softmax_cross_entropy_with_integer_labels
SOFT = fdl.losses.softmax_cross_entropy


def problem(n=5, d=3, v=7, dtype=jnp.float32):
    """x, w, target, bias, weights."""
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, d), (d, v), v))
    weights = rng.uniform(0.5, 2, n).astype(np.float32)
    target = jnp.asarray(rng.integers(0, v, n), jnp.int32)
    return *(jnp.asarray(a, dtype) for a in (x, w)), target, jnp.asarray(bias, dtype), jnp.asarray(weights)


@pytest.mark.parametrize("row", ROWS)
def test_limits(row):
    """The logits come as the bias; the chunks are [0], [1, 2] or all three, so that masked and infinite ones come first and last."""
    logits, label, want, want_gradient = ROWS[row]
    x, w = jnp.zeros((1, 2), jnp.float32), jnp.zeros((2, 3), jnp.float32)
    for chunk in (2, 3):
        loss = lambda bias, chunk=chunk: fused(x, w, jnp.asarray([label]), bias, chunk=chunk)[0]
        value, gradient = jax.value_and_grad(loss)(jnp.asarray(logits, jnp.float32))
        np.testing.assert_allclose(value, want, rtol=1e-6)
        np.testing.assert_allclose(gradient, want_gradient, rtol=1e-6, atol=1e-7)


# bias, label, loss and gradient with label smoothing 0.3
SMOOTHED = {
    "a masked class": ([0.0, -INF, 0.0], 0, INF, [0.5 - 0.8, -0.1, 0.5 - 0.1]),
    "equal and huge": ([1e8, 1e8, 1e8], 0, np.log(3), [1 / 3 - 0.8, 1 / 3 - 0.1, 1 / 3 - 0.1]),
    "overflow": ([1e30, 0.0, -1e30], 0, 0.3e30, [1 - 0.8, -0.1, -0.1]),
    "+inf on the label": ([INF, 0.0, 1.0], 0, INF, [1 - 0.8, -0.1, -0.1]),
    "NaN": ([NAN, 0.0, 1.0], 0, NAN, [NAN, NAN, NAN]),
}


@pytest.mark.parametrize("row", SMOOTHED)
def test_limits_with_label_smoothing(row):
    bias, label, want, want_gradient = SMOOTHED[row]
    x, w = jnp.zeros((1, 2), jnp.float32), jnp.zeros((2, 3), jnp.float32)
    loss = lambda bias: fused(x, w, jnp.asarray([label]), bias, chunk=2, label_smoothing=0.3)[0]
    value, gradient = jax.value_and_grad(loss)(jnp.asarray(bias, jnp.float32))
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-6, atol=1e-7)


def test_any_chunk_size_gives_the_dense_form():
    args = tuple(x if x.dtype == jnp.int32 else x.astype(jnp.float64) for x in problem(v=11))
    x, w, target, bias, weights = args
    dense = lambda x, w, bias, weights: weights * INT(x @ w + bias[None, :], target)
    want, pull = jax.vjp(dense, x, w, bias, weights)
    dloss = jnp.asarray([0.3, -1.2, 0.7, 2.0, -0.4])
    for chunk in (1, 3, 100):
        got, pull_fused = jax.vjp(
            lambda *a, c=chunk: fused(a[0], a[1], target, a[2], a[3], chunk=c), x, w, bias, weights
        )
        np.testing.assert_allclose(got, want, rtol=1e-13)
        for a, b in zip(pull_fused(dloss), pull(dloss), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_label_smoothing_and_z_loss():
    x, w, target, bias, _ = problem()
    logits = x @ w + bias[None, :]
    smooth = 0.9 * jax.nn.one_hot(target, 7, dtype=jnp.float32) + 0.1 / 7
    want = SOFT(logits, smooth) + 0.01 * jax.nn.logsumexp(logits, axis=1) ** 2
    np.testing.assert_allclose(fused(x, w, target, bias, label_smoothing=0.1, z_loss=0.01, chunk=3), want, rtol=1e-6)
    # everything spread: the label itself may be impossible, if nothing else is
    all_spread = fused(x, w, target, bias, label_smoothing=1.0)
    np.testing.assert_allclose(all_spread, SOFT(logits, jnp.full_like(logits, 1 / 7)), rtol=1e-6)


def test_options_can_be_swept():
    x, w, target, bias, _ = problem()
    s = jnp.asarray([0.0, 0.2], jnp.float32)
    loss = lambda x, s: fused(x, w, target, bias, label_smoothing=s, z_loss=s, chunk=3).sum()
    got = jax.vmap(jax.value_and_grad(loss), (None, 0))(x, s)
    for i, one in enumerate((0.0, 0.2)):
        want = jax.value_and_grad(loss)(x, one)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", [-1, 7, 300, -100])
def test_a_target_outside_the_classes_is_loud(label):
    x, w, target, *_ = problem()
    value, gradients = jax.value_and_grad(lambda x, w: fused(x, w, target.at[1].set(label))[1], argnums=(0, 1))(x, w)
    assert jnp.isnan(value) and jnp.isnan(gradients[0][1]).all() and jnp.isnan(gradients[1]).all()


def test_small_integers_count_to_any_number_of_classes():
    """In 8 bits, 300 would be 44: label 44 out of range, or class 300 taken for it."""
    x, w, *_ = problem(n=2, v=301)
    for dtype in (jnp.uint8, jnp.int8):
        target = jnp.asarray([44, 3], dtype)
        np.testing.assert_allclose(fused(x, w, target, chunk=70), INT(x @ w, jnp.asarray([44, 3])), rtol=1e-6)


@pytest.mark.parametrize("how", ["ignored", "weight 0", "dloss 0"])
def test_what_does_not_count_is_exactly_nothing(how):
    x, w, target, bias, weights = problem()
    poisoned = x.at[2].set(NAN)
    target = target.at[2].set(-100) if how == "ignored" else target
    weights = weights.at[2].set(0) if how == "weight 0" else weights
    dloss = jnp.asarray([1.0, 0.5, 0.0 if how == "dloss 0" else 3.0, -2.0, 1.5], jnp.float32)
    loss = lambda x, w, bias, weights: fused(x, w, target, bias, weights, ignore_index=-100, chunk=3)
    values, pull = jax.vjp(loss, poisoned, w, bias, weights)
    dx, dw, dbias, dweights = pull(dloss)
    keep = jnp.asarray([0, 1, 3, 4])
    clean = lambda x, w, bias, weights: fused(x, w, target[keep], bias, weights, chunk=3)
    want, pull = jax.vjp(clean, x[keep], w, bias, weights[keep])
    want_dx, *want_shared, want_dweights = pull(dloss[keep])
    np.testing.assert_allclose(values[keep], want, rtol=1e-6)
    assert jnp.isnan(values[2]) if how == "dloss 0" else values[2] == 0
    assert (dx[2] == 0).all()
    for a, b in zip((dx[keep], dw, dbias, dweights[keep]), (want_dx, *want_shared, want_dweights), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    if how != "weight 0":
        assert dweights[2] == 0


def test_a_weight_of_0_has_a_derivative():
    x, w, target, bias, weights = problem()
    loss = lambda weights: fused(x, w, target, bias, weights).sum()
    np.testing.assert_allclose(jax.grad(loss)(jnp.zeros_like(weights)), fused(x, w, target, bias), rtol=1e-6)


def test_weights_may_be_integers_or_booleans():
    x, w, target, bias, _ = problem()
    mask = jnp.asarray([True, False, True, True, False])
    want = fused(x, w, target, bias) * mask.astype(jnp.float32)
    for dtype in (bool, jnp.int32):
        np.testing.assert_array_equal(fused(x, w, target, bias, mask.astype(dtype)), want)
    assert jnp.isfinite(jax.grad(lambda x: fused(x, w, target, bias, mask).sum())(x)).all()


def test_sixteen_bits_come_out_in_float32_and_go_back_in_theirs():
    x, w, target, bias, _ = problem(dtype=jnp.bfloat16)
    values, pull = jax.vjp(lambda x, w, b: fused(x, w, target, b, chunk=3), x, w, bias)
    assert values.dtype == jnp.float32 and {g.dtype for g in pull(values)} == {jnp.dtype(jnp.bfloat16)}


def test_the_logits_are_never_held():
    """Nothing in the program, loops included, is as large as a tenth of the logits, but the weights."""
    n, d, v = 96, 4, 4096
    shapes = [jax.ShapeDtypeStruct(s, t) for s, t in (((n, d), "float32"), ((d, v), "float32"), ((n,), "int32"))]
    both = jax.value_and_grad(lambda x, w, t: fused(x, w, t, chunk=256, label_smoothing=0.1).sum(), argnums=(0, 1))
    sizes = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            sizes.update(out.aval.size for out in equation.outvars)
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                visit(inner)

    visit(jax.make_jaxpr(both)(*shapes).jaxpr)
    assert n * 256 in sizes and max(sizes) < n * v / 10


def test_sequences_and_nothing():
    x, w, target, bias, _ = problem(n=6)
    np.testing.assert_array_equal(
        fused(x.reshape(2, 3, 3), w, target.reshape(2, 3), bias), fused(x, w, target, bias).reshape(2, 3)
    )
    assert fused(x[0], w, target[0], bias).shape == ()
    assert jax.grad(lambda w: fused(x[:0], w, target[:0], bias).sum())(w).shape == w.shape


X, W, T = jnp.zeros((4, 3)), jnp.zeros((3, 5)), jnp.zeros(4, jnp.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fused(X, W.T, T), r"x has shape \[4, 3\], w has shape \[5, 3\]"),
        (lambda: fused(X, W[:, :0], T), r"wanted x \[\.\.\., D\] and w \[D, V\]"),
        (lambda: fused(X, W.astype(jnp.float32), T), "w is float32"),
        (lambda: fused(X, W, T[:3]), r"target has shape \[3\]"),
        (lambda: fused(X, W, T.astype(X.dtype)), "target is float"),
        (lambda: fused(X, W, T, jnp.zeros(4)), r"bias has shape \[4\].*wanted \[5\]"),
        (lambda: fused(X, W, T, None, jnp.zeros((4, 1))), r"weights has shape \[4, 1\]"),
        (lambda: fused(X, W, T, None, [1.0] * 4), "weights is list"),
        (lambda: fused(X, W, T, chunk=0), "chunk is 0"),
        (lambda: fused(X, W, T, label_smoothing=1.5), "label_smoothing is 1.5"),
        (lambda: fused(X, W, T, z_loss=-1.0), "z_loss is -1.0"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_an_infinite_logit_with_label_smoothing_costs_infinitely_much(chunk):
    x, w = jnp.ones((1, 1), jnp.float32), jnp.ones((1, 3), jnp.float32)
    bias = jnp.asarray([jnp.inf, 0.0, 0.0], jnp.float32)
    loss = lambda smoothing: fdl.losses.linear_cross_entropy(
        x, w, jnp.asarray([0]), bias, label_smoothing=smoothing, chunk=chunk
    )
    assert loss(0.1) == jnp.inf and loss(0.0) == 0

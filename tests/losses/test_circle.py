"""The circle loss: Keras's values, every row of its limits table, references, the paper's gradient, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN

circle = fdl.losses.circle

# the embeddings of Keras's own tests
LABELS = jnp.asarray([1, 1, 2, 2, 3])
PRED = jnp.asarray(
    [
        [0.70014004, -0.42008403, 0.14002801, 0.56011203],
        [0.17609018, 0.70436073, -0.52827054, 0.44022545],
        [-0.34050261, 0.25537696, -0.68100522, 0.59587957],
        [0.32163376, -0.75047877, 0.53605627, -0.21442251],
        [0.51261459, -0.34174306, 0.17087153, 0.76892189],
    ],
    jnp.float32,
)
REF_LABELS = jnp.asarray([1, 1, 2, 2, 3, 4])
REF = jnp.asarray(
    [
        [0.40824829, -0.54433105, 0.27216553, 0.68041382],
        [0.76376261, 0.10910895, -0.54554473, 0.32732684],
        [-0.74420841, 0.24806947, 0.49613894, -0.3721042],
        [0.52981294, -0.13245324, 0.79471941, -0.26490647],
        [0.54554473, -0.32732684, 0.10910895, 0.76376261],
        [-0.27216553, 0.68041382, 0.40824829, -0.54433105],
    ],
    jnp.float32,
)


def test_values_as_in_keras():
    for options, want in (({}, 188.3883), ({"gamma": 256, "margin": 0.25}, 652.7617)):
        values = circle(PRED, LABELS, **options)
        np.testing.assert_allclose(fdl.losses.mean(values, values > 0), want, rtol=1e-6)  # Keras leaves out losses of 0
    np.testing.assert_allclose(circle(REF, REF_LABELS), [82.9116, 36.7942, 92.4590, 52.6798, 0.0, 0.0], rtol=2e-6)
    got = circle(PRED, LABELS, REF, REF_LABELS, remove_diagonal=False)
    np.testing.assert_allclose(got, [61.5844, 94.3465, 276.9344, 90.9873, 48.8963], rtol=2e-6)


@pytest.mark.parametrize("stop_weights", [False, True])
def test_the_gradient_at_gamma_80_in_float64(stop_weights, getkey):
    args = PRED[:4].astype(jnp.float64), LABELS[:4], REF.astype(jnp.float64), REF_LABELS
    op = circle.bind(stop_weights=stop_weights)
    dloss = jax.random.normal(getkey(), (4,), jnp.float64)
    slope = lambda loss: jax.jit(jax.grad(lambda x, r: (dloss * loss(x, args[1], r, args[3])).sum(), argnums=(0, 1)))
    for got, want in zip(slope(op)(args[0], args[2]), slope(op.equation)(args[0], args[2]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10 * float(jnp.abs(want).max()))


def test_the_papers_gradient_is_another_one():
    ours, papers = (jax.grad(lambda x, s=s: circle(x, LABELS, stop_weights=s).sum())(PRED) for s in (False, True))
    np.testing.assert_array_equal(circle(PRED, LABELS), circle(PRED, LABELS, stop_weights=True))
    assert jnp.abs(ours - papers).max() > 0.1 * jnp.abs(ours).max()


@pytest.mark.parametrize(
    ("labels", "without"),
    [([1, 1, 2, 2, 3], [4]), ([1, 1, 1, 1, 1], range(5)), ([1, 2, 3, 4, 5], range(5))],
    ids=["alone in its class", "one class", "all alone"],
)
def test_no_positive_or_no_negative_gives_0_and_a_gradient_of_0(labels, without):
    loss = lambda x: circle(x, jnp.asarray(labels))
    values, pull = jax.vjp(loss, PRED)
    assert jnp.isfinite(values).all() and (values[jnp.asarray(without)] == 0).all()
    (gradient,) = pull(jnp.zeros(5, jnp.float32).at[jnp.asarray(without)].set(1))
    assert (gradient == 0).all()
    assert jnp.isfinite(jax.grad(lambda x: jnp.sum(jax.grad(lambda x: loss(x).sum())(x) ** 2))(PRED)).all()


def test_embeddings_that_coincide():
    """s = 1 between two classes: the loss is high, and the gradient through that pair is 0, as on the sphere."""
    x = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], jnp.float32)
    value, gradient = jax.value_and_grad(lambda x: circle(x, jnp.asarray([0, 1, 0, 1]), gamma=2.0).sum())(x)
    assert jnp.isfinite(value) and value > 4 and jnp.isfinite(gradient).all()
    above = jax.grad(lambda x: circle(x, jnp.asarray([0, 1, 0, 1]), gamma=2.0).sum())(x * (1 + 1e-6))
    np.testing.assert_allclose(gradient, above, rtol=1e-5)


def test_kinks_of_the_weights():
    """d = 0.25 = -margin: the positive's weight is 0 and takes no gradient; for d = 1 + margin the negative's likewise."""
    x, r = jnp.asarray([[1.0, 0.0]], jnp.float32), jnp.asarray([[0.75, 0.0], [-0.25, 0.0]], jnp.float32)
    loss = lambda x, margin: circle(
        x, jnp.asarray([0]), r, jnp.asarray([0, 1]), remove_diagonal=False, gamma=1.0, margin=margin
    )[0]
    # a = 0, b = (1 + m - d) (1 - m - d) = -0.5 * 0 at d = 1.25, m = -0.25: both exponents are 0
    value, gradient = jax.value_and_grad(loss)(x, -0.25)
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    # only db/dd = -[...] (1 - m - d) - relu(1 + m - d) is left, and 1 - m - d is 0 here as relu(-0.5) is
    np.testing.assert_array_equal(gradient, [[0.0, 0.0]])
    # d = 1.25 = 1 + margin for margin 0.25
    da = 2 * 0.25
    np.testing.assert_allclose(jax.grad(loss)(x, 0.25), [[-da * 0.75 / 2, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("poison", [NAN, INF])
def test_what_is_no_embedding_is_loud(poison):
    value, gradient = jax.value_and_grad(lambda x: circle(x, LABELS).sum())(PRED.at[0, 0].set(poison))
    assert not jnp.isfinite(value) and jnp.isnan(gradient).any()


def test_options_can_be_swept():
    gammas, margins = jnp.asarray([8.0, 80.0], jnp.float32), jnp.asarray([0.4, 0.1], jnp.float32)
    got = jax.vmap(lambda gamma, margin: circle(PRED, LABELS, gamma=gamma, margin=margin))(gammas, margins)
    want = [circle(PRED, LABELS, gamma=g, margin=m) for g, m in ((8.0, 0.4), (80.0, 0.1))]
    np.testing.assert_allclose(got, jnp.stack(want), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: circle(PRED, LABELS[:4]), r"pred has shape \[5, 4\], target has shape \[4\]"),
        (lambda: circle(PRED[0], LABELS), r"wanted embeddings \[N, D\]"),
        (lambda: circle(PRED, LABELS.astype(jnp.float32)), "target is float32"),
        (lambda: circle(PRED, LABELS, REF), r"ref_embeddings has shape \[6, 4\], target has shape \[5\]"),
        (lambda: circle(PRED, LABELS, REF[:, :3], REF_LABELS), "equal widths"),
        (lambda: circle(PRED, LABELS, REF.astype(jnp.float64), REF_LABELS), "ref_embeddings is float64"),
        (lambda: circle(PRED, LABELS, gamma=-1.0), "gamma is -1.0"),
        (lambda: circle(PRED, LABELS, margin=1.5), "margin is 1.5"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_an_example_without_weight_may_hold_nan():
    x, persons = jnp.asarray([[1.0, 0.0], [np.nan, 0.0]], jnp.float32), jnp.asarray([0, 1])
    loss = lambda x, references: fdl.losses.circle(x, persons, references, persons, remove_diagonal=False)
    _, pull = jax.vjp(loss, x, jnp.eye(2, dtype=jnp.float32))
    dx, dreferences = pull(jnp.asarray([1.0, 0.0], jnp.float32))
    assert (dx[1] == 0).all() and jnp.isfinite(dx).all() and jnp.isfinite(dreferences).all()


def test_no_examples_and_no_references():
    none, nobody = jnp.zeros((0, 3), jnp.float32), jnp.zeros(0, jnp.int32)
    assert fdl.losses.circle(none, nobody).shape == (0,)
    values = fdl.losses.circle(jnp.ones((2, 3), jnp.float32), jnp.asarray([0, 1], jnp.int32), none, nobody)
    assert (values == 0).all()

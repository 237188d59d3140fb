"""The exact tests, and functions that draw: what they convict, what they let through, and what is said of them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from tests.check.zoo import custom, normal

pytestmark = pytest.mark.optimized


def exact(report, name):
    return {test.leaf: test for test in report.exact_tests if test.test == name}


def dense(x, w):
    return jnp.tanh(x @ w)


def dense_with(change):
    def backward(residuals, dy):
        x, w = residuals
        dz = dy * (1 - jnp.tanh(x @ w) ** 2)
        return change(dz @ w.T), x.T @ dz

    return custom(dense, lambda x, w: (dense(x, w), (x, w)), backward)


def test_the_exact_tests_hold_for_a_right_backward_and_are_told():
    report = check.gradients(
        dense_with(lambda dx: dx), normal(1, 4, 3), normal(2, 3, 5), reference=dense, modes="quick"
    )
    assert report.verdict == "right"
    for name in ("adjoint", "linearity", "independence"):
        found = exact(report, name)
        seeds = 4 if name == "linearity" else 2
        assert set(found) == {"x", "w"} and all(test.failed == 0 and test.seeds == seeds for test in found.values())
    assert all(test.detection_probability > 0.99 and test.worst < 1 for test in exact(report, "adjoint").values())
    assert "<J v, w> = <v, J^T w> for 2 directions v per leaf" in str(report)
    assert {row["test"] for row in json.loads(report.to_json())["exact_tests"]} == {
        "adjoint",
        "linearity",
        "independence",
    }


def test_the_adjoint_convicts_one_entry_that_is_off_by_a_millionth():
    candidate = dense_with(lambda dx: dx.at[1, 2].multiply(1 + 1e-6))
    report = check.gradients(candidate, normal(1, 4, 3), normal(2, 3, 5), reference=dense, modes="quick")
    found = exact(report, "adjoint")
    assert report.verdict == "wrong" and found["x"].failed == 2 and found["w"].failed == 0
    assert "failed for x" in str(report)


def test_forward_mode_convicts_where_the_reference_has_a_wrong_backward_itself():
    """Entry by entry both agree: only forward mode, which this reference has right, shows it."""

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    @sine.defjvp
    def _(primals, tangents):
        (x,), (v,) = primals, tangents
        twice = jax.custom_derivatives.linear_call(lambda _, v: v, lambda _, g: 2 * g, (), v)
        return jnp.sin(x), jnp.cos(x) * twice

    candidate = custom(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (2 * dy * jnp.cos(x),))
    report = check.gradients(candidate, normal(1, 4), reference=lambda x: sine(x), modes="quick")
    assert report.verdict == "wrong" and "is not adjoint to forward mode in x" in report.sentence


def test_a_reference_without_forward_mode_has_no_adjoint_test_and_says_so():
    sine = custom(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (dy * jnp.cos(x),))
    report = check.gradients(jnp.sin, normal(1, 4), reference=lambda x: sine(x), modes="quick")
    assert report.verdict == "right" and not exact(report, "adjoint")
    assert "no adjoint test: the reference has no forward mode" in str(report)


def test_what_depends_on_what_it_must_not_is_named():
    # every example on its own: the gradient of one must not see the cotangent of another
    square = lambda x: x * x
    mixed = custom(square, lambda x: (x * x, x), lambda x, dy: (2 * dy * x + 1e-6 * jnp.roll(dy, 1, axis=0),))
    report = check.gradients(mixed, normal(1, 4, 2), reference=square, modes="quick")
    assert report.verdict == "wrong" and exact(report, "independence")["x"].failed
    assert "depends on the cotangent of output[" in str(report) and "has no influence" in str(report)


def test_entries_without_influence_are_counted():
    first = lambda x: x[:2] ** 2
    report = check.gradients(first, normal(1, 5), reference=first, modes="quick")
    assert report.verdict == "right" and "3 of 5 entries of x have no influence on any output here" in str(report)


def test_linearity_is_required_without_a_reference_too():
    clipped = custom(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (jnp.clip(dy, -9, 9) * jnp.cos(x),))
    report = check.gradients(clipped, normal(1, 5), modes="quick")
    assert report.verdict == "wrong" and "is not linear in the cotangent" in report.sentence


@pytest.mark.parametrize("key", range(4))
@pytest.mark.parametrize("backward", [jnp.abs, lambda dy: jnp.where(dy > 0, dy, 0.5 * dy)], ids=["size", "leaky"])
def test_the_sign_of_the_cotangent_of_a_scalar_matters(backward, key):
    x = normal(1, 6)
    mean = lambda x: jnp.mean(x**2)
    wrong = custom(mean, lambda x: (mean(x), x), lambda x, dy: (backward(dy) * 2 * x / 6,))
    for reference in (mean, None):
        report = check.gradients(wrong, x, reference=reference, modes="quick", key=key)
        assert report.verdict == "wrong", str(report)


def test_a_sum_of_cotangents_gives_the_sum_of_the_gradients():
    product = lambda x: x[:1] * x[1:]
    # homogeneous and odd, but not additive
    wrong = lambda dy: jnp.sign(dy) * jnp.max(jnp.abs(dy))
    f = custom(
        product, lambda x: (product(x), x), lambda x, dy: (jnp.concatenate([wrong(dy) @ x[1:, None], dy * x[:1]]),)
    )
    report = check.gradients(f, normal(1, 4), modes="quick")
    assert report.verdict == "wrong"


# ---- functions that draw ----


def test_a_function_that_returns_something_else_every_time_is_undecided():
    rng = np.random.default_rng(0)
    noisy = lambda x: x * rng.standard_normal(x.shape).astype(x.dtype)
    for reference in (None, noisy, jnp.sin):
        report = check.gradients(noisy, normal(1, 4), reference=reference, modes="quick")
        assert report.verdict == "undecided" and "returns different values for the same arguments" in report.sentence

    def by_callback(x):
        drawn = jax.pure_callback(
            lambda: rng.standard_normal(4).astype(np.float32), jax.ShapeDtypeStruct((4,), np.float32)
        )
        return x * drawn

    report = check.gradients(by_callback, normal(1, 4), reference=by_callback, modes="quick")
    assert "returns different values for the same arguments" in report.sentence


def noise(x, key):
    return jnp.sum(
        x * jax.random.normal(key, x.shape).astype(x.dtype)
    )  # in the dtype that JAX takes: another one in float64


def noise_scaled(factor):
    backward = lambda residuals, dy: (
        factor * dy * jax.random.normal(residuals[1], residuals[0].shape).astype(dy.dtype),
        None,
    )
    return custom(noise, lambda x, key: (noise(x, key), (x, key)), backward)


@pytest.mark.parametrize("reference", [noise, None])
def test_a_function_that_draws_from_a_key_is_judged_in_every_precision(reference):
    with jax.enable_x64(False):  # or all draws are those of float64
        args = normal(1, 6), jax.random.key(3)
        report = check.gradients(noise_scaled(1.0), *args, reference=reference, modes="quick")
        wrong = check.gradients(noise_scaled(1.01), *args, reference=reference, modes="quick")
    assert report.verdict == "right" and "ill-conditioned" not in str(report)
    assert "other random numbers are drawn in float64" in str(report)
    assert wrong.verdict == "wrong"


# ---- entries that are not finite ----


def biased(x, bias):
    return jax.nn.softmax(x + bias)


def biased_with(share):
    def backward(y, dy):
        dx = y * (dy - jnp.sum(dy * y, axis=-1, keepdims=True))
        return dx, dx.at[2, 0].multiply(1 + share)

    return custom(biased, lambda x, bias: (biased(x, bias),) * 2, backward)


@pytest.mark.parametrize("reference", [biased, None])
def test_infinite_entries_are_constants_and_the_others_are_judged(reference):
    bias = jnp.where(jnp.tril(jnp.ones((4, 4))) > 0, 0.0, -jnp.inf).astype(np.float32)
    args = normal(1, 4, 4), bias
    report = check.gradients(biased_with(0.0), *args, reference=reference, modes="quick")
    assert report.verdict == "right"
    assert any("in 6 of 16 entries, which are not finite" in leaf for leaf in report.not_differentiated)
    assert check.gradients(biased_with(0.01), *args, reference=reference, modes="quick").verdict == "wrong"

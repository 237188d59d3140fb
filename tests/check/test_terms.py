"""The wrong term of a gradient gets its name, and what has no name gets none."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from fdl import check
from fdl.check.paths import sites
from fdl.check.subject import Differentiated, layout_of
from fdl.layer import Layer
from fdl.op import Op
from tests.check.zoo import batch_norm, labels, normal, planted, rnn, rnn_equation, rnn_forward

pytestmark = pytest.mark.optimized


def diagnosis(op, *args, leaf=None, **settings):
    report = check.gradients(op, *args, modes="quick", **settings)
    assert report.verdict == "wrong"
    said = {failure.diagnosis for failure in report.failures if leaf in (None, failure.leaf)}
    assert len(said) == 1
    (text,) = said
    assert text in str(report)
    return text


# ---- terms: batch norm, layer norm, softmax, a gate, attention, a recurrence ----


def norm_equation(scale, x):
    mu = jnp.mean(x, axis=0, keepdims=True)
    centred = x - mu
    var = jnp.mean(centred**2, axis=0, keepdims=True)
    return centred / jnp.sqrt(var + 1e-5) * scale[None]


def norm_forward(scale, x):
    centred = x - jnp.mean(x, axis=0, keepdims=True)
    inverse = 1 / jnp.sqrt(jnp.mean(centred * centred, axis=0, keepdims=True) + 1e-5)
    return centred * inverse * scale[None], (scale, centred * inverse, inverse)


def norm_with(dx_of):
    """dx_of(dxhat, its mean, its mean along xhat times xhat, m) is dx without the factor 1 / std."""

    def backward(residuals, dy):
        scale, xhat, inverse = residuals
        dxhat = dy * scale[None]
        along = xhat * jnp.mean(dxhat * xhat, axis=0, keepdims=True)
        dx = inverse * dx_of(dxhat, jnp.mean(dxhat, axis=0, keepdims=True), along, len(xhat))
        return jnp.sum(dy * xhat, axis=0), dx

    return Op(norm_equation, norm_forward, backward, name="norm")


NORM_FAULTS = {
    "no path through the mean": (lambda d, m, v, n: d - v, "a missing path through `mu`, coefficient -1.00"),
    "no path through the variance": (lambda d, m, v, n: d - m, "a missing path through `var`, coefficient -1.00"),
    "neither": (lambda d, m, v, n: d, "the missing paths through `mu` and `var`, coefficient -1.00"),
    "sign": (lambda d, m, v, n: d - m + v, "the path through `var` with the wrong sign, coefficient -2.00"),
    "twice": (lambda d, m, v, n: d - m - 2 * v, "the path through `var` twice, coefficient +1.00"),
    "m - 1 in the variance": (
        lambda d, m, v, n: d - m - v * (n / (n - 1)),
        "the path through `var`, 1/(m - 1) in place of 1/m, m = 8 (axis 0 of x), coefficient +0.143",
    ),
    "m - 1 in both": (
        lambda d, m, v, n: d - (m + v) * (n / (n - 1)),
        "the paths through `mu` and `var`, 1/(m - 1) in place of 1/m, m = 8 (axis 0 of x), coefficient +0.143",
    ),
    "a third": (lambda d, m, v, n: d - m - v * 1.3, "the path through `var`, coefficient +0.3"),
}


@pytest.mark.parametrize("fault", NORM_FAULTS)
def test_a_term_of_batch_norm(fault):
    dx_of, named = NORM_FAULTS[fault]
    text = diagnosis(norm_with(dx_of), normal(1, 5), normal(2, 8, 5, mean=1.0))
    assert text == f"100 % of the error in dx is {named}"


def test_a_term_with_a_little_noise_on_it_has_its_share():
    noise = normal(9, 8, 5, scale=0.005)
    op = norm_with(lambda d, m, v, n: d - v + noise.astype(d.dtype))
    text = diagnosis(op, normal(1, 5), normal(2, 8, 5))
    assert text.startswith("99.") and "missing path through `mu`" in text


def layer_norm_equation(x):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)


def layer_norm_forward(x):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)
    return centred * inverse, (centred * inverse, inverse)


def test_a_term_without_a_variable_is_called_by_its_expression():
    def backward(residuals, dy):
        _, inverse = residuals
        return (inverse * (dy - jnp.mean(dy, axis=-1, keepdims=True)),)

    text = diagnosis(Op(layer_norm_equation, layer_norm_forward, backward), normal(1, 4, 7))
    assert "a missing path through `jnp.mean(centred * centred, axis=-1, keepdims..." in text


def softmax_equation(x):
    e = jnp.exp(x)
    total = jnp.sum(e, axis=-1, keepdims=True)
    return e / total


@pytest.mark.parametrize(
    ("equation", "name"), [(softmax_equation, "total"), (lambda x: jax.nn.softmax(x), "jnp.sum(unnormalized")]
)
def test_softmax_without_its_sum(equation, name):
    forward = lambda x: (jax.nn.softmax(x), jax.nn.softmax(x))
    text = diagnosis(Op(equation, forward, lambda y, dy: (y * dy,), name="softmax"), normal(1, 4, 6))
    assert f"a missing path through `{name}" in text and text.endswith("coefficient -1.00")


def test_one_of_two_uses_of_a_value():
    equation = lambda x: x * jnp.tanh(x)
    forward = lambda x: (equation(x), x)
    text = diagnosis(Op(equation, forward, lambda x, dy: (dy * x * (1 - jnp.tanh(x) ** 2),), name="f"), normal(1, 4, 3))
    assert "a missing path through `x` in `x * jnp.tanh(x)`" in text


def test_a_derivative_that_is_left_out():
    equation = lambda x: 3 * jnp.tanh(2 * x)
    op = Op(equation, lambda x: (equation(x), ()), lambda _, dy: (6 * dy,), name="f")
    assert diagnosis(op, normal(1, 4, 3)) == "the derivative of `jnp.tanh(2 * x)` by `2 * x` is taken as 1 in dx"


def test_a_mask_that_is_left_out():
    op = Op(lambda x: jnp.clip(x, -0.5, 0.5), lambda x: (jnp.clip(x, -0.5, 0.5), ()), lambda _, dy: (dy,), name="clip")
    assert diagnosis(op, normal(1, 4, 3)) == "the derivative of `jnp.clip(x, -0.5, 0.5)` by `x` is taken as 1 in dx"


def test_the_name_that_a_value_was_marked_with():
    def equation(x):
        t = jnp.sin(checkpoint_name(2 * jnp.cos(x), "wave"))
        return x * t

    forward = lambda x: (equation(x), x)
    backward = lambda x, dy: (dy * jnp.sin(2 * jnp.cos(x)),)
    assert "`wave`" in diagnosis(Op(equation, forward, backward, name="f"), normal(1, 4, 3))


def test_a_recurrence_that_forgets_the_step_before():
    def backward(residuals, dh):
        u, h = residuals
        before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])
        dz = dh * (1 - h * h)
        return jnp.einsum("tni,tno->io", before, dz), dz

    op = Op(rnn_equation, rnn_forward, backward, name="rnn")
    u, x = normal(1, 3, 3, scale=0.5), normal(2, 4, 2, 3)
    assert "a missing path through `h` of the step before" in diagnosis(op, u, x, leaf="u")
    check.assert_gradients(rnn, u, x, modes="quick")


def test_a_term_inside_a_model():
    def backward(residuals, dy):
        scale, xhat, inverse = residuals
        dxhat = dy * scale[None]
        dx = inverse * (dxhat - jnp.mean(dxhat, axis=0, keepdims=True))
        return {"scale": jnp.sum(dy * xhat, axis=0), "shift": jnp.sum(dy, axis=0)}, dx

    def init(key, spec, dtype):
        return {"scale": jnp.ones(spec.shape[-1], dtype), "shift": jnp.zeros(spec.shape[-1], dtype)}

    wrong = Op(batch_norm._equation, batch_norm._forward, backward, name="batch_norm")
    report = check.layer(Layer.from_op("batch_norm", wrong, init), normal(1, 7, 5), modes="quick")
    assert {failure.leaf for failure in report.failures} == {"x"}
    named = "100 % of the error in dx is a missing path through `variance`, coefficient -1.00"
    assert {failure.diagnosis for failure in report.failures} == {named}
    fields = json.loads(report.to_json())
    assert {failure["diagnosis"] for failure in fields["failures"]} == {named}


# ---- stock mistakes ----


def dense_equation(w, b, x):
    return x @ w + b[None]


def dense_forward(w, b, x):
    return dense_equation(w, b, x), (w, x)


def dense_backward(residuals, dy):
    w, x = residuals
    return x.T @ dy, jnp.sum(dy, axis=0), dy @ w.T


dense = Op(dense_equation, dense_forward, dense_backward, name="dense")

STOCK = {
    "missing": ("x", lambda w, x, dy: 0 * x, "dx is zero: it is missing altogether"),
    "sign": ("w", lambda w, x, dy: -x.T @ dy, "dw has the wrong sign"),
    "factor 2": ("b", lambda w, x, dy: 2 * jnp.sum(dy, axis=0), "db is twice what it should be"),
    "factor 1/2": ("x", lambda w, x, dy: 0.5 * (dy @ w.T), "dx is half of what it should be"),
    "scaled": ("w", lambda w, x, dy: x.T @ dy * 0.9, "dw is 0.9 times what it should be"),
    "a round factor, or m - 1": (
        "w",
        lambda w, x, dy: x.T @ dy * 0.8,
        "dw is 4/5 times what it should be: a factor of 0.8, or 1/m in place of 1/(m - 1), m = 5 (axis 0 of w)",
    ),
    "m - 1": (
        "w",
        lambda w, x, dy: x.T @ dy * (7 / 6),
        "dw is 7/6 times what it should be: 1/(m - 1) in place of 1/m, m = 7 (axis 0 of x)",
    ),
    "transposed": ("w", lambda w, x, dy: dy.T @ x, "dw is transposed"),
    "not summed": (
        "b",
        lambda w, x, dy: dy[0],
        "only the first of the 7 along axis 0 of the output counts in db: a sum is missing",
    ),
    "averaged": (
        "b",
        lambda w, x, dy: jnp.mean(dy, axis=0),
        "db is 1/7 of what it should be: a mean in place of a sum, or two means, over axis 0 of x",
    ),
    "ones": (
        "x",
        lambda w, x, dy: jnp.ones_like(dy) @ w.T,
        "dx does not depend on the cotangent: it is the gradient for a cotangent of ones",
    ),
    "squared": ("b", lambda w, x, dy: jnp.sum(dy * dy, axis=0), "db has the cotangent squared"),
    "reversed": ("x", lambda w, x, dy: (dy @ w.T)[::-1], "dx is in reverse order along axis 0"),
    "late": (
        "x",
        lambda w, x, dy: jnp.concatenate([jnp.zeros_like(x[:1]), (dy @ w.T)[:-1]]),
        "dx is one step late along axis 0",
    ),
}


@pytest.mark.parametrize("fault", STOCK)
def test_a_stock_mistake(fault):
    leaf, mistake, named = STOCK[fault]
    place = ("w", "b", "x").index(leaf)

    def backward(residuals, dy):
        cotangents = list(dense_backward(residuals, dy))
        cotangents[place] = mistake(*residuals, dy).astype(dy.dtype)
        return tuple(cotangents)

    op = Op(dense_equation, dense_forward, backward, name="dense")
    assert diagnosis(op, normal(1, 5, 5), normal(2, 5), normal(3, 7, 5)) == named


def test_a_cumulative_sum_in_the_wrong_direction():
    op = Op(lambda x: jnp.cumsum(x, 0), lambda x: (jnp.cumsum(x, 0), ()), lambda _, dy: (jnp.cumsum(dy, 0),), name="f")
    assert diagnosis(op, normal(1, 5, 3)) == "dx runs through axis 0 in the wrong direction"


def test_a_derivative_at_the_output():
    op = Op(jnp.tanh, lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, dy: (dy * (1 - jnp.tanh(y) ** 2),), name="tanh")
    assert diagnosis(op, normal(1, 5, 3)) == "dx is the derivative at the output in place of x"


def test_the_gradient_of_another_argument():
    equation = lambda a, b: jnp.sin(a) * b
    op = Op(equation, lambda a, b: (equation(a, b), (a, b)), lambda r, dy: (dy * jnp.sin(r[0]),) * 2, name="f")
    assert diagnosis(op, normal(1, 5, 3), normal(2, 5, 3)) == "da is the gradient of b"


def test_a_factor_too_many():
    op = Op(lambda a, b: a / b, lambda a, b: (a / b, (a, b)), lambda r, dy: (dy / r[1], -dy * r[0] / r[1]), name="f")
    assert diagnosis(op, normal(1, 5, 3), 2 + normal(2, 5, 3) ** 2) == "db is multiplied by b once too often"


def test_duplicate_indices_that_overwrite_each_other():
    backward = lambda residuals, dy: (jnp.zeros_like(residuals[0]).at[residuals[1]].set(dy), None)
    op = Op(lambda table, ids: table[ids], lambda table, ids: (table[ids], (table, ids)), backward, name="embedding")
    text = diagnosis(op, normal(1, 6, 3), jnp.asarray([1, 4, 1, 2, 4]))
    assert text == "of equal entries in ids only the last counts in dtable: it overwrites the others"


# ---- what has no name ----


def test_noise_has_no_name():
    noise = normal(9, 8, 5, scale=0.1)
    op = norm_with(lambda d, m, v, n: d - m - v + noise.astype(d.dtype))
    report = check.gradients(op, normal(1, 5), normal(2, 8, 5), modes="quick")
    assert report.verdict == "wrong" and {failure.diagnosis for failure in report.failures} == {""}


@pytest.mark.parametrize("key", range(4))
def test_noise_in_a_single_number_has_no_name(key):
    wrong = planted(Op(lambda a, x: a * jnp.tanh(x), lambda a, x: (a * jnp.tanh(x), (a, x)), _product), 0, _off_by(key))
    report = check.gradients(wrong, normal(1), normal(2, 5), modes="quick", key=key)
    assert report.verdict == "wrong" and {failure.diagnosis for failure in report.failures} == {""}


def _product(residuals, dy):
    a, x = residuals
    return jnp.sum(dy * jnp.tanh(x)), a * dy * (1 - jnp.tanh(x) ** 2)


def _off_by(key):
    return lambda g: g + jnp.asarray(0.3 + 0.1 * key, g.dtype)


def test_what_is_right_has_no_diagnosis_and_costs_none(monkeypatch):
    monkeypatch.setattr("fdl.check.trial.Terms", lambda *_: pytest.fail("nothing is wrong"))
    right = norm_with(lambda d, m, v, n: d - m - v)
    assert check.gradients(right, normal(1, 5), normal(2, 8, 5), modes="quick").ok


def test_a_reference_that_cannot_be_taken_apart_is_judged_all_the_same(monkeypatch):
    def broken(*_):
        raise NotImplementedError("nothing like it")

    monkeypatch.setattr("fdl.check.terms.sites", broken)
    report = check.gradients(norm_with(lambda d, m, v, n: d - v), normal(1, 5), normal(2, 8, 5), modes="quick")
    assert report.verdict == "wrong" and {failure.diagnosis for failure in report.failures} == {""}


def test_a_fault_under_vmap_alone_has_no_diagnosis():
    @jax.custom_batching.custom_vmap
    def slope(x):
        return jnp.cos(x)

    slope.def_vmap(lambda size, batched, x: (-jnp.cos(x), True))
    op = Op(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (dy * slope(x),), name="sin")
    report = check.gradients(op, normal(1, 5))
    assert report.verdict == "wrong" and {failure.diagnosis for failure in report.failures} == {""}


# ---- names ----


def test_names_of_intermediate_values():
    def helper(z):
        inner = jnp.exp(z)
        return inner * 2

    @jax.jit
    def jitted(z):
        deep = jnp.sin(z)
        return deep + 1

    def equation(x, ids):
        first, second = jnp.sum(x, axis=0), x * 3
        outer = helper(second)
        last: jax.Array = jitted(outer)
        if (total := jnp.sum(last)) is not None:
            last = last * total
        return (last + first[None])[ids]

    x, ids = jnp.ones((3, 2)), labels(1, 3, 3)
    layout = layout_of("test", ("x", "ids"), (x, ids))
    active, fixed = layout.split((x, ids))
    found = [site.name for site in sites(Differentiated(equation, layout), active, (fixed, {}))]
    for name in ("first", "second", "inner", "outer", "deep", "total", "last"):
        assert f"`{name}`" in found
    assert "`x` in `x * 3`" in found
    assert np.all(["fdl" not in name for name in found])

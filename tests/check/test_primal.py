"""What a candidate is held against where nobody gives a reference: its own computation, differentiated by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from fdl.check.curvature import second_evidence
from fdl.check.evaluate import WIDE, Point, native_precision
from fdl.check.primal import plain_of, primal_of, without_rules
from fdl.check.subject import Differentiated, layout_of
from fdl.check.tangent import Tangent
from fdl.check.widened import widened
from tests.check.zoo import custom, normal


def changed(function, change):
    """The function with `change` made of the list of its gradients."""

    def backward(args, dy):
        return tuple(change(list(jax.vjp(function, *args)[1](dy))))

    return custom(function, lambda *args: (function(*args), args), backward)


def scaled(g, factor):
    return g * jnp.asarray(factor, g.dtype)


def subject_of(function, *args):
    return Differentiated(function, layout_of("test", tuple("abc"[: len(args)]), args))


def primal(function, *args):
    active = [np.asarray(x) for x in args]
    return primal_of(subject_of(function, *args), native_precision(active), active, ([], {}))


# ---- the computation without its hand-written derivatives ----


def test_only_what_has_derivatives_of_its_own_brings_a_reference_along():
    x = normal(1, 3)
    wrong = changed(jnp.sin, lambda g: [2 * g[0]])
    for function in (wrong, lambda x: jax.lax.cond(x[0] > 0, wrong, jnp.cos, x), jax.jit(wrong)):
        assert primal(function, x) is not None
    assert primal(lambda x: jax.nn.softmax(jax.nn.relu(x)), x) is None  # rules, but those of JAX
    looping = lambda x: jax.lax.while_loop(lambda y: y[0] < 100, lambda y: 2 * y + 1, x)
    assert primal(custom(looping, lambda x: (looping(x), x), lambda x, g: (g,)), x) is None
    hidden = lambda x: jax.lax.fori_loop(0, jnp.int32(x[0] > 0) + 1, lambda _, y: wrong(y), x)
    with pytest.raises(ValueError, match="inside of a loop"):
        plain_of(subject_of(hidden, x), native_precision([x]), [x], ([], {}))


@pytest.mark.parametrize("given", ["defjvp", "defjvps"])
def test_a_custom_jvp_of_the_callers_is_written_by_hand(given):
    twice = jax.custom_jvp(lambda x: x * x)
    if given == "defjvp":
        twice.defjvp(lambda xs, ts: (xs[0] * xs[0], ts[0] * xs[0]))
    else:
        twice.defjvps(lambda t, y, x: t * x)
    x = normal(1, 3)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(without_rules(twice)(x)))(x), 2 * x, rtol=1e-6)
    assert check.gradients(twice, x, modes="quick").verdict == "wrong"


def test_a_wrong_term_is_named_and_one_part_in_a_billion_is_seen_without_a_reference():
    f = lambda x: -jax.nn.log_softmax(x)[3]
    x = normal(1, 200, dtype=np.float64)
    off = changed(f, lambda g: [g[0].at[71].multiply(1 + 1e-9)])
    report = check.gradients(off, x, modes="quick")
    assert report.verdict == "wrong" and report.failures[0].index == (71,) and report.failures[0].wrong == 1
    assert check.gradients(changed(f, lambda g: g), x, modes="quick").leaves[1].sees < 1e-9
    report = check.gradients(
        changed(lambda x, w: jnp.tanh(x @ w), lambda g: [g[0], -g[1]]), normal(1, 4, 3), normal(2, 3, 2)
    )
    assert "factor -1.000, all entries" in report.sentence
    assert any("has the wrong sign" in failure.diagnosis for failure in report.failures)


def test_a_computation_whose_derivative_is_not_that_of_its_values_is_left_out():
    value = lambda x: x * jax.lax.stop_gradient(x)  # JAX's derivative is x, that of the values 2 x
    x = normal(1, 5)
    right = custom(value, lambda x: (value(x), x), lambda x, g: (2 * x * g,))
    report = check.gradients(right, x, modes="quick")
    assert report.ok and report.reference == "complex steps" and "JAX's own derivative" in " ".join(report.notes)
    wrong = custom(value, lambda x: (value(x), x), lambda x, g: (x * g,))
    assert check.gradients(wrong, x, modes="quick").verdict == "wrong"


def test_the_lines_of_a_computation_stay_those_of_the_caller():
    def backward(args, dy):
        p = jax.nn.softmax(args[0])
        return (p * dy,)

    def attend(scores):
        return jax.nn.softmax(scores)

    wrong = custom(attend, lambda s: (attend(s), (s,)), backward)
    for reference in (None, attend):
        report = check.gradients(wrong, normal(1, 3, 4), reference=reference, modes="quick")
        assert "inside `jax.nn.softmax(scores)` at test_primal.py:" in report.failures[0].diagnosis


# ---- a leaf that another one's size hides ----


def smooth(a, b):
    return jnp.sum(a) * jnp.asarray(1e-20, a.dtype) + jnp.sum(b * b) * jnp.asarray(1e20, a.dtype)


def rough(a, b):
    return jnp.sum(a) * jnp.asarray(1e-20, a.dtype) + jnp.sum(jnp.abs(b) * b) * jnp.asarray(1e20, a.dtype)


@pytest.mark.parametrize("function", [smooth, rough])
def test_no_leaf_hides_behind_the_size_of_another(function):
    args = normal(1, 5), normal(2, 5)
    assert check.gradients(function, *args, modes="quick").ok
    for factor in (0.0, 1.1):
        wrong = changed(function, lambda g, factor=factor: [scaled(g[0], factor), g[1]])
        report = check.gradients(wrong, *args, modes="quick")
        assert report.verdict == "wrong" and {failure.leaf for failure in report.failures} == {"a"}, str(report)


@pytest.mark.parametrize("function", [smooth, rough])
@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_what_neither_steps_nor_forward_mode_can_tell_is_undecided(function, kept):
    looping = lambda a, b: jax.lax.while_loop(lambda y: y > 1e35, lambda y: y / 2, function(a, b))  # no reverse mode

    def backward(args, dy):
        da, db = jax.grad(function, (0, 1))(*args)
        return kept * dy * da, dy * db

    candidate = custom(looping, lambda a, b: (looping(a, b), (a, b)), backward)
    verdict = check.gradients(candidate, normal(1, 5), normal(2, 5), modes="quick").verdict
    assert verdict in ("undecided", "right" if kept else "wrong")


def test_forward_mode_rounds_as_its_own_leaf_does():
    a, b = normal(1, 5, dtype=np.float64), normal(2, 5, dtype=np.float64)
    point = Point([np.asarray(a), np.asarray(b)], ([], {}), [np.asarray(2.0)])
    tangent = Tangent(subject_of(smooth, a, b), WIDE, point, np.random.default_rng(0))
    found = tangent(0, np.ones(5))
    assert found is not None
    wanted, rounding = found
    assert abs(wanted - 1e-19) <= rounding < 1e-30
    callback = lambda a, b: jax.pure_callback(lambda a, b: a + b, jax.ShapeDtypeStruct((5,), jnp.float64), a, b)
    assert Tangent(subject_of(callback, a, b), WIDE, point, np.random.default_rng(0))(0, np.ones(5)) is None


def test_a_gradient_that_cancels_to_nothing_is_right():
    def normalized(w, b, x):
        h = x @ w + b[None]
        return jnp.tanh(
            (h - h.mean(0, keepdims=True)) * jax.lax.rsqrt(h.var(0, keepdims=True) + jnp.asarray(1e-5, h.dtype))
        )

    args = normal(1, 3, 4), normal(2, 4), normal(3, 5, 3)
    assert check.gradients(normalized, *args, modes="quick").ok
    assert check.gradients(changed(normalized, lambda g: [g[0], 0 * g[1], g[2]]), *args, modes="quick").ok


# ---- few digits inside ----


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_fixed_inside(dtype):
    fixed = lambda x: jnp.tanh(x.astype(dtype)).astype(jnp.float32)
    x = normal(1, 12)
    for candidate, reference in ((fixed, None), (changed(fixed, lambda g: g), None), (fixed, lambda x: fixed(x))):
        report = check.gradients(candidate, x, reference=reference, modes="quick")
        assert report.ok, str(report)
        least = {"float32": 1e-7, "bfloat16": 3e-2, "float16": 3e-3}[dtype]
        assert all(leaf.sees > least for leaf in report.leaves), str(report)
        assert ("a fault of" in report.sentence) == (report.detection_probability == 0)
    for factor in (0.0, 1.5):
        assert (
            check.gradients(changed(fixed, lambda g, k=factor: [scaled(g[0], k)]), x, modes="quick").verdict == "wrong"
        )


def test_arguments_of_16_bits_are_judged_in_float64():
    x = normal(1, 12, dtype=jnp.bfloat16)
    report = check.gradients(jnp.sin, x, modes="quick")
    assert report.ok and report.detection_probability == 1
    only = changed(jnp.sin, lambda g: [scaled(g[0], 1.5 if g[0].dtype == jnp.bfloat16 else 1.0)])
    report = check.gradients(only, x, modes="quick")
    assert report.verdict == "wrong" and "factor 1.500" in report.sentence and "right in float64" in report.sentence


def test_a_computation_in_float64_throughout():
    def recurrence(x):
        step = lambda h, t: (jax.nn.relu(h + t.astype(jnp.float16)), h.astype(jnp.float32))
        return jax.lax.cond(
            x[0] > -9,
            lambda x: jax.lax.scan(step, jnp.zeros((), jnp.float16), x)[1],
            lambda x: x.astype(jnp.float32),
            x,
        )

    x = np.random.default_rng(1).random(6)
    with jax.enable_x64(True):
        wide = widened(subject_of(recurrence, x))([jnp.asarray(x)], ([], {}), [jnp.ones(6)])
    np.testing.assert_allclose(wide.values[0], np.concatenate([[0], np.cumsum(x)[:-1]]), rtol=1e-15)
    np.testing.assert_allclose(wide.gradients[0], np.arange(5, -1, -1), rtol=1e-15)
    assert wide.gradients[0].dtype == np.float64


# ---- second derivatives ----


def test_second_derivatives_without_a_reference():
    x = normal(1, 4)
    report = check.gradients(jnp.sin, x, modes="all")
    assert report.ok and not report.not_judged and "second derivative" in [leaf.quantity for leaf in report.leaves]
    stopped = changed(jnp.sin, lambda g: [jax.lax.stop_gradient(g[0])])
    assert check.gradients(stopped, x).ok
    report = check.gradients(stopped, x, modes="all")
    assert report.verdict == "wrong" and "second derivative of" in report.sentence
    # by steps alone
    point = Point([np.asarray(x)], ([], {}), ([np.ones(4)], [np.ones(4)]))
    for function, wrong in ((jnp.sin, False), (stopped, True), (lambda x: jnp.abs(x) * x, False)):
        found = second_evidence(subject_of(function, x), point, np.random.default_rng(0))
        assert found is not None and bool(found[0].wrong) == wrong and not found[0].undecided

"""The prover: what is wrong is rejected at any magnitude, what is right is accepted, and what cannot be known is said."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from fdl import check
from fdl.errors import InputError, InputTypeError
from fdl.layers.dense import dense as dense_layer
from fdl.layers.dense import op as dense
from fdl.layers.dropout import op as dropout
from fdl.losses import mean_squared_error, softmax_cross_entropy, softmax_cross_entropy_with_integer_labels
from fdl.op import Op
from tests.check.zoo import (
    CHANGES,
    batch_norm,
    batch_norm_backward,
    batch_norm_equation,
    batch_norm_forward,
    batch_norm_params,
    custom,
    labels,
    normal,
    one_entry_off,
    planted,
    rnn,
)

pytestmark = pytest.mark.optimized

untyped: Any = check.gradients  # for arguments of the wrong type

MAGNITUDES = [1e-30, 1e-12, 1.0, 1e12, 1e30]


def dense_args(dtype=np.float32, scale=1.0):
    params = {"w": normal(1, 5, 3, dtype=dtype), "b": normal(2, 3, dtype=dtype)}
    return params, normal(3, 7, 5, dtype=dtype, scale=scale)


# ---- what is wrong is rejected ----


@pytest.mark.parametrize("fault", CHANGES)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_a_fault_in_one_leaf_is_caught_at_any_magnitude(magnitude, fault):
    args = dense_args(scale=magnitude)
    for place, leaf in enumerate(("params['b']", "params['w']", "x")):
        report = check.gradients(planted(dense, place, CHANGES[fault]), *args, modes="quick", key=place)
        assert report.verdict == "wrong"
        assert {failure.leaf for failure in report.failures} == {leaf}


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_what_is_right_is_right_at_any_magnitude(magnitude):
    x = normal(1, 7, 5, scale=magnitude)
    check.assert_gradients(dense, *dense_args(scale=magnitude), modes="quick")
    check.assert_gradients(mean_squared_error, x, normal(2, 7, 5, scale=magnitude), modes="quick")
    report = check.gradients(batch_norm, batch_norm_params(5), x, modes="quick")
    # the square of 1e30 is no float32: its gradient comes out as 0, in the plain version too, and is not called right
    overflows = magnitude**2 > float(np.finfo(np.float32).max)
    assert report.verdict == ("undecided" if overflows else "right"), str(report)
    assert ("lost in float32: a number on the way over- or underflows" in str(report)) == overflows


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_a_loss_of_any_magnitude_has_its_faults_caught(magnitude):
    args = normal(1, 4, 6, scale=magnitude), normal(2, 4, 6, scale=magnitude)
    for place, fault in enumerate(CHANGES):
        assert (
            check.gradients(planted(mean_squared_error, place % 2, CHANGES[fault]), *args, modes="quick").verdict
            == "wrong"
        )


@pytest.mark.parametrize(("dtype", "share"), [(np.float32, 1e-6), (np.float64, 1e-9)])
def test_the_smallest_fault_in_one_of_a_thousand_entries(dtype, share):
    x, target = normal(1, 20, 50, dtype=dtype), normal(2, 20, 50, dtype=dtype)
    wrong = planted(mean_squared_error, 0, one_entry_off((13, 31), share))
    report = check.gradients(wrong, x, target, modes="quick")
    (failure,) = [failure for failure in report.failures if failure.mode == "float64"]
    assert (failure.path, failure.wrong, failure.entries) == ("pred[13, 31]", 1, 1000)
    assert failure.pattern == f"factor 1 + {share:.2g}, one entry"
    check.assert_gradients(mean_squared_error, x, target, modes="quick")


def test_batch_norm_divided_by_the_count_minus_one():
    def wrong(residuals, dy):
        return batch_norm_backward(residuals, dy, count=dy.shape[0] - 1)

    op = Op(batch_norm_equation, batch_norm_forward, wrong)
    report = check.gradients(op, batch_norm_params(20), normal(1, 64, 20), modes="quick")
    assert {failure.leaf for failure in report.failures} == {"x"}


FAULTS = {
    "missing bias sum": ("params['b']", lambda x, dy: ({"w": x.T @ dy, "b": dy[0]}, None)),
    "transposed": ("params['w']", lambda x, dy: ({"w": dy.T @ x, "b": dy.sum(axis=0)}, None)),
    "squared cotangent": ("params['b']", lambda x, dy: ({"w": x.T @ dy, "b": (dy * dy).sum(axis=0)}, None)),
    "nan": ("params['b']", lambda x, dy: ({"w": x.T @ dy, "b": dy.sum(axis=0) * jnp.asarray(jnp.nan, dy.dtype)}, None)),
    "row 2": ("params['w']", lambda x, dy: ({"w": (x.T @ dy).at[2].multiply(2), "b": dy.sum(axis=0)}, None)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_usual_mistakes_of_a_dense_backward(name):
    leaf, mistake = FAULTS[name]

    def wrong(residuals, dy):
        params, x = residuals
        return mistake(x, dy)[0], dy @ params["w"].T

    params = {"w": normal(1, 5, 5), "b": normal(2, 5)}
    report = check.gradients(Op(dense._equation, dense._forward, wrong), params, normal(3, 7, 5), modes="quick")
    assert {failure.leaf for failure in report.failures} == {leaf}
    patterns = {"transposed": "transposed", "nan": "not finite, all entries", "row 2": "factor 2.000, all of row 2"}
    if name in patterns:
        assert report.failures[0].pattern == patterns[name]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_entry_that_is_not_finite(dtype):
    wrong = planted(dense, 2, lambda dx: dx.at[3, 1].set(jnp.nan))
    report = check.gradients(wrong, *dense_args(dtype), modes="quick")
    assert report.verdict == "wrong" and report.failures[0].pattern == "not finite, one entry"


def test_wrong_under_vmap_alone():
    @jax.custom_batching.custom_vmap
    def slope(x):
        return jnp.cos(x)

    @slope.def_vmap
    def _(size, batched, x):
        return jnp.cos(x) * jnp.asarray(0.9, x.dtype), True

    sine = custom(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (dy * slope(x),))
    report = check.gradients(sine, normal(1, 4, 3), reference=jnp.sin)
    assert {failure.mode for failure in report.failures} == {"vmap"}
    assert report.failures[0].pattern == "factor 0.9000, all entries"
    assert "in vmap (float64) alone" in report.sentence
    assert check.gradients(sine, normal(1, 4, 3), reference=jnp.sin, modes="quick").ok


def test_wrong_after_the_first_step_alone():
    u, x = normal(1, 3, 3), normal(2, 5, 2, 3)
    wrong = planted(rnn, 1, lambda dx: dx.at[1:].multiply(2))
    report = check.gradients(wrong, u, x, modes="quick")
    assert report.failures[0].pattern == "factor 2.000, all but axis 0, index 0"
    check.assert_gradients(rnn, u, x, modes="quick")


def test_a_wrong_value_is_wrong():
    def forward(x):
        return 2 * x, None

    report = check.gradients(Op(lambda x: x, forward, lambda residuals, dy: (dy,)), normal(1, 3), modes="quick")
    assert report.verdict == "wrong" and {f.quantity for f in report.failures} == {"value"}


def test_wrong_in_the_second_derivative_alone():
    # the slope is right, but it is computed from y, which it takes for a constant
    sine = custom(
        jnp.sin,
        lambda x: (jnp.sin(x), x),
        lambda x, dy: (dy * (jnp.cos(x) + 0 * x) - dy * 0 * jax.lax.stop_gradient(x),),
    )
    frozen = custom(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (dy * jax.lax.stop_gradient(jnp.cos(x)),))
    x = normal(1, 4)
    assert check.gradients(sine, x, reference=jnp.sin, modes="all").ok
    report = check.gradients(frozen, x, reference=jnp.sin, modes="all")
    assert {failure.mode for failure in report.failures} == {"second derivative", "forward over reverse"}
    assert check.gradients(frozen, x, reference=jnp.sin).ok


def test_what_the_standard_checker_lets_through():
    def cost(x):
        return jnp.sum(x**2) * jnp.asarray(1e-5, x.dtype)

    zero = custom(cost, lambda x: (cost(x), x), lambda x, g: (jnp.zeros_like(x),))
    x = normal(1, 64)
    check_grads(zero, (x,), order=1, modes=["rev"])  # passes
    report = check.gradients(zero, x, reference=cost, modes="quick")
    assert report.verdict == "wrong" and report.failures[0].pattern == "zero, all entries"
    assert check.gradients(zero, x, modes="quick").verdict == "wrong"  # without a reference too


# ---- what is right is accepted ----


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, np.float32, np.float64])
def test_right_in_every_precision(dtype):
    x = normal(1, 6, 5, dtype=dtype, scale=2.0)
    tanh = custom(jnp.tanh, lambda x: (jnp.tanh(x),) * 2, lambda y, dy: (dy * (1 - y * y),))
    check.assert_gradients(tanh, x, reference=jnp.tanh, modes="quick")
    check.assert_gradients(dense, *dense_args(dtype), modes="quick")
    check.assert_gradients(softmax_cross_entropy, x, jax.nn.softmax(normal(2, 6, 5, dtype=dtype)), modes="quick")
    negated = planted(dense, 1, CHANGES["negated"])
    assert check.gradients(negated, *dense_args(dtype), modes="quick").verdict == "wrong"


@pytest.mark.parametrize("key", [0, 1, jax.random.key(2)])
def test_verdicts_do_not_depend_on_the_key(key):
    args = batch_norm_params(4), normal(1, 9, 4)
    check.assert_gradients(batch_norm, *args, key=key)
    wrong = check.gradients(planted(batch_norm, 2, CHANGES["scaled by 0.9"]), *args, key=key, modes="quick")
    assert wrong.verdict == "wrong"


def test_integer_labels_are_passed_on_and_listed():
    report = check.gradients(softmax_cross_entropy_with_integer_labels, normal(1, 7, 4), labels(2, 7, 4), modes="all")
    assert report.ok and report.not_differentiated == ("labels int32[7]",)
    assert "Not differentiated: labels int32[7]" in str(report)
    assert report.modes == (
        "float64",
        "eager",
        "jit",
        "vmap",
        "grad inside vmap",
        "vmap over logits",
        "grad inside vmap over logits",
        "vmap over labels",
        "grad inside vmap over labels",
        "vmap over the cotangent",
        "scan",
        "checkpoint",
        "shard_map",
        "donated buffers",
        "one output unused",
        "same inputs twice",
        "float16",
        "bfloat16",
        "second derivative",
        "forward over reverse",
    )


def test_keys_booleans_none_and_empty_arrays_are_passed_on():
    report = check.gradients(dropout, normal(1, 5, 4), jax.random.key(3), options={"rate": 0.5})
    assert report.ok and report.not_differentiated == ("key key<fry>[]",)

    def masked(tree, key):
        assert tree["nothing"] is None
        return jnp.where(tree["mask"], tree["x"] * jax.random.uniform(key, (3,), tree["x"].dtype), 0)

    tree = {
        "x": normal(1, 3),
        "mask": jnp.asarray([True, False, True]),
        "nothing": None,
        "empty": jnp.zeros((0, 2), jnp.float32),
    }
    report = check.gradients(masked, tree, jax.random.PRNGKey(0), reference=masked, modes="all")
    assert report.ok
    assert [leaf.split()[0] for leaf in report.not_differentiated] == [
        "tree['empty']",
        "tree['mask']",
        "tree['nothing']",
        "key",
    ]


def test_a_mean_over_many_entries():
    def cost(x):
        return jnp.mean(jnp.tanh(x) ** 2)

    def backward(x, dcost):
        y = jnp.tanh(x)
        return (dcost / x.size * 2 * y * (1 - y * y),)

    by_hand = custom(cost, lambda x: (cost(x), x), backward)
    x = normal(1, 64, 100)
    check.assert_gradients(by_hand, x, reference=cost, modes="quick")
    zero = custom(cost, lambda x: (cost(x), x), lambda x, g: (jnp.zeros_like(x),))
    assert check.gradients(zero, x, reference=cost, modes="quick").verdict == "wrong"


def test_a_stable_and_a_naive_formula_agree_both_ways():
    def naive(x):
        return jnp.log(jnp.sum(jnp.exp(x), axis=-1))

    for scale in (1.0, 100.0):  # exp(100) overflows in float32, not in float64
        x = normal(1, 6, 5, scale=scale)
        check.assert_gradients(lambda x: jax.nn.logsumexp(x, axis=-1), x, reference=naive, modes="quick")
    check.assert_gradients(naive, normal(1, 6, 5), reference=lambda x: jax.nn.logsumexp(x, axis=-1), modes="quick")


def test_a_computation_that_cancels_is_no_false_alarm():
    def difference(x):
        return jnp.log(jnp.sum(jnp.exp(x + 60), axis=-1)) - jnp.log(jnp.sum(jnp.exp(x[..., :-1] + 60), axis=-1))

    def stable(x):
        return jax.nn.logsumexp(x, axis=-1) - jax.nn.logsumexp(x[..., :-1], axis=-1)

    x = normal(1, 4, 6).at[:, 5].add(-12.0)
    report = check.gradients(stable, x, reference=difference)
    assert report.ok and "digits survive in float32" in str(report)
    for change in CHANGES.values():
        wrong = custom(
            stable, lambda x: (stable(x), x), lambda x, dy, change=change: (change(jax.vjp(stable, x)[1](dy)[0]),)
        )
        assert check.gradients(wrong, x, reference=difference, modes="quick").verdict == "wrong"


@pytest.mark.parametrize("delta", [1e-12, 1.0, 1e12])
def test_huber_at_its_scale_with_an_option_given_as_number_or_array(delta):
    def equation(pred, target, *, delta=1.0):
        a = jnp.abs(pred - target)
        return jnp.where(a <= delta, a**2 / 2, delta * (a - delta / 2))

    def forward(pred, target, *, delta):
        clipped = jnp.clip(pred - target, -delta, delta)
        return clipped * (pred - target - clipped / 2), clipped

    huber = Op(equation, forward, lambda clipped, dy: (dy * clipped, -dy * clipped), name="huber")
    args = normal(1, 30, scale=delta), normal(2, 30, scale=delta)
    check.assert_gradients(huber, *args, options={"delta": delta}, modes="quick")
    check.assert_gradients(huber, *args, options={"delta": jnp.float32(delta)}, modes="quick")
    report = check.gradients(huber.bind(delta=jnp.float32(delta)), *args, modes="quick")
    assert report.ok and report.notes == ()
    unclipped = Op(equation, forward, lambda clipped, dy: (dy * clipped, dy * clipped), name="huber")
    assert check.gradients(unclipped, *args, options={"delta": delta}, modes="quick").verdict == "wrong"


# ---- rounding ----


def two_pass(x):
    return jnp.mean((x - jnp.mean(x, axis=0, keepdims=True)) ** 2, axis=0)


def one_pass(x):
    return jnp.mean(x**2, axis=0) - jnp.mean(x, axis=0) ** 2


def test_one_pass_variance_far_from_zero():
    x = normal(1, 50, 4, mean=1e4)
    report = check.gradients(one_pass, x, reference=two_pass)
    assert (
        report.ok and "ill-conditioned here" in report.leaves[0].note
    )  # the value; the gradient is that of two passes
    # where the gradient cancels, too, of no use in float32
    deviation = lambda x: jnp.sum(jnp.sqrt(jnp.abs(one_pass(x)) + 1e-3))
    report = check.gradients(deviation, x, reference=lambda x: jnp.sum(jnp.sqrt(two_pass(x) + 1e-3)))
    assert report.verdict == "wrong"
    assert all(
        "float32 rounding error" in failure.message and failure.dtype == "float32" for failure in report.failures
    )
    assert "times that of the plain version" in str(report)
    # a reference that rounds badly does not accuse, and says so
    report = check.gradients(two_pass, x, reference=one_pass)
    assert report.ok and "ill-conditioned here: about 0 digits survive in float32" in str(report)
    assert check.gradients(one_pass, normal(1, 50, 4), reference=two_pass).ok


def test_a_reference_that_overflows_does_not_accuse():
    def naive(x):
        return jnp.exp(x) / jnp.sum(jnp.exp(x), axis=-1, keepdims=True)

    x = normal(1, 5, 4, scale=10.0) + 100
    report = check.gradients(jax.nn.softmax, x, reference=naive)
    assert report.ok and "the plain version overflows there" in str(report)
    # but the naive formula is worse than a stable reference
    report = check.gradients(naive, x, reference=jax.nn.softmax)
    assert report.verdict == "wrong" and {failure.dtype for failure in report.failures} == {"float32"}


def test_where_the_reference_is_not_finite_nothing_is_compared():
    def naive(x):
        return jnp.log(jnp.sum(jnp.exp(x), axis=-1))

    def stable(x):
        return jax.nn.logsumexp(x, axis=-1)

    x = normal(1, 3, 4).at[1].add(800)
    report = check.gradients(stable, x, reference=naive, modes="quick")
    assert report.ok and "the truth is not finite there" in str(report)
    assert report.detection_probability == pytest.approx(2 / 3)
    report = check.gradients(stable, x + 2000, reference=naive)
    assert report.verdict == "undecided" and report.comparisons == 0 and not report.ok
    with pytest.raises(check.GradientError, match="undecided"):
        check.assert_gradients(stable, x + 2000, reference=naive)


def test_a_gradient_that_is_zero_is_decided_and_one_lost_in_rounding_is_not():
    def shifted(params, x):  # a bias before batch norm has no effect
        return batch_norm_equation({"scale": params["scale"], "shift": params["shift"]}, x + params["b"][None])

    params = batch_norm_params(4) | {"b": normal(5, 4)}
    report = check.gradients(shifted, params, normal(1, 9, 4), reference=shifted, modes="quick")
    assert report.ok and "zero up to rounding" in str(report)

    def lost(x):
        return ((x + 1e20) - 1e20) * x

    report = check.gradients(lost, normal(1, 5), reference=lost, modes="quick")
    assert report.verdict == "undecided"


def test_functions_that_are_float32_inside():
    def inside(x):
        return jnp.sin(x.astype(jnp.float32)).astype(x.dtype)

    def backward(x, dy):
        return (dy * jnp.cos(x.astype(jnp.float32)).astype(x.dtype),)

    right = custom(inside, lambda x: (inside(x), x), backward)
    wrong = custom(inside, lambda x: (inside(x), x), lambda x, dy: tuple(0.999 * g for g in backward(x, dy)))
    for dtype in (np.float32, np.float64):
        x = normal(1, 40, dtype=dtype)
        check.assert_gradients(right, x, reference=jnp.sin)
        assert check.gradients(wrong, x, reference=jnp.sin).verdict == "wrong"
    assert "judged in the precision of its arguments alone" in str(
        check.gradients(right, normal(1, 4), reference=jnp.sin)
    )


def test_functions_that_refuse_float64():
    def only_float32(x):
        if x.dtype != jnp.float32:
            raise TypeError("float32 only")
        return jnp.sin(x)

    right = custom(only_float32, lambda x: (only_float32(x), x), lambda x, dy: (dy * jnp.cos(x),))
    wrong = custom(only_float32, lambda x: (only_float32(x), x), lambda x, dy: (dy * 0.999 * jnp.cos(x),))
    x = normal(1, 40)
    for reference in (jnp.sin, only_float32):
        report = check.gradients(right, x, reference=reference)
        assert report.ok and "does not run in float64" in str(report)
        assert check.gradients(wrong, x, reference=reference).verdict == "wrong"
    assert check.gradients(right, x).ok and check.gradients(wrong, x).verdict == "wrong"
    assert check.gradients(only_float32, x).verdict == "undecided"


def test_at_a_kink_another_slope_is_left_out_and_a_wrong_one_is_wrong():
    def relu(x):
        return jnp.maximum(x, 0)  # jax takes 1/2 at 0

    def with_slope(at_zero):
        def backward(x, dy):
            return (dy * jnp.where(x == 0, jnp.asarray(at_zero, x.dtype), (x > 0).astype(x.dtype)),)

        return custom(relu, lambda x: (relu(x), x), backward)

    x = normal(1, 6, 5).at[2].set(0)
    for slope in (0.0, 1.0):
        report = check.gradients(with_slope(slope), x, reference=relu, modes="quick")
        assert report.ok and report.detection_probability == pytest.approx(5 / 6)
        assert "left out at kinks, where the reference takes another of the slopes" in str(report)
    for slope in (2.0, -0.7):
        report = check.gradients(with_slope(slope), x, reference=relu, modes="quick")
        assert report.verdict == "wrong" and report.failures[0].pattern.endswith("all of row 2")
    for fault in CHANGES.values():
        wrong = custom(relu, lambda x: (relu(x), x), lambda x, dy, fault=fault: (fault(dy * (x > 0).astype(x.dtype)),))
        assert check.gradients(wrong, x, reference=relu, modes="quick").verdict == "wrong"
    assert check.gradients(with_slope(0.0), x * 0, reference=relu, modes="quick").verdict == "undecided"


def test_units_that_switch_by_rounding_do_not_accuse():
    def network(w, v, x):
        return jnp.maximum(jnp.maximum(x @ w, 0) @ v, 0)

    def forward(w, v, x):
        def product(a, b):
            wide = jnp.float64 if a.dtype == jnp.float64 else jnp.float32
            return jnp.matmul(a, b, preferred_element_type=wide).astype(a.dtype)

        h = jnp.maximum(product(x, w), 0)
        y = jnp.maximum(product(h, v), 0)
        return y, (w, v, x, h, y)

    def backward(residuals, dy):
        w, v, x, h, y = residuals
        dy = jnp.where(y > 0, dy, 0)
        dh = jnp.where(h > 0, dy @ v.T, 0)
        return x.T @ dh, h.T @ dy, dh @ w.T

    op = Op(network, forward, backward)
    args = [normal(seed, *shape, dtype=jnp.bfloat16) for seed, shape in enumerate([(32, 64), (64, 16), (48, 32)])]
    check.assert_gradients(op, *args, modes="quick")
    for place in range(3):
        assert check.gradients(planted(op, place, CHANGES["scaled by 0.9"]), *args, modes="quick").verdict == "wrong"


# ---- modes ----


def test_a_mode_that_raises_is_a_failure_of_that_mode():
    @jax.custom_batching.custom_vmap
    def slope(x):
        return jnp.cos(x)

    @slope.def_vmap
    def _(size, batched, x):
        raise NotImplementedError("no batches")

    sine = custom(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (dy * slope(x),))
    report = check.gradients(sine, normal(1, 4), reference=jnp.sin)
    assert report.verdict == "wrong"
    assert [(failure.quantity, failure.mode) for failure in report.failures] == [("error", "vmap")]
    assert report.sentence == "sin raised NotImplementedError: no batches in vmap"
    assert check.gradients(sine, normal(1, 4), reference=jnp.sin, modes="quick").ok


def test_a_candidate_that_raises_everywhere_is_wrong():
    def broken(x):
        raise RuntimeError("no")

    report = check.gradients(broken, normal(1, 4), reference=jnp.sin)
    assert report.verdict == "wrong" and "raised RuntimeError: no" in report.sentence

    report = check.gradients(broken, normal(1, 4))
    assert report.verdict == "wrong" and "raised RuntimeError: no" in report.sentence


def test_outputs_of_another_kind_are_wrong():
    report = check.gradients(lambda x: jnp.sum(x), normal(1, 4), reference=lambda x: x)
    assert report.verdict == "wrong"
    assert "returned output float32[], wanted output float32[4]" in report.sentence


def test_outputs_may_be_a_tree_with_integers():
    def ranked(x):
        return {"top": jnp.max(x), "rest": (x * x, jnp.argmax(x))}

    report = check.gradients(ranked, normal(1, 6), reference=ranked, modes="all")
    assert report.ok and {leaf.leaf for leaf in report.leaves} == {"output['top']", "output['rest'][0]", "x"}
    other = check.gradients(lambda x: ranked(x) | {"rest": (x * x, jnp.argmin(x))}, normal(1, 6), reference=ranked)
    assert other.verdict == "wrong" and "output['rest'][1]" in str(other)


@pytest.mark.parametrize("x64", [False, True])
def test_it_does_not_matter_whether_the_caller_has_x64_on(x64):
    with jax.enable_x64(x64):
        report = check.gradients(dense, *dense_args(), modes="all")
        assert report.ok
        wide = {"w": np.ones((5, 3)), "b": np.ones(3)}, np.random.default_rng(0).standard_normal((7, 5))
        report = check.gradients(dense, *wide, modes="quick")
        assert report.ok and {row.dtype for row in report.comparisons_by_mode} == {"float64"}
        assert check.gradients(planted(dense, 1, CHANGES["negated"]), *dense_args(), modes="quick").verdict == "wrong"


# ---- without a reference ----


def test_central_differences_decide_without_a_reference():
    x, w = normal(1, 6, 5), normal(2, 5, 3)
    report = check.gradients(lambda x, w: jnp.tanh(x @ w), x, w)
    assert report.ok and report.reference == "complex steps" and report.detection_probability == 1
    zero_in_w = custom(
        lambda x, w: jnp.tanh(x @ w),
        lambda x, w: (jnp.tanh(x @ w), (x, w)),
        lambda r, dy: (dy * (1 - jnp.tanh(r[0] @ r[1]) ** 2) @ r[1].T, jnp.zeros_like(r[1])),
    )
    report = check.gradients(zero_in_w, x, w)
    assert report.verdict == "wrong" and {failure.leaf for failure in report.failures} == {"w"}


def test_an_argument_without_effect_has_gradient_zero_without_a_reference_too():
    assert (
        check.gradients(lambda x, y: x * jax.lax.stop_gradient(x), normal(1, 20), normal(2, 20), modes="quick").verdict
        == "wrong"
    )
    assert check.gradients(lambda x, y: x * x, normal(1, 20), normal(2, 20), modes="quick").ok


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_central_differences_at_any_magnitude(magnitude):
    x = normal(1, 30, scale=magnitude, dtype=np.float64)
    assert check.gradients(lambda x: jnp.sum(x**2), x, modes="quick").ok
    for change in CHANGES.values():
        wrong = custom(
            lambda x: jnp.sum(x**2), lambda x: (jnp.sum(x**2), x), lambda x, g, change=change: (change(2 * g * x),)
        )
        assert check.gradients(wrong, x, modes="quick").verdict == "wrong"


def test_central_differences_too_rough_decide_nothing():
    def jagged(x):
        return jnp.abs(jnp.sin(1e9 * x))

    report = check.gradients(jagged, normal(1, 3, dtype=np.float64), modes="quick")
    assert report.verdict == "undecided" and "central differences are too rough" in report.sentence


# ---- the report ----


def test_the_report_in_words_and_in_json():
    report = check.gradients(planted(dense, 1, CHANGES["negated"]), *dense_args())
    lines = str(report).splitlines()
    assert lines[0] == "wrong: dense gets the gradient of params['w'] wrong (1 of 3 leaves): factor -1.000, all entries"
    assert "wanted" in lines[2] and "15 of 15 entries wrong" in lines[2] and "also in eager (float32)" in lines[2]
    fields = json.loads(report.to_json(), parse_constant=lambda constant: pytest.fail(constant))
    assert fields["verdict"] == "wrong" and not fields["ok"] and fields["comparisons"] == report.comparisons > 0
    assert fields["failures"][0]["path"].startswith("params['w'][")
    assert all(math.isfinite(row["worst"]) for row in fields["comparisons_by_mode"])


def test_the_report_of_what_is_right():
    report = check.gradients(dense, *dense_args())
    assert str(report).startswith("right: dense agrees with its equation in ")
    assert "A fault of 1 % in one entry would have been seen with probability 1." in str(report)
    assert report.failures == () and report.detection_probability == 1
    assert all(leaf.sees < 1e-11 for leaf in report.leaves)
    json.loads(report.to_json())


def test_not_finite_numbers_are_strings_in_json():
    op = planted(dense, 0, lambda g: g * jnp.asarray(jnp.nan, g.dtype))
    report = check.gradients(op, *dense_args(), modes="quick")
    fields = json.loads(report.to_json(), parse_constant=lambda constant: pytest.fail(constant))
    assert (fields["failures"][0]["got"], fields["failures"][0]["error_over_allowed"]) == ("nan", "inf")


def test_assert_gradients_raises_an_assertion_error_with_the_report():
    assert check.assert_gradients(dense, *dense_args(), modes="quick").ok
    assert issubclass(check.GradientError, AssertionError)
    with pytest.raises(check.GradientError, match="factor -1.000") as caught:
        check.assert_gradients(planted(dense, 1, CHANGES["negated"]), *dense_args(), modes="quick")
    assert caught.value.report.verdict == "wrong"


# ---- at the door ----


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (InputError, "got no arguments", lambda: check.gradients(jnp.sin)),
        (
            InputError,
            "nothing to differentiate in x int32",
            lambda: check.gradients(lambda x: x, jnp.arange(3, dtype=jnp.int32)),
        ),
        (
            InputError,
            "modes is 'fast', wanted one of 'quick'",
            lambda: check.gradients(jnp.sin, normal(1, 3), modes="fast"),
        ),
        (InputError, "key is -1", lambda: check.gradients(jnp.sin, normal(1, 3), key=-1)),
        (InputTypeError, "key is str 'a'", lambda: check.gradients(jnp.sin, normal(1, 3), key="a")),
        (InputTypeError, "candidate is int 3", lambda: untyped(3, normal(1, 3))),
        (InputTypeError, "reference is int 3", lambda: untyped(jnp.sin, normal(1, 3), reference=3)),
        (InputTypeError, r"fdl.check.layer\(model, x\)", lambda: untyped(dense_layer(3), normal(1, 3))),
        (
            InputTypeError,
            r"x\[0\] is float 1.0, wanted an array; pass jnp.asarray",
            lambda: check.gradients(lambda x: x, [1.0]),
        ),
        (
            InputTypeError,
            "y is complex, wanted an array; pass jnp.asarray",
            lambda: check.gradients(lambda x, y: x, normal(1, 3), 2j),
        ),
        (InputTypeError, "wanted real arrays", lambda: check.gradients(lambda x: x, jnp.ones(2, jnp.complex64))),
        (InputTypeError, "options is list", lambda: untyped(lambda x: x, normal(1, 3), options=[1])),
        (InputTypeError, "x is traced", lambda: jax.jit(lambda x: check.gradients(jnp.sin, x).ok)(normal(1, 3))),
    ],
)
def test_what_cannot_be_checked_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_what_the_reference_raises_is_raised_with_a_note():
    def broken(x):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no") as caught:
        check.gradients(jnp.sin, normal(1, 3), reference=broken)
    assert "raised by the reference" in caught.value.__notes__[0]


def test_nothing_is_shown_without_a_floating_output():
    x = normal(0, 5)
    report = check.gradients(lambda x: None, x, reference=lambda x: None)
    assert report.verdict == "undecided" and "no floating output" in str(report)
    count = custom(lambda x: jnp.sum(x > 0), lambda x: (jnp.sum(x > 0), x), lambda r, d: (r * 1e9,))
    assert check.gradients(count, x, reference=lambda x: jnp.sum(x > 0)).verdict == "undecided"


def test_a_program_that_jax_cached_in_the_other_precision():
    a, b = jnp.asarray([0.3, 1.2], jnp.float32), jnp.asarray([0.7, 0.4], jnp.float32)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        report = check.gradients(jax.scipy.special.owens_t, a, b, modes="quick")
    assert report.verdict == "right", str(report)


@pytest.mark.parametrize("backward", [
    lambda x, g: (jnp.clip(g, -30, 30) * jnp.cos(x),),
    lambda x, g: (jnp.where(jnp.abs(g) < 1e-6, jnp.zeros_like(g), g) * jnp.cos(x),),
], ids=["clipped", "dead where small"])  # fmt: skip
def test_a_gradient_that_is_not_linear_in_the_cotangent(backward):
    report = check.gradients(custom(jnp.sin, lambda x: (jnp.sin(x), x), backward), normal(1, 9), reference=jnp.sin)
    assert report.verdict == "wrong" and "is not linear in the cotangent" in report.sentence


def test_a_cast_on_the_way_does_not_excuse_a_fault():
    def backward(x, g):
        return (1.05 * g * jnp.cos(x) + 0 * x.astype(jnp.bfloat16).astype(g.dtype),)

    wrong = custom(jnp.sin, lambda x: (jnp.sin(x), x), backward)
    assert check.gradients(wrong, normal(1, 9), reference=jnp.sin).verdict == "wrong"


@pytest.mark.parametrize("ties", [8, 16, 64])
def test_any_share_among_many_equal_entries_is_accepted(ties):
    first = lambda x: x[jnp.argmax(x)]

    def backward(x, g):
        largest = (x == x.max()).astype(g.dtype)
        return (g * largest / largest.sum(),)

    shared = custom(first, lambda x: (first(x), x), backward)
    x = jnp.concatenate([jnp.zeros(ties, jnp.float32), -jnp.ones(3, jnp.float32)])
    assert check.gradients(shared, x, reference=first, modes="quick").verdict == "right"


def test_the_examples_of_a_batch_keep_the_symmetry_of_a_matrix():
    """The log-determinant by Cholesky is that of symmetric matrices alone."""
    by_factor = lambda a: 2 * jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(a))))
    candidate = custom(by_factor, lambda a: (by_factor(a), a), lambda a, g: (g * jnp.linalg.inv(a).T,))
    z = normal(1, 4, 4)
    a = 3 * jnp.eye(4, dtype=jnp.float32) + jnp.asarray(0.1, jnp.float32) * z @ z.T
    assert check.gradients(candidate, a, reference=lambda a: jnp.linalg.slogdet(a)[1]).verdict == "right"


@pytest.mark.parametrize("factor, verdict", [(1.0, "right"), (1 + 1e-5, "wrong")])
def test_arguments_of_two_precisions(factor, verdict):
    """The gradient of a float32 argument beside a float64 one is rounded to float32, and judged so."""

    def plain(w, x):
        return jnp.tanh(x.astype(w.dtype) @ w)

    function = jax.custom_vjp(plain)

    def backward(kept, dy):
        (w, x), wide = kept, kept[0].dtype
        da = dy * (1 - plain(w, x) ** 2)
        return x.astype(wide).T @ da, (factor * (da @ w.T)).astype(x.dtype)

    function.defvjp(lambda w, x: (plain(w, x), (w, x)), backward)
    w, x = jax.random.normal(jax.random.key(0), (5, 3), jnp.float64), jax.random.normal(jax.random.key(1), (7, 5))
    assert check.gradients(function, w, x.astype(jnp.float32), reference=plain, modes="quick").verdict == verdict

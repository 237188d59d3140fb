"""Kinks: the interval of the slopes, what lies inside of it and outside, and no false alarm at a tie."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from tests.check.zoo import custom, normal

pytestmark = pytest.mark.optimized


def absolute(at_zero):
    """|x| with a slope of its own at 0."""
    slope = lambda x: jnp.where(x == 0, jnp.asarray(at_zero, x.dtype), jnp.sign(x))
    return custom(jnp.abs, lambda x: (jnp.abs(x), x), lambda x, dy: (dy * slope(x),))


X = jnp.asarray([1.5, -0.5, 2.0, 0.0, -1.0], jnp.float32)


@pytest.mark.parametrize("slope", [-1.0, -0.3, 0.25, 0.9])
def test_a_subgradient_is_right_and_the_interval_is_told(slope):
    report = check.gradients(absolute(slope), X, reference=jnp.abs, modes="quick")
    assert report.verdict == "right"
    (kink,) = report.kinks
    assert (kink.leaf, kink.index, kink.what, kink.at, kink.inside) == ("x", (3,), "slope", 0.0, True)
    assert (kink.low, kink.high) == (-1, 1) and kink.got == pytest.approx(slope)
    assert f"at x[3] = 0 the slope jumps from -1 to 1; {slope:g} returned, inside" in str(report)
    fields = json.loads(report.to_json())
    assert fields["kinks"][0]["low"] == -1 and fields["kinks"][0]["inside"] is True


def test_the_same_slope_as_the_reference_is_told_when_everything_is_asked_for():
    report = check.gradients(jnp.abs, X, reference=jnp.abs, modes="all")
    (kink,) = report.kinks
    assert kink.inside and (kink.low, kink.high) == (-1, 1)
    assert check.gradients(jnp.tanh, X, reference=jnp.tanh, modes="all").kinks == ()


@pytest.mark.parametrize("slope", [-1.2, 1.01, 7.0])
def test_outside_of_the_interval_is_a_failure(slope):
    report = check.gradients(absolute(slope), X, reference=jnp.abs, modes="quick")
    assert report.verdict == "wrong"
    assert all(failure.index == (3,) and "is outside the interval [" in failure.message for failure in report.failures)
    (kink,) = report.kinks
    assert not kink.inside and "returned, outside" in str(report)


def test_more_kinks_than_are_told():
    x = jnp.zeros(9, jnp.float32).at[0].set(1.0)
    report = check.gradients(absolute(0.5), x, reference=jnp.abs, modes="quick")
    assert len(report.kinks) == 8 and "5 more" in str(report)


# ---- no false alarm at a tie ----


def first_of(reduce):
    """The largest entry of each row, whose gradient goes to the first of equals."""

    def forward(x):
        y = reduce(x, axis=-1)
        return y, (x, y)

    def backward(residuals, dy):
        x, y = residuals
        hit = x == y[..., None]
        first = hit & (jnp.cumsum(hit, axis=-1, dtype=np.int32) == 1)
        return (jnp.where(first, dy[..., None], jnp.zeros_like(x)),)

    return custom(lambda x: reduce(x, axis=-1), forward, backward)


def sorted_the_other_way():
    """Sorts, and sends the cotangents of equals back in reverse order."""

    def forward(x):
        order = x.shape[-1] - 1 - jnp.argsort(x[..., ::-1], axis=-1, stable=True)
        return jnp.sort(x, axis=-1), order

    def backward(order, dy):
        return (jnp.take_along_axis(dy, jnp.argsort(order, axis=-1), axis=-1),)

    return custom(lambda x: jnp.sort(x, axis=-1), forward, backward)


def clipped():
    """clip, with a slope of 1 at both bounds, where JAX takes another one."""
    run = lambda x: jnp.clip(x, -1, 1)
    inside = lambda x: ((x >= -1) & (x <= 1)).astype(x.dtype)
    return custom(run, lambda x: (run(x), x), lambda x, dy: (dy * inside(x),))


def middle_of(x):  # of 5; jnp.median rounds the place of the middle
    return jnp.sort(x, axis=-1)[..., 2]


def middle():
    """The median of an odd number, whose gradient goes to the first entry that equals it."""

    def backward(residuals, dy):
        x, y = residuals
        hit = x == y[..., None]
        first = hit & (jnp.cumsum(hit, axis=-1, dtype=np.int32) == 1)
        return (jnp.where(first, dy[..., None], jnp.zeros_like(x)),)

    return custom(middle_of, lambda x: (middle_of(x), (x, middle_of(x))), backward)


TIES = {
    "max": (first_of(jnp.max), lambda x: jnp.max(x, axis=-1)),
    "min": (first_of(jnp.min), lambda x: jnp.min(x, axis=-1)),
    "sort": (sorted_the_other_way(), lambda x: jnp.sort(x, axis=-1)),
    "clip": (clipped(), lambda x: jnp.clip(x, -1, 1)),
    "median": (middle(), middle_of),
    "abs": (absolute(0.5), jnp.abs),
    "relu": (jax.nn.relu, lambda x: jnp.maximum(x, 0)),
}


@pytest.mark.parametrize("key", [0, 1])
@pytest.mark.parametrize("name", TIES)
def test_no_false_alarm_at_a_tie(name, key):
    candidate, reference = TIES[name]
    x = jnp.asarray(np.random.default_rng(key).integers(-2, 3, (6, 5)), np.float32)
    report = check.gradients(candidate, x, reference=reference, key=key)
    assert report.verdict != "wrong", str(report)
    assert all(kink.inside for kink in report.kinks)
    double = custom(reference, lambda x: (reference(x), x), lambda x, dy: (2 * jax.vjp(candidate, x)[1](dy)[0],))
    assert check.gradients(double, x, reference=reference, key=key, modes="quick").verdict == "wrong"


def test_kinks_that_meet_leave_room_for_slopes_that_were_not_met():
    # a sum of many units at their kink: its extreme slopes lie where no random way goes
    def network(x, w):
        return jnp.sum(jnp.maximum(x[None] * w, 0) * jnp.sin(jnp.arange(12.0, dtype=x.dtype))[:, None], axis=0)

    zero_slope = lambda x, w: jnp.sum(
        jax.nn.relu(x[None] * w) * jnp.sin(jnp.arange(12.0, dtype=x.dtype))[:, None], axis=0
    )
    args = jnp.zeros(3, jnp.float32), normal(1, 12, 1)
    assert check.gradients(zero_slope, *args, reference=network, modes="quick").verdict != "wrong"


# ---- entries that tie, together ----


def lesser(x, y):
    return jnp.minimum(x, y)


def shared(at_tie):
    """minimum(x, y), of whose cotangent each argument gets `at_tie` = (share of x, share of y) where they are equal."""

    def backward(residuals, dy):
        x, y = residuals
        of_x, of_y = (
            jnp.where(x == y, jnp.asarray(share, x.dtype), own.astype(x.dtype))
            for share, own in zip(at_tie, (x < y, y < x), strict=True)
        )
        return dy * of_x, dy * of_y

    return custom(lesser, lambda x, y: (lesser(x, y), (x, y)), backward)


@pytest.mark.parametrize("modes", ["quick", "default"])
@pytest.mark.parametrize(
    ("at_tie", "verdict"),
    [
        ((1, 1), "wrong"),
        ((0, 0), "wrong"),
        ((0.9, 0.3), "wrong"),
        ((0.5, 0.5), "right"),
        ((1, 0), "right"),
        ((0.3, 0.7), "right"),
    ],
)
def test_arguments_that_tie_share_the_cotangent(at_tie, verdict, modes):
    x = normal(1, 6)
    report = check.gradients(shared(at_tie), x, x.at[::2].add(1.0), reference=lesser, modes=modes)
    assert report.verdict == verdict, str(report)
    assert ("no subgradient: along (x[1], y[1])" in str(report)) == (verdict == "wrong")


def test_arguments_that_tie_share_the_cotangent_without_a_reference_too():
    x = normal(1, 6)
    for at_tie, verdict in (((1, 1), "wrong"), ((1, 0), "right")):
        assert check.gradients(shared(at_tie), x, x.at[::2].add(1.0), modes="quick").verdict == verdict


def to_every_winner(reduce, times):
    """The largest entry of each row; each of `n` that tie gets `times(n)` of the cotangent."""

    def backward(residuals, dy):
        x, y = residuals
        hit = x == y[..., None]
        share = times(jnp.sum(hit, axis=-1, keepdims=True, dtype=np.int32)).astype(x.dtype)
        return (jnp.where(hit, dy[..., None] * share, jnp.zeros_like(x)),)

    run = lambda x: reduce(x, axis=-1)
    return custom(run, lambda x: (run(x), (x, run(x))), backward)


@pytest.mark.parametrize("reduce", [jnp.max, jnp.min])
@pytest.mark.parametrize(
    ("times", "verdict"),
    [(lambda n: 1 + 0 * n, "wrong"), (lambda n: 1.0 * (n == 1), "wrong"), (lambda n: 1 / n, "right")],
)
def test_entries_of_a_row_that_tie_share_the_cotangent(reduce, times, verdict):
    x = jnp.asarray([[0, 0, 0], [1, 2, 2], [0, 0, 5], [1, 0, 3]], jnp.float32)
    report = check.gradients(to_every_winner(reduce, times), x, reference=lambda x: reduce(x, axis=-1), modes="quick")
    assert report.verdict == verdict, str(report)


def test_a_decision_that_hangs_on_a_rounded_number_is_no_excuse():
    # 2 a = 3 b, both rounded: which is smaller is left to rounding, and the slopes still share the cotangent
    smaller = lambda a, b: jnp.minimum(2 * a, 3 * b)

    def shared(of_a, of_b):
        def backward(residuals, dy):
            a, b = residuals
            at = lambda share, own: jnp.where(2 * a == 3 * b, jnp.asarray(share, a.dtype), own.astype(a.dtype))
            return 2 * dy * at(of_a, 2 * a < 3 * b), 3 * dy * at(of_b, 3 * b < 2 * a)

        return custom(smaller, lambda a, b: (smaller(a, b), (a, b)), backward)

    args = jnp.asarray([3, 6, 9, 1], jnp.float32), jnp.asarray([2, 4, 7, 2], jnp.float32)
    assert check.gradients(shared(1, 1), *args, reference=smaller, modes="quick").verdict == "wrong"
    assert check.gradients(shared(0.3, 0.7), *args, reference=smaller, modes="quick").verdict == "right"


def lesser_and_greater(x, y):
    return jnp.minimum(x, y), jnp.maximum(x, y)


def by_own_convention(low_to, high_to, share=1.0):
    """Both, and where they tie the cotangent of each goes to x as far as it says, the rest to y."""

    def backward(residuals, dy):
        (x, y), (low, high) = residuals, dy
        of = lambda to, own, g: g * jnp.where(x == y, jnp.asarray(to, x.dtype), own.astype(x.dtype))
        of_x = of(low_to, x < y, low) + of(high_to, x > y, high)
        return of_x * jnp.where(x == y, jnp.asarray(share, x.dtype), jnp.ones_like(x)), low + high - of_x

    return custom(lesser_and_greater, lambda x, y: (lesser_and_greater(x, y), (x, y)), backward)


@pytest.mark.parametrize("key", range(4))
def test_outputs_may_each_have_their_own_convention(key):
    x = normal(1, 6)
    y = x.at[::2].add(1.0)
    for low_to, high_to in ((1, 1), (1, 0), (0.5, 0)):
        report = check.gradients(
            by_own_convention(low_to, high_to), x, y, reference=lesser_and_greater, modes="default", key=key
        )
        assert report.verdict == "right", str(report)
        assert all(kink.inside for kink in report.kinks)
    lost = by_own_convention(1, 1, share=0.5)
    assert check.gradients(lost, x, y, reference=lesser_and_greater, modes="default", key=key).verdict == "wrong"


def test_a_kink_in_one_of_two_outputs_has_the_interval_of_that_one():
    both = lambda x: (jnp.abs(x), jnp.sin(x))
    for slope, verdict in ((0.9, "right"), (1.1, "wrong")):
        candidate = lambda x, slope=slope: (absolute(slope)(x), jnp.sin(x))
        assert check.gradients(candidate, X, reference=both, modes="quick").verdict == verdict


def test_jax_picks_subgradients_that_are_one_together():
    x = jnp.asarray(np.random.default_rng(0).integers(-2, 3, (4, 4)), np.float32)
    for run in (jnp.sort, lambda x: jax.lax.top_k(x, 2)[0], lambda x: jnp.max(jnp.abs(x), axis=-1), jax.nn.relu):
        assert check.gradients(run, x, modes="quick").verdict != "wrong"


@pytest.mark.parametrize("zeros", [1, 2, 5])
@pytest.mark.parametrize(
    "slope, verdict", [(0.0, "right"), (0.3, "right"), (1.0, "right"), (-0.3, "wrong"), (1.4, "wrong")]
)
def test_a_slope_outside_of_the_interval_at_several_entries(zeros, slope, verdict):
    relu = lambda x: jnp.maximum(x, 0.0)
    backward = lambda x, dy: (jnp.where(x == 0, slope, (x > 0).astype(x.dtype)) * dy,)
    f = custom(relu, lambda x: (relu(x), x), backward)
    x = jnp.asarray([0.0] * zeros + [1.0, -1.0, 0.7], jnp.float32)
    assert check.gradients(f, x, reference=relu, modes="quick").verdict == verdict


@pytest.mark.parametrize("function", [jnp.sort, lambda x: jax.lax.top_k(x, 4)[0], lambda x: jnp.sort(x)[2]])
def test_what_goes_by_the_order_of_three_equal_entries_accuses_nobody(function):
    for key in range(4):
        x = jnp.asarray([2.0, 1.0, 2.0, 5.0, 2.0, 7.0], jnp.float32)
        assert check.gradients(function, x, modes="quick", key=key).verdict != "wrong"


def test_three_equal_entries_excuse_nothing_where_there_is_no_order():
    f = custom(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (1.01 * dy * jnp.cos(x),))
    assert check.gradients(f, jnp.full(6, 0.7, jnp.float32), modes="quick").verdict == "wrong"


def test_every_entry_of_an_output_may_have_a_convention_of_its_own():
    """min and max in one array, both of which send the cotangent of a tie to a."""
    x = jnp.asarray([1.0, 2.0, 3.0], jnp.float32)
    both = lambda a, b: jnp.concatenate([jnp.minimum(a, b), jnp.maximum(a, b)])

    def backward(factor):
        def to_a(args, g):
            small, large = args[0] <= args[1], args[0] >= args[1]
            da = jnp.where(small, g[:3], 0) + jnp.where(large, g[3:], 0)
            db = jnp.where(small, 0, g[:3]) + jnp.where(large, 0, g[3:])
            return scaled(da, factor), db

        return custom(both, lambda a, b: (both(a, b), (a, b)), to_a)

    scaled = lambda g, factor: g * jnp.asarray(factor, g.dtype)
    for key in range(3):
        for reference in (None, both):
            assert check.gradients(backward(1.0), x, x, reference=reference, modes="quick", key=key).verdict != "wrong"
    assert check.gradients(backward(1.2), x, x, modes="quick").verdict == "wrong"


def test_seams_zeros_and_many_equal_entries_without_a_reference():
    x = jnp.asarray([1.0, -1.0, 0.0, 2.0], jnp.float32)
    huber = lambda x: jnp.where(jnp.abs(x) < 1, 0.5 * x * x, jnp.abs(x) - 0.5)
    zeros = jnp.asarray([1.0, 0.0, 2.0, 0.0], jnp.float32)
    right = [
        (huber, x),
        (lambda x: jax.nn.relu(x) ** 2, x),
        (jnp.prod, zeros),
        (lambda x: jnp.zeros_like(x) + 0 * x, x),
    ]
    right += [(jnp.sort, jnp.asarray([2.0, 1.0, 2.0, 5.0, 2.0], jnp.float32))]
    for function, at in right:
        for key in range(2):
            assert check.gradients(function, at, modes="quick", key=key).ok

    def with_backward(function, change):
        return custom(function, lambda x: (function(x), x), lambda x, g: (change(jax.vjp(function, x)[1](g)[0]),))

    for function, at in right[:4]:
        assert (
            check.gradients(with_backward(function, lambda dx: 1.01 * dx + 0.01), at, modes="quick").verdict == "wrong"
        )
    assert check.gradients(with_backward(jnp.max, jnp.zeros_like), jnp.zeros(100), modes="quick").verdict == "wrong"

"""One array against the truth: what is allowed, what is decided, and what a wrong array looks like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.check import gradients
from fdl.check.compare import (
    FORMULA,
    ROUNDING,
    decides,
    natural_size,
    of_formula,
    of_rounding,
    pattern,
    without_kinks,
    wrong_entries,
)
from fdl.check.rounding import unit_roundoff
from tests.check.zoo import normal

U32, U64 = unit_roundoff(np.float32), unit_roundoff(np.float64)


def formula(t, scale=None):
    t = np.asarray(t, np.float64)
    scale = np.abs(t) if scale is None else np.broadcast_to(np.float64(scale), t.shape)
    return of_formula(t, scale, scale, U64)


def described(t, got, scale=None):
    truth = formula(t, scale)
    got = np.asarray(got, np.float64)
    return pattern(got, truth, wrong_entries(got, truth))


T = np.random.default_rng(0).standard_normal((4, 4))


def changed(index, change):
    got = T.copy()
    got[index] = change(got[index])
    return got


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (-T, "factor -1.000, all entries"),
        (0.9 * T, "factor 0.9000, all entries"),
        (64 / 63 * T, "factor 1.016, all entries"),
        (T * (1 + 1e-6), "factor 1 + 1e-06, all entries"),
        (T * (1 - 1e-9), "factor 1 - 1e-09, all entries"),
        (0 * T, "zero, all entries"),
        (np.nan * T, "not finite, all entries"),
        (T.T, "transposed"),
        (T + 1, "all entries"),
        (changed(2, lambda row: 0 * row), "zero, all of row 2"),
        (changed((slice(None), 1), lambda column: 2 * column), "factor 2.000, all of column 1"),
        (changed(slice(1, None), lambda rows: -rows), "factor -1.000, all but row 0"),
        (changed((2, 3), lambda x: 2 * x), "factor 2.000, one entry"),
        (changed((2, slice(0, 2)), lambda x: 3 * x), "factor 3.000, some of row 2"),
        (changed(([0, 1], [1, 3]), lambda x: 2 * x), "factor 2.000"),
    ],
)
def test_what_a_wrong_array_looks_like(got, words):
    assert described(T, got) == words


def test_a_scalar_has_no_place():
    assert described(2.0, 1.8) == "factor 0.9000"


def test_the_margins_of_formula_and_rounding():
    t = np.ones(3)
    assert wrong_entries(t * (1 + 3 * FORMULA * U64), formula(t)).all()
    assert not wrong_entries(t * (1 + FORMULA * U64), formula(t)).any()
    truth = of_rounding(t, t, None, U32, t, np.float32)
    assert wrong_entries(t * (1 + 2 * ROUNDING * U32), truth).all()
    assert not wrong_entries(t * (1 + 0.5 * ROUNDING * U32), truth).any()


def test_the_plain_version_excuses_what_it_loses_itself():
    t = np.asarray([1.0, 1.0, 1.0, 1e39, 1e-50])
    plain = np.asarray([1.0, 1.3, np.inf, np.inf, 0.0])
    truth = of_rounding(t, t, None, U32, plain, np.float32)
    assert truth.comparable.tolist() == [True, True, False, False, True]
    got = np.asarray([1.3, 1.3, np.nan, np.inf, 0.0])
    assert wrong_entries(got, truth).tolist() == [True, False, False, False, False]
    # what is not finite is excused where the plain version has no digit, and only there
    assert wrong_entries(np.full(5, np.nan), truth).tolist() == [True, False, False, False, True]


def test_small_entries_may_lose_digits_that_are_few_against_the_largest():
    t = np.asarray([1.0, 1e-6])
    lossy = np.asarray([1.0, 1.0])  # the candidate's scale: it cancels in the second entry
    truth = of_rounding(t, t, lossy, U32, t, np.float32)
    assert not wrong_entries(np.asarray([1.0, 1e-6 + 8 * U32]), truth).any()
    assert wrong_entries(np.asarray([1.0, 1e-6 + 8 * U32]), of_rounding(t, t, t, U32, t, np.float32)).tolist() == [
        False,
        True,
    ]


def test_nothing_is_compared_where_truth_or_scale_is_not_finite():
    truth = formula([np.nan, np.inf, 1.0], [1.0, 1.0, np.inf])
    assert not truth.comparable.any() and not wrong_entries(np.zeros(3), truth).any()


def test_what_is_decided():
    truth = formula([1.0, 1.0, 0.0, 0.0, 1e-20], [1.0, 1e13, 0.0, 1.0, 1.0])
    assert decides(truth, natural=0.0).tolist() == [True, False, True, False, False]
    # against the size it has by its units, a gradient that cancels to nothing is zero
    assert decides(truth, natural=1.0).tolist() == [True, False, True, True, True]


def test_the_natural_size():
    x = np.full(4, 10.0)
    assert natural_size(np.full(4, 1e-17), x, [x], flow=100.0) == pytest.approx(10.0)
    assert natural_size(np.full(4, 50.0), x, [x], flow=100.0) == pytest.approx(50.0)
    assert natural_size(np.zeros(4), np.zeros(4), [x], flow=100.0) == pytest.approx(10.0)
    assert natural_size(np.zeros(4), 1e-30 * x, [x], flow=1.0) == pytest.approx(1e29)


def test_entries_at_a_kink_are_left_out_if_the_slope_lies_between():
    t = np.asarray([0.5, 0.5, 0.5, 2.0])
    low, high = np.asarray([0.0, 0.0, 0.0, 2.0]), np.asarray([1.0, 1.0, 1.0, 2.0])
    truth = without_kinks(np.asarray([0.0, 0.5, 3.0, 2.1]), formula(t), low, high)
    assert truth.kinks == 1 and truth.comparable.tolist() == [False, True, True, True]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, np.float32])
def test_numbers_that_are_flushed_to_zero_are_no_error(dtype):
    tiny = float(jnp.finfo(dtype).smallest_subnormal if dtype == jnp.float16 else jnp.finfo(dtype).tiny)
    t = np.asarray([tiny / 2])
    assert not wrong_entries(np.zeros(1), of_rounding(t, t, None, unit_roundoff(dtype), t, dtype)).any()


def cancelling(by):
    """A right backward that cancels: (candidate, reference, x)."""

    def half_square(x):
        return x * x / 2

    candidate = jax.custom_vjp(half_square)
    candidate.defvjp(lambda x: (half_square(x), x), lambda x, g: (g * ((x + by) - by),))
    return candidate, half_square, jnp.asarray(np.random.default_rng(0).standard_normal(20), jnp.float32)


def test_a_right_formula_that_cancels_is_no_false_alarm():
    candidate, reference, x = cancelling(3e4)
    report = gradients(candidate, x, reference=reference, modes="quick")
    assert report.verdict == "right"
    assert "ill-conditioned here: about 3 digits survive in float32, in the plain version 7" in str(report)


def test_a_right_formula_of_which_no_digits_are_left_is_accused():
    candidate, reference, x = cancelling(1e7)
    assert gradients(candidate, x, reference=reference, modes="quick").verdict == "wrong"


def test_a_value_that_cancels_is_ill_conditioned_and_no_fault_of_the_gradients():
    one_pass = lambda x: jnp.mean(x * x) - jnp.mean(x) ** 2
    for mean in (1e3, 1e4):
        report = gradients(one_pass, normal(1, 300, mean=mean), reference=jnp.var, modes="quick")
        assert report.ok and "ill-conditioned here: about" in report.leaves[0].note, str(report)
    for wrong in (lambda x: 1.01 * one_pass(x), lambda x: one_pass(x) + 1):
        assert gradients(wrong, normal(1, 300, mean=1e3), reference=jnp.var, modes="quick").verdict == "wrong"


def test_another_dtype_than_the_references_is_told():
    report = gradients(lambda x: x.astype(jnp.float16), normal(1, 6), reference=lambda x: x, modes="quick")
    assert report.ok and "output is float16, that of the reference float32" in " ".join(report.notes)


def test_no_kink_is_told_where_the_truth_only_rounds():
    naive = lambda x: (jnp.cos(x) - 1) / x**2
    report = gradients(
        naive, normal(1, 40, scale=1e-3), reference=lambda x: -2 * jnp.sin(x / 2) ** 2 / x**2, modes="quick"
    )
    assert "kink" not in str(report).lower()

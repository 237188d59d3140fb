"""What all entries say together: a common error that rounding hides in each of them, and none where there is only rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from fdl.check.aggregate import common_error
from fdl.check.compare import Truth
from tests.check.zoo import normal

U = 2.0**-9  # bfloat16


def truth_of(wanted):
    """Entries that rounding may take by 16 u, as a few operations do."""
    everything = np.ones(wanted.shape, bool)
    return Truth(wanted, 32 * U * np.abs(wanted), everything, ~everything, U * np.abs(wanted), 0.0)


def rounded(wanted, seed):
    """As a bfloat16 computation with four roundings."""
    noise = np.random.default_rng(seed).uniform(-1, 1, (4, *wanted.shape))
    return wanted * (1 + U * noise.sum(0))


def wanted_entries(seed=0):
    return np.random.default_rng(seed).standard_normal((25, 40))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda t: 1.03 * t, "factor 1.0"),
        (lambda t: np.where(t > 0, 1.03 * t, t), "that are positive"),
        (lambda t: np.where(np.arange(25)[:, None] == 3, 1.05 * t, t), "at 3 along axis 0"),
    ],
)
def test_an_error_in_common_is_seen(fault, said):
    wanted = wanted_entries()
    got = rounded(fault(wanted), 1)
    assert (np.abs(got - wanted) < truth_of(wanted).allowed).mean() > 0.99, "entry by entry rounding would explain it"
    found = common_error(got, truth_of(wanted))
    assert found is not None and said in found.said and found.over > 1


def test_rounding_has_nothing_in_common():
    for seed in range(20):
        wanted = wanted_entries(seed)
        assert common_error(rounded(wanted, seed + 100), truth_of(wanted)) is None
    shared = 1 + 2 * U  # a scalar that was rounded, in all entries
    assert common_error(rounded(wanted * shared, 7), truth_of(wanted)) is None
    few = wanted[0, :7]
    assert common_error(few * 1.05, truth_of(few)) is None, "too few to tell"


def only_in(dtype, factor):
    """A product whose backward is wrong in one dtype alone."""

    @jax.custom_vjp
    def product(x, y):
        return x * y

    def backward(kept, g):
        x, y = kept
        dx = g * y
        return (dx * jnp.asarray(factor, dx.dtype) if dx.dtype == dtype else dx), g * x

    product.defvjp(lambda x, y: (x * y, (x, y)), backward)
    return product


@pytest.mark.parametrize(
    ("dtype", "factor"), [(jnp.bfloat16, 1 + 2.0**-4), (jnp.float16, 1 + 2.0**-7), (jnp.float32, 1 + 2.0**-19)]
)
def test_a_fault_in_one_dtype_alone_is_seen_and_the_others_are_right(dtype, factor):
    args = normal(0, 25, 40, dtype=dtype), normal(1, 25, 40, dtype=dtype)
    report = check.gradients(only_in(dtype, factor), *args, reference=lambda x, y: x * y, modes="quick")
    assert report.verdict == "wrong" and "factor 1" in str(report) and "together" in str(report)
    assert {failure.leaf for failure in report.failures} == {"x"}
    assert check.gradients(only_in(dtype, 1.0), *args, reference=lambda x, y: x * y, modes="quick").ok

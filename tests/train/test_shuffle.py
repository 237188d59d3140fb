"""The shuffle: one to one at every size, a function of the key, and even: every example reaches every place."""

import jax
import numpy as np
import pytest

from fdl.train.shuffle import _factors, permutation


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 255, 1437, 41_427, 60_000])
def test_it_is_a_permutation(getkey, n):
    order = np.asarray(permutation(getkey(), n))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_every_size_has_two_mixing_halves():
    for n in [*range(64, 3000), 41_427, 2**24, 2**31 - 1]:
        a, b = _factors(n)
        assert n <= a * b <= n + 32 and b <= 65536, (n, a, b)
        assert b <= 2.5 * a, (n, a, b)


def test_it_is_a_function_of_the_key():
    a, b = jax.random.key(0), jax.random.key(1)
    np.testing.assert_array_equal(permutation(a, 100), permutation(a, 100))
    assert (permutation(a, 100) != permutation(b, 100)).mean() > 0.9


@pytest.mark.parametrize("n", [16, 64, 67, 71, 142])
def test_places_and_neighbours_are_even(n):
    """Chi-square over (example, place) and over (example, next example), as the distance from its mean in standard
    deviations. A shuffle that leaves neighbours together or favours places is tens of them away."""
    count = 2000
    orders = np.asarray(jax.jit(jax.vmap(lambda k: permutation(k, n)))(jax.random.split(jax.random.key(3), count)))

    def deviations(seen, expected, freedom):
        return (((seen - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5

    places = np.stack([np.bincount(orders[:, p], minlength=n) for p in range(n)])
    assert abs(deviations(places, count / n, (n - 1) ** 2)) < 5
    pairs = np.bincount((orders[:, :-1] * n + orders[:, 1:]).ravel(), minlength=n * n).reshape(n, n)
    off_diagonal = ~np.eye(n, dtype=bool)
    assert (pairs[~off_diagonal] == 0).all()
    assert abs(deviations(pairs[off_diagonal], count / n, n * (n - 1) - 1)) < 5
    assert abs((np.diff(orders, axis=1) == 1).mean() * n - 1) < 0.1, "neighbours stay together"
    assert np.unique(orders, axis=0).shape[0] > count - 10

"""The shuffle: one to one at every size, a function of the key, and even: every example reaches every place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.train.shuffle import _factors, permutation


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 255, 1437, 41_427, 60_000])
def test_it_is_a_permutation(getkey, n):
    order = np.asarray(permutation(getkey(), n))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_every_size_has_two_mixing_halves():
    for n in [*range(1, 2000), 41_427, 2**24, 2**31 - 1]:
        a, b = _factors(n)
        assert n <= a * b <= n + 16 and b <= 65536, (n, a, b)
        assert min(a, b) >= n**0.5 / 4 - 1, (n, a, b)


def test_it_is_a_function_of_the_key():
    a, b = jax.random.key(0), jax.random.key(1)
    np.testing.assert_array_equal(permutation(a, 100), permutation(a, 100))
    assert (permutation(a, 100) != permutation(b, 100)).mean() > 0.9


def test_places_and_neighbours_are_even():
    """Chi-square over (example, place) and over (example, next example): 4,000 shuffles of 16; 225 and 240 - 1 degrees of
    freedom, whose 1e-6 quantiles are 336 and 352. A shuffle that leaves neighbours together or favours places fails."""
    orders = np.asarray(jax.jit(jax.vmap(lambda k: permutation(k, 16)))(jax.random.split(jax.random.key(3), 4000)))
    places = np.stack([np.bincount(orders[:, p], minlength=16) for p in range(16)])
    assert ((places - 250) ** 2 / 250).sum() < 336
    pairs = np.bincount((orders[:, :-1] * 16 + orders[:, 1:]).ravel(), minlength=256).reshape(16, 16)
    expected = 4000 * 15 / 240
    off_diagonal = ~np.eye(16, dtype=bool)
    assert (pairs[~off_diagonal] == 0).all()
    assert ((pairs[off_diagonal] - expected) ** 2 / expected).sum() < 352
    assert jnp.unique(orders, axis=0).shape[0] > 3990

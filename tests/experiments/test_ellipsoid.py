"""The ellipsoid method of the experiments: minima at kinks, in valleys, and the bound that it proves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._ellipsoid import ellipsoid


def valley(z):
    """Least at (0.3, -0.7, 1.1), with kinks along two directions, their slopes 1,000 apart, and a curve."""
    d = z - jnp.asarray([0.3, -0.7, 1.1])
    turned = d @ jnp.asarray([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    return 1000 * jnp.abs(turned[0]) + jnp.abs(turned[1]) + turned[2] ** 2 + 5


def least(steps, start=(4.0, 4.0, 4.0)):
    run = jax.jit(lambda start: ellipsoid(jax.value_and_grad(valley), start, 20.0, steps))
    return jax.device_get(run(jnp.asarray(start)))


def test_it_finds_a_minimum_at_a_kink():
    found = least(1500)
    np.testing.assert_allclose(found.point, [0.3, -0.7, 1.1], atol=1e-7)
    assert abs(found.value - 5) < 1e-12 and abs(found.gap) < 1e-12


@pytest.mark.parametrize("steps", [1, 10, 100, 300])
def test_the_gap_is_a_bound_at_any_time(steps):
    found = least(steps)
    assert found.value - found.gap <= 5 <= found.value


def test_a_start_at_the_minimum_stays_there():
    found = least(50, (0.3, -0.7, 1.1))
    assert found.value == 5 and np.isfinite(found.gap)
    np.testing.assert_array_equal(found.point, [0.3, -0.7, 1.1])


def test_it_can_be_vmapped():
    shifts = jnp.asarray([[0.0, 1.0], [2.0, -3.0]])
    one = lambda shift: ellipsoid(jax.value_and_grad(lambda z: jnp.abs(z - shift).sum()), jnp.zeros(2), 10.0, 400)
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(shifts).point, shifts, atol=1e-9)

"""Monte Carlo arithmetic: it finds cancellation, leaves exact operations alone, and predicts the error of lower precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from fdl.check import evaluate
from fdl.check.rounding import POOL, Shaken, factors, ones, unit_roundoff, working_precision
from tests.check.zoo import batch_norm, batch_norm_params, custom, normal, rnn

pytestmark = pytest.mark.optimized

DELTA = 2.0**-50
RNG = np.random.default_rng(0)
POOLS = [factors(RNG.standard_normal(POOL), DELTA, np.float64) for _ in range(8)]


def scale(run, *args):
    shaken = jax.jit(Shaken(run))
    y = shaken(ones(np.float64), *args)
    return np.asarray(y), np.max([np.abs(shaken(pool, *args) - y) for pool in POOLS], axis=0) / DELTA


def test_a_difference_of_close_numbers_has_the_scale_of_the_numbers():
    x = jnp.asarray([1e-9, 1e-3, 1.0])
    y, s = scale(lambda x: (1 + x) - 1, x)
    assert np.all(np.abs(y - x) < 1e-15) and np.all((0.3 < s) & (s < 10))
    _, s = scale(lambda x: 1 - jnp.tanh(x) ** 2, jnp.asarray([20.0]))
    assert 0.3 < s[0] < 10  # exactly 0, and wrong by a unit of roundoff


def test_what_does_not_round_is_not_shaken():
    x = normal(1, 6, dtype=np.float64)
    _, s = scale(lambda x: jnp.concatenate([-x[::-1], jnp.maximum(x, 0), jnp.sort(x), jnp.where(x > 0, x, -x)]), x)
    assert not s.any()


def test_sums_grow_with_their_terms_not_with_their_result():
    x = jnp.asarray([1e6, 1.0, -1e6])
    for add in (jnp.sum, lambda x: x @ jnp.ones(3), lambda x: jnp.cumsum(x)[-1]):
        _, s = scale(add, x)
        assert 1e5 < s < 1e7


@pytest.mark.parametrize("loop", ["scan", "while", "cond", "jit", "checkpoint", "custom"])
def test_the_insides_of_loops_and_calls_are_shaken(loop):
    def body(x):
        return (1 + x) - 1

    runs = {
        "scan": lambda x: jax.lax.scan(lambda c, _: (body(c), c), x, None, length=3)[0],
        "while": lambda x: jax.lax.fori_loop(0, x.size, lambda _, c: body(c), x),
        "cond": lambda x: jax.lax.cond(x[0] > 0, body, lambda x: x, x),
        "jit": jax.jit(body),
        "checkpoint": jax.checkpoint(body),
        "custom": custom(body, lambda x: (body(x), None), lambda _, dy: (dy,)),
    }
    x = jnp.asarray([1e-3, 0.1])
    y, s = scale(runs[loop], x)
    assert np.all(np.abs(y - x) < 1e-15) and np.all(s > 0.3)


def test_a_pool_of_ones_shakes_nothing():
    params, x = batch_norm_params(4, np.float64), normal(1, 9, 4, dtype=np.float64)
    run = lambda *args: batch_norm.equation(*args)
    np.testing.assert_allclose(Shaken(run)(ones(np.float64), params, x), run(params, x), rtol=1e-14)


def test_arrays_larger_than_the_pool_and_options_without_size():
    x = jnp.ones((3, POOL))
    y, s = scale(lambda x: x * 3, x)
    assert y.shape == s.shape == x.shape and np.all(s < 3 * 6) and np.median(s) > 1
    assert scale(lambda x: x * 3, jnp.ones((0, 4)))[0].shape == (0, 4)


@pytest.mark.parametrize("name", ["batch_norm", "rnn", "logsumexp", "sum"])
def test_it_predicts_the_error_of_float32(name):
    x = normal(1, 12, 5, mean=30.0)
    runs = {
        "batch_norm": lambda x: batch_norm.equation(jax.tree.map(lambda p: p.astype(x.dtype), batch_norm_params(5)), x),
        "rnn": lambda x: rnn.equation(jnp.eye(5, dtype=x.dtype) * 0.5, x / 30),
        "logsumexp": lambda x: jnp.log(jnp.sum(jnp.exp(x), axis=-1)),
        "sum": lambda x: jnp.sum(x * jnp.sin(100 * x), axis=0),
    }
    run = runs[name]
    y, s = scale(run, x.astype(np.float64))
    error = np.abs(np.asarray(run(x)).astype(np.float64) - y) / unit_roundoff(np.float32)
    assert np.all(error < 16 * s)
    assert np.median(error / s) > 0.01


def test_the_working_precision_of_every_output():
    u32, u64 = unit_roundoff(np.float32), unit_roundoff(np.float64)
    x = jnp.ones(3)

    def run(x):
        narrow = x.astype(jnp.float32).astype(x.dtype)
        mask = x.astype(jnp.float32) > 0.5  # decides, but no number passes through it
        constant = jnp.asarray(np.float32(0.1)).astype(x.dtype)
        looped = jax.lax.fori_loop(0, 3, lambda _, c: c.astype(jnp.float32).astype(x.dtype), x)
        chosen = jax.lax.cond(True, lambda x: narrow, lambda x: x, x)
        reduced = jax.lax.reduce_precision(x, exponent_bits=11, mantissa_bits=23)
        return x * 2, narrow, jnp.where(mask, x, 0), x * constant, looped, chosen, reduced, jnp.argmax(x)

    assert working_precision(run, x) == [u64, u32, u64, u64, u32, u32, u32, 0.0]


def test_the_largest_number_as_a_constant_stays_finite():
    huge = float(jnp.finfo(jnp.float64).max)
    op = custom(
        lambda x: jnp.sum(x**2),
        lambda x: (jnp.sum(x**2), x),
        lambda x, g: (2 * g * x + 0.0 * (x - huge),),
    )
    assert check.gradients(op, jnp.arange(1.0, 5.0, dtype=jnp.float64), reference=lambda x: jnp.sum(x**2)).ok


def test_a_compiler_option_that_this_xla_does_not_know_is_left_out(monkeypatch):
    known = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(evaluate, "_QUICK_TO_COMPILE", known | {"xla_of_another_release": True})
    assert evaluate.quick_to_compile.__wrapped__() == known

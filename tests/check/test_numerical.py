"""Complex steps, and central differences with extrapolation: how good they are, and that they know how good they are."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from fdl.check.analytic import complex_step
from fdl.check.evaluate import WIDE, Point
from fdl.check.numerical import _STEPS, _extrapolated, _order
from fdl.check.subject import Differentiated, layout_of
from tests.check.zoo import CHANGES, custom, normal


def ladder(f, x, noise=0.0):
    slopes = np.asarray([(f(x + h) - f(x - h)) / (2 * h) for h in _STEPS])
    return _extrapolated(_STEPS, slopes, noise / _STEPS)


@pytest.mark.parametrize("x", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("name", ["exp", "sin", "tanh", "cube"])
def test_smooth_functions_are_differentiated_to_ten_digits(name, x):
    f, slope = {
        "exp": (np.exp, np.exp),
        "sin": (np.sin, np.cos),
        "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
        "cube": (lambda x: x**3, lambda x: 3 * x**2),
    }[name]
    found, error = ladder(f, x, noise=1e-16 * abs(f(x)))
    size = abs(f(x)) + abs(slope(x))
    assert abs(found - slope(x)) <= 30 * error + 1e-13 * size
    assert error < 1e-10 * size


def test_a_ladder_over_a_kink_or_over_nothing_finite():
    _, error = ladder(lambda x: abs(x - 1e-9), 0.0)
    assert error >= 0
    found, error = ladder(lambda x: np.nan, 0.0)
    assert np.isnan(found) and error == np.inf


@pytest.mark.parametrize(("slope", "order"), [(2.0, 2.0), (1.9, 1.0)])
def test_the_order_of_the_taylor_remainder(slope, order):
    f = lambda x: x + np.sin(x)  # at 0, with slope 2: the remainder is of the third order
    g = lambda x: f(x) + x**2
    remainders = np.abs([g(h) - g(0) - h * slope for h in _STEPS])
    assert abs(_order(_STEPS, remainders, 1e-16) - order) < 0.05
    assert np.isnan(_order(_STEPS, remainders, 1e3))  # nothing stands above this noise
    floor = np.maximum(remainders, 1e-4)  # rounding, which does not shrink
    assert abs(_order(_STEPS, floor, 2e-6) - order) < 0.2


MAGNITUDES = [1e-30, 1e-10, 1.0, 1e10, 1e30]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_wrong_ones_are_convicted_at_any_magnitude_without_a_reference(magnitude, dtype):
    """Analytic functions by a complex step, the others by central differences; with another leaf of size 1."""
    x, y = normal(1, 12, scale=magnitude, dtype=dtype), normal(2, 12, dtype=dtype)
    unit = lambda x: x / jnp.asarray(magnitude, x.dtype)
    analytic = lambda x, y: jnp.sin(unit(x)) * jnp.tanh(unit(x[::-1]) * y)
    rough = lambda x, y: jnp.maximum(unit(x), 0.1 * unit(x)) * jnp.tanh(unit(x[::-1]) * y)
    for function, method in ((analytic, "complex step"), (rough, "central differences")):
        report = check.gradients(function, x, y, modes="quick")
        assert (
            report.ok
            and method in report.modes
            and report.reference == {"complex step": "complex steps"}.get(method, method)
        )
        for place, change in enumerate((CHANGES["zero"], CHANGES["scaled by 0.9"])):
            assert check.gradients(changed(function, place, change), x, y, modes="quick").verdict == "wrong"


def changed(function, place, change):
    def backward(args, dy):
        gradients = list(jax.vjp(function, *args)[1](dy))
        gradients[place] = change(gradients[place])
        return tuple(gradients)

    return custom(function, lambda *args: (function(*args), args), backward)


def test_what_convicts_is_told():
    wrong = changed(lambda x: jnp.sum(jnp.sin(x)), 0, lambda dx: dx * jnp.asarray(0.999, dx.dtype))
    report = check.gradients(wrong, normal(1, 20, dtype=np.float64), modes="quick")
    assert report.verdict == "wrong"
    told = next(failure for failure in report.failures if failure.mode == "central differences")
    assert re.search(r"the Taylor remainder shrinks like h\^(0\.9|1\.0)", told.message)
    assert "directional derivatives" in str(told)


def test_a_complex_step_decides_where_central_differences_are_too_rough():
    x = normal(1, 3, dtype=np.float64)
    fast = lambda x: jnp.sin(1e6 * x)
    assert check.gradients(fast, x, modes="quick").ok
    for change in CHANGES.values():
        assert check.gradients(changed(fast, 0, change), x, modes="quick").verdict == "wrong"
    # sin's absolute value is not analytic
    report = check.gradients(lambda x: jnp.abs(fast(x)), x, modes="quick")
    assert report.verdict == "undecided" and "central differences are too rough" in report.sentence


ANALYTIC = {
    "products": (True, lambda x: jnp.prod(jnp.cumsum(x))),
    "a loop": (True, lambda x: jax.lax.fori_loop(0, 3, lambda i, y: jnp.sin(y) * x, x)),
    "a mask": (True, lambda x: jnp.where(jnp.arange(5) > 2, x * x, jnp.exp(x))),
    "indices": (True, lambda x: x[jnp.asarray([3, 3, 0])] ** 3),
    "a rule of its own": (True, lambda x: changed(jnp.sin, 0, lambda dx: dx)(x)),
    "absolute": (False, lambda x: jnp.abs(x)),
    "a comparison": (False, lambda x: jnp.where(x > 0, x, 2 * x)),
    "the largest": (False, lambda x: jnp.exp(x - jax.lax.stop_gradient(jnp.max(x)))),
    "float32 inside": (False, lambda x: jnp.sin(x.astype(jnp.float32)).astype(x.dtype)),
    "a branch": (False, lambda x: jax.lax.cond(jnp.sum(x) > 0, jnp.sin, jnp.cos, x)),
}


@pytest.mark.parametrize("name", ANALYTIC)
def test_whether_a_function_is_analytic(name):
    analytic, function = ANALYTIC[name]
    x = np.random.default_rng(1).standard_normal(5)
    layout = layout_of("test", ("x",), (x,))
    with jax.enable_x64(True):
        values = [np.asarray(function(jnp.asarray(x)))]
        want = (
            np.asarray(jax.jvp(function, (jnp.asarray(x),), (jnp.ones(5),))[1])
            if name != "a rule of its own"
            else np.cos(x)
        )
    w = np.random.default_rng(2).standard_normal(values[0].shape)
    point = Point([x], ([], {}), [w])
    step = complex_step(Differentiated(function, layout), WIDE, point, values, [np.abs(values[0])])
    assert (step is not None) == analytic
    if step is not None:
        np.testing.assert_allclose(step(0, np.ones(5)), np.sum(w * want), rtol=1e-13)


def test_at_a_kink_any_slope_between_the_sides_is_left_out_and_one_outside_is_wrong():
    x = jnp.asarray([0.0, 1.0, -2.0], jnp.float32)

    def relu_with(slope):
        relu = jax.custom_vjp(lambda x: jnp.maximum(x, 0))
        relu.defvjp(lambda x: (relu(x), x), lambda x, g: (g * jnp.where(x == 0, slope, (x > 0).astype(g.dtype)),))
        return relu

    for slope in (0.0, 0.3, 1.0):
        report = check.gradients(relu_with(slope), x, modes="quick")
        assert report.verdict == "right" and "at x[0] = 0 the slope jumps from 0 to 1" in str(report)
    report = check.gradients(lambda x: jnp.maximum(x, 0), x, modes="quick")
    assert report.verdict == "right" and "1 directions left out at kinks" in str(report)
    for slope in (-0.3, 1.2):
        assert check.gradients(relu_with(slope), x, modes="quick").verdict == "wrong"
    # kinks of several outputs whose jumps compensate each other
    ties = lambda x: jnp.max(x, axis=1)
    assert check.gradients(ties, jnp.zeros((3, 4), jnp.float32), modes="quick").verdict != "wrong"


def test_a_constant_function_is_undecided():
    report = check.gradients(lambda x: jnp.maximum(x, 0), jnp.full(3, -1.0, jnp.float32), modes="quick")
    assert report.verdict != "wrong"


@pytest.mark.parametrize("of", ["rows", "entries"])
def test_one_part_in_a_billion_of_one_entry_in_a_thousand_is_seen(of):
    """Along directions of entries with about the same slope: neither hides among the others, large or small."""
    f = {"rows": jax.nn.log_softmax, "entries": jnp.tanh}[of]
    with jax.enable_x64(True):
        x = normal(0, 25, 40, dtype=np.float64)
        size = np.abs(jax.vjp(f, x)[1](normal(1, 25, 40, dtype=np.float64))[0]).ravel()
        for place in (np.argsort(size)[500], np.argmax(size)):
            fault = jnp.zeros(1000).at[place].set(1e-9).reshape(25, 40)
            forward = lambda x: (f(x), x)
            wrong = custom(f, forward, lambda x, g, fault=fault: (jax.vjp(f, x)[1](g)[0] * (1 + fault),))
            assert check.gradients(wrong, x, modes="quick").verdict == "wrong"
        assert check.gradients(f, x, modes="quick").ok

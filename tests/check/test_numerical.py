"""Central differences with extrapolation: how good they are, and that they know how good they are."""

import numpy as np
import pytest

from fdl.check.numerical import _STEPS, _extrapolated


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

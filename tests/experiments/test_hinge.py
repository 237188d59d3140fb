"""The fits of the hinge experiment on four examples whose widest margin is known."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from experiments import hinge

X = np.asarray([[1.0, 0.0], [3.0, 1.0], [-1.0, 0.0], [-2.0, -5.0]])
Y = np.asarray([1.0, 1.0, -1.0, -1.0])


def test_the_widest_margin_is_found_at_the_kink(monkeypatch):
    """Without slack, and C is large enough for that, y (w x + b) >= 1 with the least |w| is w = (1, 0), b = 0."""
    monkeypatch.setattr(hinge, "C", 10.0)
    found = hinge.maximum_margin(X, Y)
    np.testing.assert_allclose(found.point, [1, 0, 0], atol=1e-9)
    assert found.value == pytest.approx(0.5 / (10 * 4)) and abs(found.gap) < 1e-12


def test_the_pull_is_the_slope_by_pred():
    pred = np.asarray([0.5, 1.5, 3.0, -1.0])
    np.testing.assert_array_equal(hinge.pull(hinge.HINGE, Y, pred), [-1, 0, 1, 0])
    np.testing.assert_array_equal(hinge.pull(hinge.SQUARED, Y, pred), [-1, 0, 8, 0])

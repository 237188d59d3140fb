"""The independent parts of the robust regression experiment: what its fits are compared with."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from experiments import robust_regression


def test_each_share_spoils_that_many_points_at_the_low_end():
    x, y = robust_regression.data(0, 3)
    assert x.shape == y.shape == (len(robust_regression.SHARES), 3, robust_regression.POINTS)
    assert (np.diff(x) >= 0).all()
    spoiled = y != y[0]
    for share, wrong in zip(robust_regression.SHARES, spoiled, strict=True):
        assert (wrong.sum(-1) == robust_regression.POINTS * share / 100).all()
        assert (np.diff(wrong.astype(int)) <= 0).all()


def test_the_best_line_through_two_points_ignores_one_outlier():
    x = np.asarray([0.0, 1.0, 2.0, 3.0, 4.0])
    y = 2 * x - 1
    y[3] += 100
    np.testing.assert_allclose(robust_regression.through_two(x, y), [2, -1])


def test_the_price_of_huber_is_the_textbook_one_at_its_cutoff(monkeypatch):
    """At a cutoff of 1.345 standard deviations the efficiency is 95 %; epsilon = 1.345 / sigma leads there."""
    from scipy.stats import norm

    c = 1.345
    clipped = (1 - 2 * norm.sf(c)) - 2 * c * norm.pdf(c) + 2 * c**2 * norm.sf(c)
    monkeypatch.setattr(robust_regression, "EPSILON", c / np.sqrt(clipped))
    price, cutoff = robust_regression.price_of_huber()
    assert cutoff == pytest.approx(c)
    assert price**-2 == pytest.approx(0.95, abs=1e-3)

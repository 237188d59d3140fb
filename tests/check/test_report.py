"""The page: what it says of the probability to see a fault, held against faults planted, and the same page in colour."""

import io
import re

import jax.numpy as jnp
import numpy as np
import pytest

from fdl import check
from tests.check.zoo import custom, normal, one_entry_off

pytestmark = pytest.mark.optimized  # it is about rounding


def cancelling(x, far):
    """Rounding leaves fewer digits of dx, the further off `far` is: in float32 inside, whatever x is."""
    return ((x.astype(jnp.float32) + far) - far) ** 2 / 2


def cancelling_off(index):
    def backward(residuals, dy):
        x, far = residuals
        dx = dy * ((x.astype(jnp.float32) + far) - far)
        return one_entry_off(index, 0.01)(dx).astype(x.dtype), jnp.zeros_like(far)

    return custom(cancelling, lambda x, far: (cancelling(x, far), (x, far)), backward)


def test_the_detection_probability_is_the_share_of_planted_faults_that_are_caught():
    far = np.asarray([0, 1, 1e5, 1e6], np.float32).repeat(3)
    x = normal(1, far.size)
    plain = lambda x: cancelling(x, jnp.asarray(far))
    report = check.gradients(plain, x, reference=plain)
    caught = [
        check.gradients(lambda x, i=i: cancelling_off(i)(x, jnp.asarray(far)), x, reference=plain).verdict == "wrong"
        for i in range(far.size)
    ]
    assert 0.2 < report.detection_probability < 0.9, report
    assert report.detection_probability == np.mean(caught), (report.detection_probability, caught)
    assert report.cotangents == 3
    text = " ".join(str(report).split())
    assert f"{sum(caught)} of {far.size}, in which an error of 1 % of the entry" in text
    assert "one of the 3 random cotangents (normal, Rademacher) or more, at these arguments" in text


def test_quick_says_that_there_was_one_cotangent():
    report = check.gradients(jnp.sin, normal(1, 4), reference=jnp.sin, modes="quick")
    assert report.cotangents == 1 and "the random cotangent (normal), at these arguments" in str(report)


@pytest.mark.parametrize("width", [80, 120])
def test_the_page_in_colour_says_the_same(width):
    console = pytest.importorskip("rich.console")
    half = custom(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (0.5 * dy * jnp.cos(x),))
    for candidate in (half, jnp.sin):
        report = check.gradients(candidate, normal(1, 3, 4), reference=jnp.sin)
        screen = console.Console(width=width, force_terminal=True, record=True, file=io.StringIO())
        screen.print(report)
        text = screen.export_text()
        assert max(map(len, text.splitlines())) <= width
        for word in re.findall(r"\w{3,}", str(report)):
            assert word in text.replace("\n", ""), word

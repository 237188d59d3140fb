"""The tables of counts that a language model is compared with."""

import numpy as np
import pytest

from experiments import _ngrams

rng = np.random.default_rng(0)
TEXT = rng.integers(0, 4, 200)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_what_may_follow_adds_up_to_one(order):
    for text in (TEXT, np.zeros(20, int)):  # the second has contexts that never occur
        for last in (text, np.append(text, 3)):
            each = [_ngrams.probabilities(last, np.asarray([c]), 4, order, 0.6)[0] for c in range(4)]
            assert sum(each) == pytest.approx(1) and min(each) > 0


def test_bigrams_counted_by_hand():
    """a b a b a c: after a came b twice and c once; b and c stand after one character, a after one."""
    text, d = np.asarray([0, 1, 0, 1, 0, 2]), 0.5
    lower = (np.asarray([1, 1, 1]) - d + d * 3 / 3) / 3  # a after b, b after a, c after a
    wanted = (np.asarray([0, 2 - d, 1 - d]) + d * 2 * lower) / 3
    got = [_ngrams.probabilities(np.append(text, 0), np.asarray([c]), 3, 2, d)[0] for c in range(3)]
    # the appended a adds c a: a stands after two characters then
    lower = (np.asarray([2, 1, 1]) - d + d * 3 / 3) / 4
    wanted = (np.asarray([0, 2 - d, 1 - d]) + d * 2 * lower) / 3
    np.testing.assert_allclose(got, wanted)


def test_a_text_without_pattern_costs_its_entropy_and_one_with_a_pattern_less():
    noise = rng.integers(0, 4, 20_000)
    assert abs(_ngrams.bits(noise[:18_000], noise[18_000:], 4, 3) - 2) < 0.02
    again = np.tile([0, 1, 0, 2], 500)
    assert _ngrams.bits(again[:1800], again[1800:], 4, 1) > 1.4
    assert _ngrams.bits(again[:1800], again[1800:], 4, 2) < 0.6
    assert _ngrams.bits(again[:1800], again[1800:], 4, 3) < 0.02


def test_codes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="lower order"):
        _ngrams.probabilities(TEXT, TEXT, 10_000, 6, 0.5)

"""The embedded digits: what is stored, how it is split, and what it costs to read."""

import hashlib
import time

import numpy as np
import pytest

from fdl.data import digits
from fdl.data.digits import _is_test, _stored

SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_the_stored_arrays_are_the_known_ones():
    ink, labels = _stored()
    assert ink.shape == (1797, 8, 8) and ink.dtype == np.uint8 and ink.max() == 16
    assert labels.shape == (1797,) and labels.dtype == np.uint8
    assert hashlib.sha256(ink.tobytes() + labels.tobytes()).hexdigest() == SHA256


def test_shapes_types_and_range():
    (x, y), (xt, yt) = digits()
    assert x.shape == (1437, 64) and xt.shape == (360, 64)
    assert x.dtype == xt.dtype == np.float32 and y.dtype == yt.dtype == np.int32
    assert y.shape == (1437,) and yt.shape == (360,)
    assert x.min() == 0.0 and x.max() == 1.0
    assert set(y.tolist()) == set(yt.tolist()) == set(range(10))


def test_images_are_the_same_numbers_in_another_shape():
    (x, y), (xt, yt) = digits()
    (images, labels), (test_images, test_labels) = digits(images=True)
    assert images.shape == (1437, 8, 8, 1) and test_images.shape == (360, 8, 8, 1)
    np.testing.assert_array_equal(images.reshape(1437, 64), x)
    np.testing.assert_array_equal(test_images.reshape(360, 64), xt)
    np.testing.assert_array_equal(labels, y)
    np.testing.assert_array_equal(test_labels, yt)


def test_the_split_is_stratified_and_follows_its_rule():
    _, labels = _stored()
    test = _is_test(labels)
    in_label_order = sorted(range(len(labels)), key=lambda n: (int(labels[n]), n))
    assert np.flatnonzero(test).tolist() == sorted(in_label_order[::5])
    for digit in range(10):
        total, held_out = int((labels == digit).sum()), int((test & (labels == digit)).sum())
        assert abs(held_out - total / 5) < 1


def test_the_parts_together_are_the_whole():
    ink, labels = _stored()
    (x, y), (xt, yt) = digits()
    test = _is_test(labels)
    whole = np.empty((1797, 64), np.float32)
    whole[~test], whole[test] = x, xt
    np.testing.assert_array_equal(whole * 16, ink.reshape(1797, 64))
    np.testing.assert_array_equal(np.concatenate([y, yt]), np.concatenate([labels[~test], labels[test]]))


def test_every_call_gives_its_own_arrays():
    (x, y), _ = digits()
    x[:], y[:] = -1, -1
    (again, labels), _ = digits()
    assert again.min() == 0.0 and labels.min() == 0


def test_it_agrees_with_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    ink, labels = _stored()
    np.testing.assert_array_equal(ink, theirs.images)
    np.testing.assert_array_equal(labels, theirs.target)


def test_reading_is_fast():
    digits()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        digits()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02, f"the best of 5 calls took {min(times):.4f} s"

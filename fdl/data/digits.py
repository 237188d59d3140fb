"""The digits that come with the package: 1,797 handwritten digits of 8x8 pixels, ready without a download.

Source: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository,
doi:10.24432/C50P49, licence CC BY 4.0, in the form in which scikit-learn ships it (see DIGITS.md beside this file).

The split is a rule, not a draw. The examples are put in order of their label (within a label they keep the order of
the file) and numbered from 0; those whose number is divisible by 5 are the test examples. That gives 1,437 and 360
examples, and every class is divided 4 to 1 to within one example. In both parts the examples keep the order of the
file, which mixes the classes. All 13 writers occur in both parts, so a test accuracy here says nothing about unknown
writers.
"""

import importlib.resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

Examples = tuple[NDArray[np.float32], NDArray[np.int32]]


def digits(*, images: bool = False) -> tuple[Examples, Examples]:
    """The digits as ((x, y), (xt, yt)): 1,437 examples to train on and 360 to test on, new arrays at every call.

    x is float32 in [0, 1] (ink divided by 16) of shape [N, 64], rows of the picture one after the other; with
    `images=True` it is [N, 8, 8, 1], the NHWC layout that convolutions take. y is int32 [N], the digit.

        >>> (x, y), (xt, yt) = fdl.data.digits()
        >>> x.shape, y.shape, xt.shape
        ((1437, 64), (1437,), (360, 64))
    """
    ink, labels = _stored()
    x = ink.astype(np.float32) / np.float32(16)  # [N, 8, 8]
    x = x[..., None] if images else x.reshape(len(x), -1)
    y = labels.astype(np.int32)
    test = _is_test(labels)
    return (x[~test], y[~test]), (x[test], y[test])


def _stored() -> tuple[NDArray[Any], NDArray[Any]]:
    """The file's two arrays: ink uint8 [N, 8, 8] from 0 to 16, labels uint8 [N]."""
    with importlib.resources.files("fdl.data").joinpath("digits.npz").open("rb") as file:
        with np.load(file, allow_pickle=False) as archive:
            return archive["images"], archive["labels"]


def _is_test(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which examples are for testing: every fifth in label order (the module's docstring has the rule)."""
    test = np.zeros(len(labels), dtype=bool)
    test[np.argsort(labels, kind="stable")[::5]] = True
    return test

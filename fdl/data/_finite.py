"""Where an array holds NaN or infinity."""

from typing import Any

import numpy as np


def first_not_finite(array: Any) -> tuple[int, ...] | None:
    """The index of the first entry that is not finite; None if all are. Integers and booleans always are."""
    if array.dtype.kind != "f":
        return None
    with np.errstate(all="ignore"):
        # NaN and infinity stay in every sum: one pass without a copy, where nothing overflows
        if np.isfinite(array.sum(dtype=array.dtype)):
            return None
    rows = array if array.ndim else array[None]
    for n, row in enumerate(rows):  # not all at once, which would take memory for all
        bad = ~np.isfinite(row)
        if bad.any():
            return (n, *map(int, np.unravel_index(int(np.argmax(bad)), bad.shape)))[: array.ndim]
    return None

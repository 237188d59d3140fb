"""Triplet hinge loss: the margin, coinciding embeddings, scaling, squares."""

import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_limits

triplet_hinge = fdl.losses.triplet_hinge
HALF = np.sqrt(0.5)
O = [0.0, 0.0]

# positive, negative, loss, -dpositive, -dnegative; the anchor is 0 and the margin 1
ROWS = {
    "too close": ([3.0, 4.0], [0.0, 2.0], 4.0, [-0.6, -0.8], [0.0, 1.0]),
    "at the margin": ([3.0, 4.0], [0.0, 6.0], 0.0, O, O),
    "far enough": ([3.0, 4.0], [0.0, 7.0], 0.0, O, O),
    "anchor = positive": (O, [0.0, 0.5], 0.5, O, [0.0, 1.0]),
    "anchor = negative": ([3.0, 4.0], O, 6.0, [-0.6, -0.8], O),
    "all equal": (O, O, 1.0, O, O),
    "huge": ([3e25, 4e25], [0.0, 2e25], 3e25, [-0.6, -0.8], [0.0, 1.0]),
    "tiny": ([1e-25, 1e-25], [1e-25, 0.0], 1.0, [-HALF, -HALF], [1.0, 0.0]),
    "negative at inf": ([3.0, 4.0], [0.0, INF], 0.0, O, O),
    "positive at inf": ([INF, 4.0], [0.0, 2.0], INF, [-1.0, 0.0], [0.0, 1.0]),
    "both at inf": ([INF, 4.0], [0.0, INF], NAN, [NAN, NAN], [NAN, NAN]),
    "NaN": ([NAN, 4.0], [0.0, 6.0], NAN, [NAN, NAN], [NAN, NAN]),
}


def test_limits():
    rows = (
        ((O, positive, negative), value, (np.add(u, v), np.negative(u), np.negative(v)))
        for positive, negative, value, u, v in ROWS.values()
    )
    assert_limits(triplet_hinge, *rows)


def test_squared_distances():
    loss = triplet_hinge.bind(squared=True, margin=0.2)
    moved = ([3.0, 4.0], [0.0, 2.0]), 21.2, ([-6.0, -4.0], [6.0, 8.0], [0.0, -4.0])
    assert_limits(loss, ((O, *moved[0]), *moved[1:]), ((O, O, O), 0.2, (O, O, O)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: triplet_hinge(x, x, jnp.ones((3, 1))), r"negative has shape \[3, 1\]"),
        (lambda x: triplet_hinge(x, jnp.ones(2), x), r"positive has shape \[2\]"),
        (lambda x: triplet_hinge(x, x, x, margin=-1), "margin is -1, wanted 0 <= margin"),
        (lambda x: triplet_hinge(x, x, x, squared=1), "squared is int 1, wanted True or False"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(jnp.ones((3, 2)))

"""The hinge, squared hinge and modified Huber loss: values, limits, labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from tests.losses.limits import INF, NAN, assert_limits, second_derivatives

hinge, squared_hinge, modified_huber = fdl.losses.hinge, fdl.losses.squared_hinge, fdl.losses.modified_huber
MARGIN_LOSSES = {"hinge": hinge, "squared_hinge": squared_hinge, "modified_huber": modified_huber}

# y pred: value and slope by y pred
ROWS = {
    "hinge": [
        (0.5, 0.5, -1.0),
        (1.0, 0.0, 0.0),
        (2.0, 0.0, 0.0),
        (-1e30, 1e30, -1.0),
        (-INF, INF, -1.0),
        (INF, 0.0, 0.0),
    ],
    "squared_hinge": [
        (0.5, 0.25, -1.0),
        (1.0, 0.0, 0.0),
        (2.0, 0.0, 0.0),
        (-1e30, INF, -2e30),
        (-INF, INF, -INF),
        (INF, 0.0, 0.0),
    ],
    "modified_huber": [
        (0.5, 0.25, -1.0),
        (1.0, 0.0, 0.0),
        (2.0, 0.0, 0.0),
        (-1.0, 4.0, -4.0),
        (-3.0, 12.0, -4.0),
        (-1e30, 4e30, -4.0),
        (-INF, INF, -4.0),
        (INF, 0.0, 0.0),
    ],
}
every_loss = pytest.mark.parametrize("name", MARGIN_LOSSES)


@pytest.mark.parametrize(("name", "value"), [("hinge", 1.3), ("squared_hinge", 1.86)], ids=["hinge", "squared_hinge"])
def test_value_as_in_keras(name, value):
    pred = jnp.asarray([[-0.3, 0.2, -0.1, 1.6], [-0.25, -1.0, 0.5, 0.6]])
    target = jnp.asarray([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    one = {"hinge": [0.6, 0.4125], "squared_hinge": [0.485, 0.243125]}[name]
    np.testing.assert_allclose(MARGIN_LOSSES[name](pred, target, binary_labels=True), one, rtol=1e-6)
    pred = jnp.asarray([[0.6, 0.4], [0.4, 0.6]])
    target = jnp.asarray([[-1.0, 1.0], [-1.0, -1.0]])
    np.testing.assert_allclose(MARGIN_LOSSES[name](pred, target).mean(), value, rtol=1e-6)


@every_loss
@pytest.mark.parametrize("binary", [False, True])
def test_limits(name, binary):
    rows = []
    for label in (-1.0, 1.0):
        for z, value, slope in ROWS[name]:
            target, by_label = ((label + 1) / 2, 2) if binary else (label, 1)
            by_label = 0.0 if slope == 0 else by_label * slope * label * z
            rows.append(((label * z, target), value, (label * slope, by_label)))
    assert_limits(MARGIN_LOSSES[name].bind(binary_labels=binary), *rows)


@every_loss
def test_what_is_no_label_is_loud(name):
    loud = NAN, (NAN, NAN)
    loss = MARGIN_LOSSES[name]
    assert_limits(loss, *(((pred, 0.0), *loud) for pred in (0.3, 5.0, -5.0)), ((1.0, NAN), *loud), ((NAN, 1.0), *loud))
    binary = loss.bind(binary_labels=True)
    assert_limits(binary, *(((pred, target), *loud) for pred in (0.3, 5.0, -5.0) for target in (-1.0, 2.0)))


def test_modified_huber_is_that_of_scikit_learn():
    """Its SGDClassifier keeps the formula to itself: -4 z below -1, (1 - z)^2 to 1, then 0."""
    z = np.linspace(-3, 3, 61)
    want = np.where(z >= -1, np.maximum(0, 1 - z) ** 2, -4 * z)
    np.testing.assert_allclose(modified_huber(jnp.asarray(z)[:, None], jnp.ones((61, 1))), want)


def test_second_derivatives_and_the_flat_side_at_the_seam():
    points = [-3.0, -1.0, 0.5, 1.0, 2.0]
    np.testing.assert_array_equal(second_derivatives(squared_hinge, points, [1.0] * 5), [2, 2, 2, 0, 0])
    np.testing.assert_array_equal(second_derivatives(modified_huber, points, [1.0] * 5), [0, 2, 2, 0, 0])


def test_the_labels_option_is_static():
    with pytest.raises(TypeError, match="binary_labels is .*wanted True or False"):
        hinge(jnp.ones(3), jnp.ones(3), binary_labels=jnp.asarray(True))
    with pytest.raises(TypeError, match="binary_labels is int 1, wanted True or False"):
        hinge(jnp.ones(3), jnp.ones(3), binary_labels=1)


def test_integer_labels_are_refused_with_the_cast():
    with pytest.raises(TypeError, match=r"target is int32\[3\].*target.astype\(jnp.float32\)"):
        hinge(jnp.ones(3), jnp.ones(3, jnp.int32))


def test_the_batch_does_not_change_an_example(getkey):
    """Keras maps labels only if the whole batch is binary: the same row has another loss beside a label of -1."""
    pred, labels = jax.random.normal(getkey(), (2, 3), jnp.float32), jnp.asarray([[1.0, 1, 1], [1, -1, 1]], jnp.float32)
    assert hinge(pred, labels)[0] == hinge(pred[:1], labels[:1])[0]

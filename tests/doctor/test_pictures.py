"""The pictures: what is drawn is what was measured, for charts with and without everything that can go wrong."""

import numpy as np
import pytest

from fdl.errors import InputError
from tests.doctor.test_diagnose import NAMES, chart

pytest.importorskip("matplotlib", reason="needs fdl[lab]")

import matplotlib
from matplotlib.colors import to_hex

from fdl.doctor import pictures
from fdl.doctor.style import VERMILION

NAN = np.full(6, np.nan)
COURSE = [chart(step, error=np.asarray([0.0, 1e-3, 1e-2, 0.1, 1.0, 10.0])) for step in (0, 5, 10)]


def test_the_error_is_drawn_over_depth_and_time():
    left, right, *_ = pictures.gradient_flow(COURSE).axes
    assert [line.get_label() for line in left.lines] == ["step 0", "step 5", "step 10"]
    np.testing.assert_allclose(left.lines[0].get_xdata(), COURSE[0].error)
    field, zeros = right.collections[:2]
    np.testing.assert_allclose(field.get_array()[1:, 0], [-3, -2, -1, 0, 1])
    assert zeros.get_array()[0].tolist() == [1, 1, 1] and zeros.get_array()[1:].mask.all()
    assert [label.get_text() for label in left.get_yticklabels()] == list(NAMES)
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the data comes in at the top


def test_white_is_the_error_at_the_output():
    _, right, *_ = pictures.gradient_flow(COURSE).axes
    low, high = right.collections[0].get_clim()
    assert (low + high) / 2 == pytest.approx(1) and high - 1 >= 4


def test_bands_are_the_percentiles():
    values = np.arange(42.0).reshape(6, 7) - 20
    left, _ = pictures.distributions([chart(0), chart(5, output_percentiles=values)]).axes
    boxes = [[(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars] for bars in left.containers]
    for found, (low, high) in zip(boxes, ((0, 6), (1, 5), (2, 4)), strict=True):
        np.testing.assert_allclose(found, values[:, [low, high]])
    np.testing.assert_allclose(left.lines[0].get_xdata(), values[:, 3])


def test_dead_units_have_the_colour_of_their_cause():
    drawn = pictures.dead_units(
        [chart(0), chart(5, units={"relu_1": np.asarray([0, 0, 1, 4]), "tanh_4": np.zeros(4, int)})]
    )
    axes = next(axes for axes in drawn.axes if axes.get_title("left") == "relu_1 (50%)")
    mesh = axes.collections[0]
    assert mesh.get_array().tolist() == [[0, 0], [0, 0], [1, 1], [0, 4]]
    assert to_hex(mesh.cmap(mesh.norm(1))) == VERMILION.lower()


def test_update_ratios_are_those_of_weights():
    (axes,) = pictures.update_ratio(COURSE).axes
    own = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert [line.get_label() for line in own] == list(COURSE[0].parameters[1::2])
    np.testing.assert_allclose(own[0].get_ydata(), 0.01 / 5)


def test_singular_values_are_drawn_where_they_are_known():
    spectrum = np.tile([4.0, 2, 1, 0.5], (6, 1))
    spectrum[2] = np.nan
    (axes,) = pictures.jacobian_spectrum([chart(0, spectrum=spectrum)]).axes
    marks = [line for line in axes.lines if line.get_marker() == "|"]
    np.testing.assert_array_equal([line.get_xdata() for line in marks], spectrum)


def test_all_pictures_of_a_ruined_training(tmp_path):
    ruined = chart(5, error=NAN, update=NAN, loss=np.float32(np.nan), first_not_finite=np.int32(1))
    ruined = type(ruined)(**{**vars(ruined), "output_percentiles": np.full((6, 7), np.nan)})
    paths = pictures.write_pictures(tmp_path / "new", [chart(0), ruined])
    names = ["gradient-flow", "distributions", "dead-units", "update-ratio", "jacobian-spectrum"]
    assert [path.name for path in paths] == [f"{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert list(pictures.pictures(chart(-1, update=NAN, units={}, spectrum=np.zeros((6, 0))))) == names[:2]


def test_what_was_not_measured_is_refused_and_settings_stay():
    before = dict(matplotlib.rcParams)
    for draw, planted, said in (
        (pictures.update_ratio, {"update": NAN}, "optimizer="),
        (pictures.jacobian_spectrum, {"spectrum": np.zeros((6, 0))}, "spectrum=8"),
        (pictures.dead_units, {"units": {}}, "no layer with units"),
    ):
        with pytest.raises(InputError, match=said):
            draw(chart(0, **planted))
    with pytest.raises(InputError, match="at least one"):
        pictures.gradient_flow([])
    pictures.gradient_flow(chart(0))
    assert dict(matplotlib.rcParams) == before

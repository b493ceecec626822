import numpy as np
import pytest

from npattn.data import photograph
from tests.naming import for_each

figure = pytest.importorskip("matplotlib.figure")
showing = pytest.importorskip("npattn.pictures.showing")


@pytest.fixture
def axis():
    return figure.Figure().subplots()


def test_an_image_stands_under_its_title_without_axes_or_bar_unless_asked_for(axis):
    shown = showing.show(axis, np.eye(3), "three", fontsize=7, colour="red", cmap="magma", vmin=-1, vmax=2)
    np.testing.assert_array_equal(shown.get_array(), np.eye(3))
    assert (axis.get_title(), axis.title.get_fontsize(), axis.title.get_color()) == ("three", 7, "red")
    assert (shown.get_cmap().name, shown.get_clim()) == ("magma", (-1, 2))
    assert not axis.axison
    assert axis.figure.axes == [axis]


def test_a_bar_names_what_it_measures_and_axes_are_marked_where_asked_for(axis):
    shown = showing.show(axis, np.eye(3), "three", bar="octaves", ticks=True)
    first, bar = axis.figure.axes
    assert first is axis
    assert bar.get_ylabel() == "octaves"
    assert shown.colorbar.ax is bar
    assert axis.axison


@for_each("shape", [(100, 150), (50, 75), (200, 300), (2, 3), (40, 150)])
def test_a_map_is_enlarged_to_the_photograph_position_by_position(shape):
    values = np.random.RandomState(0).standard_normal((*shape, 3))
    height, width = photograph().shape[:2]
    down, across = height // shape[0], width // shape[1]
    assert showing.pixels_per_position(values) == down
    for positions in (values, values[:, :, 0]):
        large = showing.enlarge(positions)
        assert large.shape[:2] == (height, width)
        np.testing.assert_array_equal(large[::down, ::across], positions)
        np.testing.assert_array_equal(large[down - 1 :: down, across - 1 :: across], positions)


def test_classes_take_turns_with_the_colours_and_are_named_with_their_share(axis):
    labels = np.arange(60 * 100).reshape(50, 120)[:, :75] % 6
    colours = showing.class_colours(labels)
    np.testing.assert_array_equal(colours[labels == 0][0], colours[labels == 5][0])
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 5
    showing.add_class_legend(axis, labels, ["background", "class 1"])
    shares = [f"{np.mean(labels == k):.0%}" for k in (0, 1)]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        f"background, {shares[0]}",
        f"class 1, {shares[1]}",
    ]


def test_signed_values_are_white_at_0_and_bright_ones_end_below_outliers():
    options = showing.signed(2.0)
    np.testing.assert_allclose(options["norm"]([-2.0, 0.0, 2.0]), [0, 0.5, 1])
    values = np.r_[np.arange(999.0), 1e9]
    assert 900 < showing.bright(values)["vmax"] < 1000
    assert showing.bright(np.zeros(4)) == {"cmap": "magma", "vmin": 0.0, "vmax": 1e-9}

import numpy as np
import pytest

from tests.pictures.drawing import panels_of, results

both = pytest.mark.parametrize(("key", "count"), [("double", 4), ("linear", 3)])


@both
def test_below_each_map_stands_how_much_positions_take_of_it(key, count):
    pytest.importorskip("npattn.pictures.gathering")
    distribute = results(key)[1].attention["distribute"][0]
    drawn = [axes for axes in panels_of(key).axes if axes.get_title().startswith("of map ")]
    assert [int(axes.get_title().split()[2].rstrip(":")) for axes in drawn] == list(range(count))
    for k, axes in enumerate(drawn):
        np.testing.assert_allclose(axes.images[0].get_array(), distribute[k])


@both
def test_the_maps_are_those_of_the_first_head_and_the_legend_has_their_shares(key, count):
    pytest.importorskip("npattn.pictures.gathering")
    figure = panels_of(key)
    assert sum("gathers" in axes.get_title() for axes in figure.axes) == count
    [axes] = [axes for axes in figure.axes if axes.get_title() == "of which map most is taken"]
    largest = results(key)[1].attention["distribute"][0, :count].argmax(axis=0)
    texts = {text.get_text() for text in axes.get_legend().get_texts()}
    assert texts == {f"map {k}, {np.mean(largest == k):.0%}" for k in range(count)}

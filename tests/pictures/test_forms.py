import numpy as np
import pytest

from tests.pictures.drawing import panels_of, size_of


def test_softmax_and_products_are_drawn_of_the_same_pixels_and_both_are_highest_where_these_look_themselves():
    pytest.importorskip("npattn.pictures.attention_maps")
    figure = panels_of("non-local")
    below = [axes for axes in figure.axes if axes.get_title().endswith("of the map taken off")]
    above = [axes for axes in figure.axes if "half of it on" in axes.get_title()]
    assert [axes.get_title().split("\n")[0].rstrip(":") for axes in below] == [
        axes.get_title().split("\n")[0] for axes in above
    ]
    assert len(below) == 5
    rows, columns = size_of("non-local")
    for axes in below:
        weights = np.asarray(axes.images[0].get_array())
        assert np.abs(weights).max() == 1
        share = np.mean(weights < 0)
        assert axes.get_title().endswith(f"{share:.0%} of the map taken off")
        (mark,) = axes.lines
        column, row = (int(values[0]) for values in mark.get_data())
        step = len(weights) // rows
        assert weights[row // step * step, column // step * step] > 0.5 * weights.max()
        assert weights.shape == (rows * step, columns * step)

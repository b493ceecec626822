import numpy as np
import pytest

from tests.pictures.drawing import panels_of, size_of

offsets = pytest.importorskip("npattn.pictures.offsets")


def test_each_pixel_looks_within_the_outer_frame_and_lies_in_the_inner_one():
    figure = panels_of("halo")
    drawn = [axes for axes in figure.axes if axes.get_title().startswith("from row")]
    assert [axes.get_title().split("\n")[0].rsplit(", ", 1)[1] for axes in drawn] == ["content"] * 5 + ["both"] * 5
    for axes in drawn:
        inner, outer = axes.patches
        (mark,) = axes.lines
        column, row = (float(values[0]) for values in mark.get_data())
        (left, top), side = inner.get_xy(), inner.get_width()
        assert left < column < left + side
        assert top < row < top + side
        assert outer.get_width() == side / offsets.BLOCK * (offsets.BLOCK + 2 * offsets.HALO)
        assert np.allclose(np.add(outer.get_xy(), outer.get_width() / 2), np.add(inner.get_xy(), side / 2))
    assert size_of("halo")[0] % offsets.BLOCK == size_of("halo")[1] % offsets.BLOCK == 0

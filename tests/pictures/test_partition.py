import numpy as np
import pytest

from tests.pictures.drawing import panels_of


def test_pixels_look_at_nothing_beyond_the_edges_of_their_window_that_are_drawn():
    pytest.importorskip("npattn.pictures.partition")
    figure = panels_of("window")
    drawn = [axes for axes in figure.axes if axes.get_title().startswith("from row")]
    assert [axes.get_title().split("\n")[0].rpartition(", ")[2] for axes in drawn] == ["still"] * 5 + ["moved"] * 5
    found = []
    for axes in drawn:
        heat = np.asarray(axes.images[-1].get_array())
        mark, *edges = axes.lines
        column, row = (float(values[0]) for values in mark.get_data())
        rows = sorted({float(line.get_ydata()[0]) for line in edges if len(set(line.get_ydata())) == 1})
        columns = sorted({float(line.get_xdata()[0]) for line in edges if len(set(line.get_xdata())) == 1})
        lit = np.argwhere(heat > 0)
        for at, mine, limits in ((lit[:, 0], row, rows), (lit[:, 1], column, columns)):
            assert len(limits) >= 2
            assert (np.searchsorted(limits, at) == np.searchsorted(limits, mine)).all()
        found.append((rows, columns))
    assert found[0] != found[5]

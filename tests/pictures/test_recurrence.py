import re

import numpy as np
import pytest

from tests.pictures.drawing import panels_of, size_of


def test_pixels_look_along_their_row_and_column_once_and_over_the_map_twice():
    pytest.importorskip("npattn.pictures.attention_maps")
    drawn = [axes for axes in panels_of("criss-cross").axes if axes.get_title().startswith("from row")]
    rows, columns = size_of("criss-cross")
    first, second = drawn[:5], drawn[5:]
    assert [axes.get_title().split("\n")[0].replace("once", "twice:") for axes in first] == [
        axes.get_title().split("\n")[0] for axes in second
    ]
    for once, twice in zip(first, second, strict=True):
        weights, shares = np.asarray(once.images[1].get_array()), 10 ** np.asarray(twice.images[0].get_array())
        step = len(weights) // rows
        column, row = (int(values[0]) // step for values in once.lines[0].get_data())
        apart = np.ones((rows, columns), bool)
        apart[row], apart[:, column] = False, False
        coarse, later = (image[::step, ::step][:rows, :columns] for image in (weights, shares))
        assert not coarse[apart].any()
        assert coarse[row, column] == coarse.max()
        assert later.sum() == pytest.approx(1)
        assert (later > 0).all()
        [share] = re.findall(r"\n(\d+)% off row and column", twice.get_title())
        assert int(share) == pytest.approx(100 * later[apart].sum(), abs=0.51)

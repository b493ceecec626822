import numpy as np
import pytest

from tests.pictures.drawing import panels_of


def test_blocks_count_the_draws_and_the_probability_that_falls_on_them():
    axes = panels_of("hard").axes
    expected, drawn = (next(a for a in axes if a.get_title().startswith(title)) for title in ("expected", "drawn"))
    expected, drawn = (np.asarray(a.images[0].get_array()) for a in (expected, drawn))
    assert expected.sum() == pytest.approx(1000)
    assert drawn.sum() == 1000
    assert np.sum((drawn - expected) ** 2 / expected) < 300  # chi-square of 150 blocks

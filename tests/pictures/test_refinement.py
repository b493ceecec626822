import numpy as np
import pytest

from tests.pictures.drawing import panels_of

features = pytest.importorskip("npattn.pictures.features")


def test_from_one_eye_pixel_correlation_finds_the_other_and_leaves_the_background_out():
    figure = panels_of("pcm")
    titles = [axes.get_title() for axes in figure.axes]
    (place,) = (i for i, title in enumerate(titles) if title.startswith("coarse map: one eye"))
    refined = next(
        np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.get_title().startswith("refined")
    )
    coarse = np.asarray(figure.axes[place].images[0].get_array())
    other, background = (
        np.s_[row // 4 - 2 : row // 4 + 3, column // 4 - 2 : column // 4 + 3]
        for row, column in (features.OTHER_PIXELS[0], features.COARSE_PLACES["background"])
    )
    assert coarse[other].max() < np.quantile(coarse, 0.99)
    assert np.mean(refined[other]) > np.quantile(refined, 0.9) > np.median(refined) > np.mean(refined[background])

import numpy as np
import pytest

from npattn import PositionAttention
from npattn.data import photograph
from tests.pictures.drawing import COARSER, SEED, looks, panels_of

features = pytest.importorskip("npattn.pictures.features")
pictures = pytest.importorskip("npattn.pictures")
scene = pytest.importorskip("npattn.pictures.scene")


@pytest.mark.parametrize("at", [(0, 0), (199, 299), (101, 7)])
def test_the_pixel_asked_for_is_marked_and_what_it_looks_at_shines(at, monkeypatch):
    monkeypatch.setattr(scene, "DRAWN_SIZE", COARSER)
    small = PositionAttention(channels=2)  # the features before and after are not the matter here
    drawn = looks(pictures.draw(small, SEED, at))
    assert list(drawn) == [at, *features.OTHER_PIXELS]
    title, (photo, heat) = drawn[at].get_title(), drawn[at].images
    assert title.startswith(f"from row {at[0]}, column {at[1]}\n")
    np.testing.assert_array_equal(photo.get_array(), photograph().mean(axis=2))
    assert heat.get_array().shape == photograph().shape[:2]
    shine = np.asarray(heat.get_array())
    assert shine[at] > np.quantile(shine, 0.98)  # itself looks like itself


def test_without_a_wish_attention_is_drawn_from_the_eye():
    drawn = looks(panels_of("pam"))
    assert list(drawn) == [features.EYE, *features.OTHER_PIXELS]
    heat = drawn[features.EYE].images[1].get_array()
    assert 0.01 < np.mean(heat > 0.5) < 0.2


def test_every_head_has_a_row_of_its_own_looks():
    figure = panels_of("mhsa")
    drawn = [axes for axes in figure.axes if axes.get_title().startswith("from row")]
    pixels = [features.EYE, *features.OTHER_PIXELS]
    expected = [f"from row {row}, column {column}, head {head}" for head in (1, 2) for row, column in pixels]
    assert [axes.get_title().partition("\n")[0] for axes in drawn] == expected
    heights = [axes.get_position().y0 for axes in drawn]
    assert min(heights[:5]) > max(heights[5:]) + 0.1
    first, second = (np.asarray(axes.images[1].get_array()) for axes in drawn[::5])
    assert np.abs(first - second).mean() > 0.01

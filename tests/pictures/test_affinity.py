import numpy as np
import pytest

from npattn import ChannelAttention
from npattn.data import photo_features
from tests.pictures.drawing import SEED

features = pytest.importorskip("npattn.pictures.features")
pictures = pytest.importorskip("npattn.pictures")
scene = pytest.importorskip("npattn.pictures.scene")


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_heat_map_of_affinities_names_its_rows_and_columns_and_the_pairs_at_both_ends(variant):
    module = ChannelAttention(12, variant)
    x = photo_features(12, *scene.DRAWN_SIZE)
    affinity = module(module.init(SEED, generic=True), x).attention["affinity"][0]
    figure = pictures.draw(module, SEED)
    (axes,) = (axes for axes in figure.axes if axes.get_title().startswith("affinity"))
    rows, columns = (
        [int(label.get_text()) for label in labels] for labels in (axes.get_yticklabels(), axes.get_xticklabels())
    )
    assert sorted(rows) == sorted(columns) == list(range(12))
    np.testing.assert_array_equal(axes.images[0].get_array(), affinity[np.ix_(rows, columns)])
    titles = [axes.get_title().split()[:6] for axes in figure.axes if " takes in " in axes.get_title()][1:]
    most, least = (affinity[int(words[0]), int(words[5])] for words in titles)
    assert [words[3] for words in titles] == ["most", "least"]
    np.testing.assert_allclose(most, affinity[~np.eye(12, dtype=bool)].max(), rtol=1e-14)
    assert least == affinity.min()


def test_a_channel_that_is_blank_is_not_shown_among_those_that_take_in_most_and_least(monkeypatch):
    def partly_blank(*shape):
        features = photo_features(*shape)
        features[0, [0, 5]] = 0
        return features

    monkeypatch.setattr(features, "photo_features", partly_blank)
    figure = pictures.draw(ChannelAttention(7), SEED)
    titles = [axes.get_title() for axes in figure.axes if " takes in " in axes.get_title()]
    named = {int(words[i]) for words in map(str.split, titles[1:]) for i in (0, 5)}
    assert len(titles) == 3
    assert named <= {1, 2, 3, 4, 6}


def test_one_channel_alone_has_a_picture():
    assert pictures.draw(ChannelAttention(1), SEED).axes

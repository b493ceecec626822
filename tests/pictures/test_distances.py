import numpy as np
import pytest

import npattn
from tests.pictures.drawing import shown


def weights_by_title():
    pytest.importorskip("npattn.pictures.distances")
    figure, _ = shown("bottleneck")
    drawn = [axes for axes in figure.axes if axes.get_title().startswith("from row")]
    found = {}
    for axes in drawn:
        where, name = axes.get_title().split("\n")[0].rsplit(", ", 1)
        found.setdefault(name, {})[where] = np.asarray(axes.images[-1].get_array())
    return found


def test_five_pixels_are_drawn_by_content_by_distance_and_by_both():
    found = weights_by_title()
    assert list(found) == ["content", "distance", "both"]
    assert len({tuple(panels) for panels in found.values()}) == 1
    assert [len(panels) for panels in found.values()] == [5, 5, 5]


def test_weights_by_both_are_those_of_content_and_distance_multiplied():
    distances = pytest.importorskip("npattn.pictures.distances")
    module = npattn.BottleneckAttention(distances.CHANNELS, (4, 6), heads=1, head_dim=distances.CHANNELS)
    x = np.random.RandomState(0).standard_normal((1, distances.CHANNELS, 4, 6))
    params = distances.with_smooth_vectors(module.init(3), 3)
    content, distance, both = (module.attention_map(given, x) for given in distances.parts_and_whole(params).values())
    product = content * distance
    np.testing.assert_allclose(both, product / product.sum(axis=3, keepdims=True), rtol=1e-10)

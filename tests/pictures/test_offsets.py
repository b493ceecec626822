import numpy as np
import pytest

import npattn
from tests.pictures.drawing import panels_of


def weights_by_title():
    pytest.importorskip("npattn.pictures.offsets")
    figure = panels_of("bottleneck")
    drawn = [axes for axes in figure.axes if axes.get_title().startswith("from row")]
    found = {}
    for axes in drawn:
        where, name = axes.get_title().split("\n")[0].rsplit(", ", 1)
        found.setdefault(name, {})[where] = np.asarray(axes.images[-1].get_array())
    return found


def test_five_pixels_are_drawn_by_content_by_offset_and_by_both():
    found = weights_by_title()
    assert list(found) == ["content", "offset", "both"]
    assert len({tuple(panels) for panels in found.values()}) == 1
    assert [len(panels) for panels in found.values()] == [5, 5, 5]


def test_weights_by_both_are_those_of_content_and_offset_multiplied():
    offsets = pytest.importorskip("npattn.pictures.offsets")
    module = npattn.BottleneckAttention(offsets.CHANNELS, (4, 6), heads=1, head_dim=offsets.CHANNELS)
    x = np.random.RandomState(0).standard_normal((1, offsets.CHANNELS, 4, 6))
    params = offsets.with_smooth_vectors(module.init(3), 3)
    content, offset, both = (module.attention_map(given, x) for given in offsets.parts_and_whole(params).values())
    product = content * offset
    np.testing.assert_allclose(both, product / product.sum(axis=3, keepdims=True), rtol=1e-10)

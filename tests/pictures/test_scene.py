from dataclasses import replace

import numpy as np
import pytest

from npattn import DualAttentionHead
from npattn.data import photo_features
from tests.pictures.drawing import SEED

scene = pytest.importorskip("npattn.pictures.scene")


def test_statistics_of_the_photograph_give_in_inference_what_training_gives():
    module = DualAttentionHead(in_channels=16, classes=5, dropout=0.0)
    x, params = photo_features(16, 50, 75), module.init(SEED, generic=True)
    prepared = scene.with_photo_statistics(module, params, x)
    masks = [np.ones((1, 4))] * 3
    expected = replace(module, training=True)(params, x, *masks).output
    for y, exact in zip(module(prepared, x).output, expected, strict=True):
        np.testing.assert_allclose(y, exact, atol=1e-3 * np.abs(exact).max())

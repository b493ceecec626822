from dataclasses import replace

import numpy as np
import pytest

from npattn import CATALOGUE
from npattn.data import photo_features
from tests.pictures.drawing import SEED, panels_of

features = pytest.importorskip("npattn.pictures.features")
scene = pytest.importorskip("npattn.pictures.scene")


def test_every_rate_is_drawn_with_its_taps_and_its_answer():
    figure = panels_of("multi-scale")
    module = replace(CATALOGUE["multi-scale"].example(), rates=scene.LARGE_HYPERPARAMETERS["rates"])
    answers = module(module.init(SEED, generic=True), photo_features(module.channels, *scene.DRAWN_SIZE)).attention
    by_title = {axes.get_title(): axes for axes in figure.axes}
    for i, title in enumerate(["1×1", *(f"3×3 at rate {rate}" for rate in module.rates)]):
        np.testing.assert_array_equal(by_title[title].images[0].get_array(), answers["branches"][0, i])
    for rate, line in zip(module.rates, by_title["what the eye's position reads"].lines, strict=True):
        columns, rows = (np.unique(values) for values in line.get_data())
        for middle, found in zip(features.EYE, (rows, columns), strict=True):
            np.testing.assert_array_equal(found, middle + 2 * rate * np.array([-1, 0, 1]))

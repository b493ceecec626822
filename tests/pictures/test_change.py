import numpy as np
import pytest

from npattn import CATALOGUE
from npattn.data import photograph
from tests.pictures.drawing import drawn_alone, scene_of

choose_panels = pytest.importorskip("npattn.pictures.figure").choose_panels

MAPS = [
    key
    for key, module in ((key, system.example()) for key, system in CATALOGUE.items())
    if module.input_shapes(1, 8, 8).get("x") == module.output_shapes(1, 8, 8).get("output")
]


@pytest.mark.parametrize("key", MAPS)
def test_picture_of_a_system_that_changes_the_map_shows_its_strength_before_and_after(key):
    scene = scene_of(key)
    (panel, _), *_ = choose_panels(scene)
    first, before, after, _ = (axes.images[0].get_array() for axes in drawn_alone(panel, key).axes[:4])
    np.testing.assert_array_equal(first, photograph())
    for drawn, features in ((before, scene.x), (after, scene.run.output)):
        np.testing.assert_allclose(drawn, np.sqrt((features**2).mean(axis=(0, 1))), rtol=1e-12)

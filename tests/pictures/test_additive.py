import numpy as np
import pytest

from tests.pictures.drawing import SEED, features, panels_of, results


def test_the_gates_of_both_maps_and_of_either_alone_are_drawn():
    pytest.importorskip("npattn.pictures.additive")
    _, run = results("attention-gate")
    titled = {axes.get_title(): axes for axes in panels_of("attention-gate").axes if axes.images}
    gate = run.attention["additive"][0, 0]
    np.testing.assert_allclose(titled["gate a of both"].images[0].get_array(), gate)
    alone = [titled[f"gate a, {name} its mean everywhere"].images[0].get_array() for name in ("g", "x")]
    assert all(np.ptp(gates) > 0.01 and not np.allclose(gates, gate) for gates in alone)
    # The gating map is coarse: from one position to the next its gates change less than those of the map.
    steps = [np.abs(np.diff(gates, axis=1)).mean() / np.ptp(gates) for gates in alone]
    assert steps[1] < steps[0]


def test_a_gating_map_is_a_blurred_one_of_its_own_size():
    from npattn import AttentionGate
    from npattn.data import photo_features

    inputs = features.photo_inputs(AttentionGate(channels=4, gating_channels=6, stride=2), (20, 30), SEED)
    assert inputs["g"].shape == (1, 6, 10, 15)
    sharp = photo_features(6, 20, 30)
    assert (inputs["g"].std(axis=(2, 3)) < sharp.std(axis=(2, 3))).all()
    np.testing.assert_array_equal(inputs["x"], photo_features(4, 20, 30))

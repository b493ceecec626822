import numpy as np
import pytest

from npattn import CATALOGUE
from npattn.oracle import generic_values
from tests.pictures.drawing import drawn_alone, results

draw_channels = pytest.importorskip("npattn.pictures.channels").draw_channels


def has_channel_gates(module):
    params, inputs = generic_values(module)
    return "channel" in module(params, *inputs.values()).attention


GATES = [key for key, system in CATALOGUE.items() if has_channel_gates(system.example())]


@pytest.mark.parametrize("key", GATES)
def test_bars_end_at_the_gates_of_the_channels_in_falling_order(key):
    (gates,) = results(key)[1].attention["channel"]
    figure = drawn_alone(draw_channels, key)
    (above,) = (axes for axes in figure.axes if axes.get_ylabel() == "gate")
    (below,) = (axes for axes in figure.axes if axes.get_xlabel().startswith("channel"))
    ends = [bar.get_y() + bar.get_height() for bar in above.patches]
    np.testing.assert_allclose(ends, np.sort(gates)[::-1], rtol=1e-12, atol=1e-15)
    labels = [int(label.get_text()) for label in below.get_xticklabels()]
    np.testing.assert_array_equal(gates[labels], np.sort(gates)[::-1])

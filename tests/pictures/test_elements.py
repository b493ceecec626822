import numpy as np
import pytest

from tests.pictures.drawing import panels_of, results


def images(figure, word):
    return [axes for axes in figure.axes if axes.images and word in axes.get_title()]


@pytest.mark.parametrize("key", ["simam", "shuffle"])
def test_each_gate_stands_below_the_channel_that_it_is_of(key):
    figure = panels_of(key)
    x, run = results(key)
    gates = images(figure, "times")
    assert len(gates) == 3
    for axes in gates:
        channel = int(axes.get_title().partition(":")[0])
        np.testing.assert_allclose(axes.images[0].get_array(), run.attention["gate"][0, channel])
        (feature,) = images(figure, f"{channel}: ")[:1]
        np.testing.assert_allclose(feature.images[0].get_array(), x[0, channel])


def test_channels_are_those_whose_gates_vary_most():
    figure = panels_of("simam")
    _, run = results("simam")
    spread = run.attention["gate"][0].std(axis=(1, 2))
    channels = [int(axes.get_title().partition(":")[0]) for axes in images(figure, "times")]
    assert channels == list(np.argsort(-spread)[:3])


def test_a_number_at_its_channels_mean_has_the_lowest_gate():
    figure = panels_of("simam")
    (law,) = (axes for axes in figure.axes if axes.get_title() == "one gate for each number")
    for line in law.lines:
        distance, gate = line.get_data()
        np.testing.assert_array_less(0.62245, gate)
        assert np.abs(distance[gate.argmin()]) == np.abs(distance).min()
        assert np.abs(distance[gate.argmax()]) == np.abs(distance).max()

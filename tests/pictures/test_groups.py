import numpy as np

from tests.pictures.drawing import panels_of, results


def images(figure, word):
    return [axes for axes in figure.axes if axes.images and word in axes.get_title()]


def test_each_gate_stands_below_its_groups_similarity_with_the_groups_average():
    figure = panels_of("sge")
    x, run = results("sge")
    gates, similarities = images(figure, "times"), images(figure, "similarity")
    assert len(gates) == len(similarities) == 3
    for below, above in zip(gates, similarities, strict=True):
        group = int(below.get_title().split()[1].rstrip(":"))
        assert above.get_title().startswith(f"group {group}:")
        np.testing.assert_allclose(below.images[0].get_array(), run.attention["group"][0, group])
        features = x[0, 4 * group : 4 * group + 4]
        expected = np.tensordot(features.mean(axis=(1, 2)), features, 1)
        np.testing.assert_allclose(above.images[0].get_array(), expected)


def test_groups_are_those_whose_gates_vary_most():
    _, run = results("sge")
    spread = run.attention["group"][0].std(axis=(1, 2))
    groups = [int(axes.get_title().split()[1].rstrip(":")) for axes in images(panels_of("sge"), "times")]
    assert groups == list(np.argsort(-spread)[:3])


def test_every_groups_gates_rise_or_fall_with_the_similarity_as_its_scale_says():
    (law,) = (axes for axes in panels_of("sge").axes if axes.get_title().startswith("gates a of every group"))
    assert len(law.lines) == 8
    rising = [line.get_color() for line in law.lines if np.corrcoef(*line.get_data())[0, 1] > 0]
    falling = [line.get_color() for line in law.lines if np.corrcoef(*line.get_data())[0, 1] < 0]
    assert len(set(rising)) == len(set(falling)) == 1
    assert rising[0] != falling[0]

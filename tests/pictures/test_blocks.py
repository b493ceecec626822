import numpy as np

from tests.pictures.drawing import panels_of, results


def test_gates_of_blocks_stand_below_the_channels_that_they_vary_most_in():
    x, run = results("ge")
    gates = run.attention["blocks"][0]
    titled = {axes.get_title(): axes for axes in panels_of("ge").axes if axes.images}
    drawn = {title: axes for title, axes in titled.items() if "times" in title}
    channels = [int(title.partition(":")[0]) for title in drawn]
    assert channels == list(np.argsort(-gates.std(axis=(1, 2)))[:4])
    for channel, axes in zip(channels, drawn.values(), strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), gates[channel])
        (feature,) = (a for title, a in titled.items() if title.startswith(f"{channel}: ") and "times" not in title)
        np.testing.assert_allclose(feature.images[0].get_array(), x[0, channel])

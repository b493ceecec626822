import numpy as np

from tests.pictures.drawing import panels_of, results


def test_channels_at_both_ends_and_between_stand_above_their_gates():
    x, run = results("bam")
    order = np.argsort(-run.attention["channel_branch"][0])
    titled = {axes.get_title(): axes for axes in panels_of("bam").axes if axes.images}
    for channel in order[[0, len(order) // 4, -1]]:
        of_channel = [axes for title, axes in titled.items() if title.startswith(f"{channel}: ")]
        feature, gates = sorted(of_channel, key=lambda axes: "times" in axes.get_title())
        np.testing.assert_allclose(feature.images[0].get_array(), x[0, channel])
        np.testing.assert_allclose(gates.images[0].get_array(), run.attention["gates"][0, channel])


def test_both_branches_are_shown_with_their_signs():
    _, run = results("bam")
    titled = {axes.get_title(): axes for axes in panels_of("bam").axes}
    bars = [bar.get_height() for bar in titled["channel branch c"].patches]
    np.testing.assert_allclose(bars, sorted(run.attention["channel_branch"][0], reverse=True))
    spatial = titled["spatial branch s"].images[0]
    np.testing.assert_allclose(spatial.get_array(), run.attention["spatial_branch"][0, 0])
    assert spatial.norm.vmin == -spatial.norm.vmax

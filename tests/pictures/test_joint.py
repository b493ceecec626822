import numpy as np

from tests.pictures.drawing import CATALOGUE, SEED, scene, shown, size_of


def seen():
    return scene.make_scene(CATALOGUE["bam"].example(), SEED, None, size_of("bam"))


def test_channels_at_both_ends_and_in_the_middle_stand_above_their_gates():
    run, x = seen().run, seen().x[0]
    order = np.argsort(-run.attention["channel_branch"][0])
    titled = {axes.get_title(): axes for axes in shown("bam")[0].axes if axes.images}
    for channel in order[[0, len(order) // 2, -1]]:
        of_channel = [axes for title, axes in titled.items() if title.startswith(f"{channel}: ")]
        feature, gates = sorted(of_channel, key=lambda axes: "times" in axes.get_title())
        np.testing.assert_allclose(feature.images[0].get_array(), x[channel])
        np.testing.assert_allclose(gates.images[0].get_array(), run.attention["gates"][0, channel])


def test_both_branches_are_shown_with_their_signs():
    attention = seen().run.attention
    titled = {axes.get_title(): axes for axes in shown("bam")[0].axes}
    bars = [bar.get_height() for bar in titled["channel branch c"].patches]
    np.testing.assert_allclose(bars, sorted(attention["channel_branch"][0], reverse=True))
    spatial = titled["spatial branch s"].images[0]
    np.testing.assert_allclose(spatial.get_array(), attention["spatial_branch"][0, 0])
    assert spatial.norm.vmin == -spatial.norm.vmax

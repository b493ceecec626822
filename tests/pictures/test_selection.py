import numpy as np
import pytest

from tests.pictures.drawing import panels_of, results

pytest.importorskip("npattn.pictures.selection")


@pytest.mark.parametrize("key", ["sk", "split"])
def test_every_channels_bar_is_cut_as_it_chooses(key):
    figure = panels_of(key)
    [axes] = [axes for axes in figure.axes if axes.get_title().startswith("how much of each branch")]
    _, run = results(key)
    order = [int(label.get_text()) for label in axes.get_xticklabels()]
    weights = run.attention["branch_weights"][0]
    for bars, share in zip(axes.containers, weights, strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in bars], share[order])
    assert (np.diff(weights[0][order]) <= 0).all()


@pytest.mark.parametrize("key", ["sk", "split"])
def test_branches_of_a_channel_times_their_weights_add_up_to_the_sum_beside_them(key):
    figure = panels_of(key)
    _, run = results(key)
    images = [axes for axes in figure.axes if axes.images]
    sums = [axes for axes in images if axes.get_title().endswith("their sum")]
    assert len(sums) == 2
    for whole in sums:
        channel = int(whole.get_title().partition(":")[0])
        parts = [axes for axes in images if axes.get_title().startswith(f"{channel}: ") and "times" in axes.get_title()]
        maps = [axes.images[0].get_array() for axes in parts[:2]]
        mixed = sum(a * u for a, u in zip(run.attention["branch_weights"][0, :, channel], maps, strict=True))
        np.testing.assert_allclose(whole.images[0].get_array(), mixed, rtol=1e-12)
        np.testing.assert_allclose(whole.images[0].get_array(), run.output[0, channel])

import numpy as np
import pytest

from tests.pictures.drawing import figure_of, results, size_of


def test_picture_of_a_context_shows_every_channels_beside_its_average():
    pytest.importorskip("npattn.pictures.context")
    [axes] = [axes for axes in figure_of("gc").axes if axes.get_title().startswith("what is gathered")]
    x, _ = results("gc")
    order = [int(label.get_text()) for label in axes.get_xticklabels()]
    assert sorted(order) == list(range(x.shape[1]))
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], x[0].mean(axis=(1, 2))[order])
    context, average = axes.lines[0].get_ydata(), np.array([bar.get_height() for bar in axes.patches])
    assert (np.diff(context - average) <= 1e-12).all()
    assert (x[0].min(axis=(1, 2))[order] <= context).all()
    assert (context <= x[0].max(axis=(1, 2))[order]).all()


def test_the_weights_of_a_context_are_as_sharp_as_those_of_a_score():
    pytest.importorskip("npattn.pictures.context")
    titles = [axes.get_title() for axes in figure_of("gc", 3).axes]
    [half] = [title for title in titles if title.startswith("weights a: half on ")]
    assert int(half.split()[4]) == pytest.approx(0.01 * np.prod(size_of("gc")), rel=0.1)

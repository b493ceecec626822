import numpy as np
import pytest

from tests.pictures.drawing import panels_of, results


def test_each_share_is_that_of_the_memory_that_it_is_called_by():
    pytest.importorskip("npattn.pictures.memories")
    figure = panels_of("external")
    shares = results("external")[1].attention["memory"][0]
    drawn = [axes for axes in figure.axes if axes.get_title().startswith("memory ")]
    assert len(drawn) == 3
    spread = [shares[int(axes.get_title().split()[1].rstrip(":"))].std() for axes in drawn]
    assert spread == sorted(shares.std(axis=(1, 2)))[:-4:-1]
    for axes in drawn:
        memory = shares[int(axes.get_title().split()[1].rstrip(":"))]
        np.testing.assert_allclose(axes.images[0].get_array(), memory)


def test_the_legend_says_how_much_of_the_map_has_most_of_each_memory():
    pytest.importorskip("npattn.pictures.memories")
    [axes] = [axes for axes in panels_of("external").axes if axes.get_title() == "the largest share"]
    largest = results("external")[1].attention["memory"][0].argmax(axis=0)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    expected = {f"memory {k}, {np.mean(largest == k):.0%}" for k in range(5)}
    assert set(texts) == expected

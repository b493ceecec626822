import numpy as np
import pytest

from tests.pictures.drawing import panels_of, results


def test_every_plane_is_drawn_with_its_axes_named():
    pytest.importorskip("npattn.pictures.planes")
    figure = panels_of("triplet")
    gates = {name: gate[0] for name, gate in results("triplet")[1].attention.items()}
    expected = {
        "gate of channel, column": (gates["cw"][:, 0], "channel", "column"),
        "gate of row, channel": (gates["hc"][:, :, 0].T, "row", "channel"),
    }
    for title, (gate, down, across) in expected.items():
        [axes] = [axes for axes in figure.axes if axes.get_title() == title]
        np.testing.assert_allclose(axes.images[0].get_array(), gate)
        assert (axes.get_ylabel(), axes.get_xlabel()) == (down, across)
    [axes] = [axes for axes in figure.axes if axes.get_title() == "gate of position"]
    np.testing.assert_allclose(axes.images[0].get_array(), gates["hw"][0])


def test_planes_are_marked_by_whole_numbers_that_have_room_beside_each_other():
    pytest.importorskip("npattn.pictures.planes")
    for title in ("gate of channel, column", "gate of row, channel"):
        [axes] = [axes for axes in panels_of("triplet").axes if axes.get_title() == title]
        for axis in (axes.xaxis, axes.yaxis):
            places = axis.get_majorticklocs()
            assert len(places) <= 7
            np.testing.assert_array_equal(places, np.round(places))

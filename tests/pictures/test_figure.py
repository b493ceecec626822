import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import npattn
from npattn import CATALOGUE, ChannelAttention, Residual, cli
from tests.pictures.drawing import SEED, figure_of, panels, pixels_of, scene, shown, size_of

matplotlib = pytest.importorskip("matplotlib")
image = pytest.importorskip("matplotlib.image")
pictures = pytest.importorskip("npattn.pictures")


agg = pytest.importorskip("matplotlib.backends.backend_agg")

ALIKE = {
    "eca": "se",
    "flexible": "se",
    "cbam-channel": "se",
    "residual": "se",
    "shuffle": "simam",
    "linear": "double",
    "split": "sk",
}
"""Systems whose pictures have the panels of another's, one below the other: where those are seen, so are these."""
every_system = pytest.mark.parametrize("key", CATALOGUE)
every_picture = pytest.mark.parametrize("key", [key for key in CATALOGUE if key not in ALIKE])


@pytest.mark.parametrize("key", ALIKE)
def test_pictures_that_are_alike_have_the_same_panels(key):
    def panels_of(system):
        module = CATALOGUE[system].example()
        return pictures.figure.choose_panels(scene.make_scene(module, SEED, None, size_of(system)))

    assert panels_of(key) == panels_of(ALIKE[key])


@every_picture
def test_a_picture_is_wide_enough_to_read(key):
    figure, pixels = shown(key)
    assert pixels.shape[1] >= 1200
    assert pixels.shape == (*(figure.get_size_inches() * figure.dpi).round()[::-1], 4)


def test_show_writes_as_png_what_is_drawn(folder):
    key = "sliding-window"  # which is quickly drawn
    assert cli.main(["show", key, "--seed", str(SEED)]) == 0
    assert [path.name for path in folder.iterdir()] == [f"{key}.png"]
    written = image.imread(f"{key}.png")
    _, pixels = shown(key)
    assert written.shape == pixels.shape
    assert np.mean(np.abs(written - pixels).max(axis=-1) > 0.01) < 1e-3


def test_same_seed_gives_the_same_pixels_and_another_seed_others():
    key = "sliding-window"  # which is quickly drawn
    first, other = (pixels for _, pixels in (shown(key), shown(key, SEED + 1)))
    again = pixels_of(figure_of.__wrapped__(key))
    np.testing.assert_array_equal(again, first)
    below_title = np.abs(other - first)[100:].max(axis=-1)
    assert np.mean(below_title > 0.1) > 0.01


@every_picture
def test_no_panel_is_blank(key):
    cut = list(panels(*shown(key)))
    assert len(cut) >= 6
    for panel in cut:
        assert panel.size > 1000
        colours = np.rint(255 * panel[::3, ::3, :3]) @ [1 << 16, 1 << 8, 1]
        assert len(np.unique(colours)) > 2
        assert panel[..., :3].std(axis=(0, 1)).max() > 0.05


@every_picture
def test_no_panel_hides_another_and_all_lie_within_the_picture(key):
    figure, pixels = shown(key)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= pixels.shape[1]
        assert 0 <= box.y0 < box.y1 <= pixels.shape[0]
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@every_picture
def test_no_text_is_cut_off(key):
    _, pixels = shown(key)
    for border in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (border == 1).all()  # what is cut off reaches it


@every_system
def test_picture_names_paper_and_seed(key):
    title = figure_of(key).get_suptitle()
    assert CATALOGUE[key].paper.title in title
    assert CATALOGUE[key].paper.citation in title
    assert f"seed {SEED}" in title


@every_system
def test_the_title_is_no_wider_than_the_picture(key):
    figure = figure_of(key)
    box = figure._suptitle.get_window_extent(agg.FigureCanvasAgg(figure).get_renderer())
    assert figure.bbox.x0 < box.x0 < box.x1 < figure.bbox.x1


def test_picture_of_a_residual_shows_the_system_within():
    figure = pictures.draw(Residual(Residual(ChannelAttention(6))), SEED)
    assert "Residual round ChannelAttention" in figure.get_suptitle()
    assert any(axes.get_title().startswith("affinity") for axes in figure.axes)


def test_svg_is_well_formed_and_holds_every_map(folder):
    assert cli.main(["show", "cbam-spatial", "-o", "a.svg"]) == 0
    root = ElementTree.parse("a.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{http://www.w3.org/2000/svg}image")) >= 6


def test_drawing_leaves_matplotlibs_global_state_alone(folder, monkeypatch):
    for name in list(sys.modules):  # as in a process that has imported neither
        if name == "matplotlib.pyplot" or name.startswith("npattn.pictures"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(npattn, "pictures")
    before = matplotlib.rcParams.copy()
    assert cli.main(["show", "sliding-window"]) == 0
    assert "matplotlib.pyplot" not in sys.modules
    assert matplotlib.rcParams.copy() == before

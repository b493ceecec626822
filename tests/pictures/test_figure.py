import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import npattn
from npattn import CATALOGUE, ChannelAttention, Residual, cli
from tests.pictures import drawing
from tests.pictures.drawing import SEED, assert_well_laid_out, figure_of, pixels_of, scene_of, shown

matplotlib = pytest.importorskip("matplotlib")
image = pytest.importorskip("matplotlib.image")
pictures = pytest.importorskip("npattn.pictures")


Text = pytest.importorskip("matplotlib.text").Text
agg = pytest.importorskip("matplotlib.backends.backend_agg")
catalogue = pytest.importorskip("npattn.pictures.pages.catalogue")

LARGE = "cbam", "danet"
"""Systems whose pictures are looked at as large as they are: of others the panels are, on the pages (test_pages)."""
every_system = pytest.mark.parametrize("key", CATALOGUE)


@pytest.fixture(scope="module", params=LARGE)
def large(request):
    """A large picture: the figure, and its pixels."""
    return shown(request.param)


def test_every_panel_is_looked_at_in_a_large_picture_or_on_a_page():
    def panels_of(key):
        return [panel for panel, _ in pictures.figure.choose_panels(scene_of(key))]

    on_pages = [key for key in CATALOGUE if key not in catalogue.SHOWN_ELSEWHERE]
    seen = {panel for key in on_pages for panel in panels_of(key)[-catalogue.NUMS_PANELS.get(key, 1) :]}
    seen |= {panel for key in LARGE for panel in panels_of(key)}
    for key in CATALOGUE:
        assert seen.issuperset(panels_of(key)), key


def test_a_picture_is_wide_enough_to_read(large):
    figure, pixels = large
    assert pixels.shape[1] >= 1200
    assert pixels.shape == (*(figure.get_size_inches() * figure.dpi).round()[::-1], 4)


def test_large_pictures_are_well_laid_out(large):
    assert_well_laid_out(*large)


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
    assert f"seed {SEED + 1}" in shown(key, SEED + 1)[0].get_suptitle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "set_scene", drawing.set_scene.__wrapped__)
        again = pixels_of(figure_of.__wrapped__(key))
    np.testing.assert_array_equal(again, first)
    below_title = np.abs(other - first)[100:].max(axis=-1)
    assert np.mean(below_title > 0.1) > 0.01


@every_system
def test_picture_names_paper_and_seed(key):
    title = pictures.figure.title_of(scene_of(key))
    assert CATALOGUE[key].paper.title in title
    assert CATALOGUE[key].paper.citation in title
    assert f"seed {SEED}" in title


@every_system
def test_no_title_is_wider_than_the_picture(key):
    figure = figure_of(LARGE[0])
    text = Text(text=pictures.figure.title_of(scene_of(key)), fontsize=figure._suptitle.get_fontsize(), figure=figure)
    assert text.get_window_extent(agg.FigureCanvasAgg(figure).get_renderer()).width < 0.99 * figure.bbox.width


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

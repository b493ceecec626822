import functools
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from npattn import CATALOGUE, cli
from npattn.data import photo_features, photograph

matplotlib = pytest.importorskip("matplotlib")
image = pytest.importorskip("matplotlib.image")
agg = pytest.importorskip("matplotlib.backends.backend_agg")
picture = pytest.importorskip("npattn.picture")

every_system = pytest.mark.parametrize("key", CATALOGUE)
SEED = 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@functools.cache
def rendered(key, seed=SEED):
    """A system's figure, and its pixels from 0 to 1."""
    figure = picture.draw(CATALOGUE[key].example(), seed)
    canvas = agg.FigureCanvasAgg(figure)
    canvas.draw()
    return figure, np.asarray(canvas.buffer_rgba()) / 255.0


def panels(figure, pixels):
    """Cut out what stands inside each pair of axes."""
    for axes in figure.axes:
        left, bottom, right, top = np.rint(axes.get_window_extent().extents).astype(int)
        yield pixels[len(pixels) - top : len(pixels) - bottom, left:right]


@pytest.fixture
def plain(monkeypatch):
    """Let a picture be something that is quickly drawn."""

    def draw(module, seed):
        figure = matplotlib.figure.Figure(figsize=(2, 1))
        figure.subplots().plot([0, 1])
        return figure

    monkeypatch.setattr(picture, "draw", draw)


@every_system
def test_show_writes_the_pixels_that_belong_to_system_and_seed(key, folder, capsys):
    assert cli.main(["show", key, "--seed", str(SEED)]) == 0
    assert capsys.readouterr() == (f"{key}.png\n", "")
    assert [path.name for path in folder.iterdir()] == [f"{key}.png"]
    pixels = image.imread(f"{key}.png")
    assert pixels.shape[1] >= 1200
    assert pixels.shape[0] >= 700
    np.testing.assert_allclose(pixels, rendered(key)[1], atol=1e-6)


def test_another_seed_gives_another_picture_below_the_title():
    key = next(iter(CATALOGUE))
    first, second = (pixels[100:] for _, pixels in (rendered(key), rendered(key, SEED + 1)))
    assert np.mean(np.abs(first - second).max(axis=-1) > 0.1) > 0.01


@every_system
def test_no_panel_is_blank(key):
    cut = list(panels(*rendered(key)))
    assert len(cut) >= 6
    for panel in cut:
        assert panel.size > 1000
        colours = np.unique(panel.reshape(-1, 4), axis=0)
        assert len(colours) > 2
        assert panel[..., :3].std(axis=(0, 1)).max() > 0.05


@every_system
def test_no_panel_hides_another_and_all_lie_within_the_picture(key):
    figure, pixels = rendered(key)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= pixels.shape[1]
        assert 0 <= box.y0 < box.y1 <= pixels.shape[0]
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@every_system
def test_no_text_is_cut_off(key):
    figure, _ = rendered(key)
    box = figure.get_tightbbox()  # in inches, round all that is drawn
    width, height = figure.get_size_inches()
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height


@every_system
def test_picture_names_paper_and_seed(key):
    title = rendered(key)[0].get_suptitle()
    assert CATALOGUE[key].paper.title in title
    assert CATALOGUE[key].paper.citation in title
    assert f"seed {SEED}" in title


@every_system
def test_picture_shows_the_photograph_and_the_strength_of_its_features(key):
    first, before, after, _ = (axes.images[0].get_array() for axes in rendered(key)[0].axes[:4])
    np.testing.assert_array_equal(first, photograph())
    module = CATALOGUE[key].example()
    x = photo_features(module.channels, *picture.SIZE)
    y = module(module.init(SEED, generic=True), x).output
    for shown, features in ((before, x), (after, y)):
        np.testing.assert_allclose(shown, np.sqrt((features**2).mean(axis=(0, 1))), rtol=1e-12)


@every_system
def test_bars_end_at_the_gates_in_falling_order(key):
    module = CATALOGUE[key].example()
    run = module(module.init(SEED, generic=True), photo_features(module.channels, *picture.SIZE))
    gates = run.attention["channel"][0]
    figure = rendered(key)[0]
    (above,) = (axes for axes in figure.axes if axes.get_ylabel() == "gate a")
    (below,) = (axes for axes in figure.axes if axes.get_xlabel().startswith("channel"))
    ends = [bar.get_y() + bar.get_height() for bar in above.patches]
    np.testing.assert_allclose(ends, np.sort(gates)[::-1], rtol=1e-12)
    labels = [int(label.get_text()) for label in below.get_xticklabels()]
    np.testing.assert_array_equal(gates[labels], np.sort(gates)[::-1])


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("eca.png", b"\x89PNG\r\n"),
        ("eca.PNG", b"\x89PNG\r\n"),
        ("eca.pdf", b"%PDF-"),
        ("eca.jpg", b"\xff\xd8\xff"),
        ("eca.jpeg", b"\xff\xd8\xff"),
        ("eca.svg", b"<?xml"),
        ("of a cat.v2.svg", b"<?xml"),
    ],
)
def test_name_decides_the_format(name, start, plain, folder, capsys):
    assert cli.main(["show", "eca", "-o", name]) == 0
    assert capsys.readouterr() == (f"{name}\n", "")
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_bytes().startswith(start)


def test_svg_is_well_formed_and_holds_every_map(folder):
    assert cli.main(["show", "eca", "-o", "eca.svg"]) == 0
    root = ElementTree.parse("eca.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{http://www.w3.org/2000/svg}image")) >= 6


def test_force_replaces_a_picture(plain, folder):
    (folder / "eca.png").write_bytes(b"old")
    assert cli.main(["show", "eca", "--force"]) == 0
    assert image.imread("eca.png").shape[2] == 4
    assert [path.name for path in folder.iterdir()] == ["eca.png"]


def test_drawing_leaves_matplotlibs_global_state_alone(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    before = matplotlib.rcParams.copy()
    assert cli.main(["show", "eca"]) == 0
    assert "matplotlib.pyplot" not in sys.modules
    assert matplotlib.rcParams.copy() == before

import functools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from npattn import (
    CATALOGUE,
    ChannelAttention,
    DualAttentionHead,
    PositionAttention,
    Residual,
    cli,
)
from npattn.data import photo_features, photograph

matplotlib = pytest.importorskip("matplotlib")
image = pytest.importorskip("matplotlib.image")
picture = pytest.importorskip("npattn.picture")

every_system = pytest.mark.parametrize("key", CATALOGUE)
SEED = 3
COARSE, PAIRING = (50, 75), ("pam", "danet", "mhsa", "pcm")
"""A quarter of the positions, on which systems that pair positions are drawn in a sixteenth of the time."""


def results(key, height, width):
    """Run a system as the picture does: the features, and the pass."""
    module = CATALOGUE[key].example()
    inputs = picture.photo_inputs(module, (height, width), SEED)
    return next(iter(inputs.values())), module(module.init(SEED, generic=True), *inputs.values())


SMALL = {key: results(key, 8, 8) for key in CATALOGUE}
MAPS = [
    key
    for key, (x, run) in SMALL.items()
    if "x" in CATALOGUE[key].example().input_shapes(1, 1, 1) and getattr(run.output, "shape", None) == x.shape
    if key not in PAIRING  # whose maps before and after are drawn as those of the others
]
GATES = [key for key, (_, run) in SMALL.items() if "channel" in run.attention]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@functools.cache
def shown(key, seed=SEED):
    """Run show: the figure that it drew, and the pixels from 0 to 1 of the PNG that it wrote."""
    figures, draw = [], picture.draw

    def record(*arguments):
        figures.append(draw(*arguments))
        return figures[-1]

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture, "draw", record)
        if key in PAIRING:
            patch.setattr(picture, "SIZE", COARSE)
        patch.chdir(folder)
        assert cli.main(["show", key, "--seed", str(seed)]) == 0
        assert [path.name for path in Path().iterdir()] == [f"{key}.png"]
        return *figures, image.imread(f"{key}.png")


def panels(figure, pixels):
    """Cut out what stands inside each pair of axes."""
    for axes in figure.axes:
        left, bottom, right, top = np.rint(axes.get_window_extent().extents).astype(int)
        yield pixels[len(pixels) - top : len(pixels) - bottom, left:right]


@pytest.fixture
def plain(monkeypatch):
    """Let a picture be something that is quickly drawn."""

    def draw(module, seed, at=None):
        figure = matplotlib.figure.Figure(figsize=(2, 1))
        figure.subplots().plot([0, 1])
        return figure

    monkeypatch.setattr(picture, "draw", draw)


@every_system
def test_show_writes_a_png_that_is_wide_enough_to_read(key):
    figure, pixels = shown(key)
    assert pixels.shape[1] >= 1200
    assert pixels.shape == (*(figure.get_size_inches() * figure.dpi).round()[::-1], 4)


def test_same_seed_gives_the_same_pixels_and_another_seed_others():
    first, again, other = (pixels for _, pixels in (shown("eca"), shown.__wrapped__("eca"), shown("eca", SEED + 1)))
    np.testing.assert_array_equal(again, first)
    below_title = np.abs(other - first)[100:].max(axis=-1)
    assert np.mean(below_title > 0.1) > 0.01


@every_system
def test_no_panel_is_blank(key):
    cut = list(panels(*shown(key)))
    assert len(cut) >= 6
    for panel in cut:
        assert panel.size > 1000
        colours = np.rint(255 * panel[..., :3]) @ [1 << 16, 1 << 8, 1]
        assert len(np.unique(colours)) > 2
        assert panel[..., :3].std(axis=(0, 1)).max() > 0.05


@every_system
def test_no_panel_hides_another_and_all_lie_within_the_picture(key):
    figure, pixels = shown(key)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= pixels.shape[1]
        assert 0 <= box.y0 < box.y1 <= pixels.shape[0]
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@every_system
def test_no_text_is_cut_off(key):
    figure, _ = shown(key)
    box = figure.get_tightbbox()  # in inches, round all that is drawn
    width, height = figure.get_size_inches()
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height


@every_system
def test_picture_names_paper_and_seed(key):
    title = shown(key)[0].get_suptitle()
    assert CATALOGUE[key].paper.title in title
    assert CATALOGUE[key].paper.citation in title
    assert f"seed {SEED}" in title


@pytest.mark.parametrize("key", MAPS)
def test_picture_of_a_system_that_changes_the_map_shows_its_strength_before_and_after(key):
    x, run = results(key, *picture.SIZE)
    first, before, after, _ = (axes.images[0].get_array() for axes in shown(key)[0].axes[:4])
    np.testing.assert_array_equal(first, photograph())
    for drawn, features in ((before, x), (after, run.output)):
        np.testing.assert_allclose(drawn, np.sqrt((features**2).mean(axis=(0, 1))), rtol=1e-12)


@pytest.mark.parametrize("key", GATES)
def test_bars_end_at_the_gates_of_the_channels_in_falling_order(key):
    (gates,) = results(key, *picture.SIZE)[1].attention["channel"]
    figure = shown(key)[0]
    (above,) = (axes for axes in figure.axes if axes.get_ylabel() == "gate a")
    (below,) = (axes for axes in figure.axes if axes.get_xlabel().startswith("channel"))
    ends = [bar.get_y() + bar.get_height() for bar in above.patches]
    np.testing.assert_allclose(ends, np.sort(gates)[::-1], rtol=1e-12)
    labels = [int(label.get_text()) for label in below.get_xticklabels()]
    np.testing.assert_array_equal(gates[labels], np.sort(gates)[::-1])


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_heat_map_of_affinities_names_its_rows_and_columns_and_the_pairs_at_both_ends(variant):
    module = ChannelAttention(12, variant)
    x = photo_features(12, *picture.SIZE)
    affinity = module(module.init(SEED, generic=True), x).attention["affinity"][0]
    figure = picture.draw(module, SEED)
    (axes,) = (axes for axes in figure.axes if axes.get_title().startswith("affinity"))
    rows, columns = (
        [int(label.get_text()) for label in labels] for labels in (axes.get_yticklabels(), axes.get_xticklabels())
    )
    assert sorted(rows) == sorted(columns) == list(range(12))
    np.testing.assert_array_equal(axes.images[0].get_array(), affinity[np.ix_(rows, columns)])
    titles = [axes.get_title().split()[:6] for axes in figure.axes if " takes in " in axes.get_title()][1:]
    most, least = (affinity[int(words[0]), int(words[5])] for words in titles)
    assert [words[3] for words in titles] == ["most", "least"]
    np.testing.assert_allclose(most, affinity[~np.eye(12, dtype=bool)].max(), rtol=1e-14)
    assert least == affinity.min()


def test_every_rate_is_drawn_with_its_taps_and_its_answer():
    figure = shown("multi-scale")[0]
    module = replace(CATALOGUE["multi-scale"].example(), rates=picture.LARGE["rates"])
    answers = module(module.init(SEED, generic=True), photo_features(module.channels, *picture.SIZE)).attention
    by_title = {axes.get_title(): axes for axes in figure.axes}
    for i, title in enumerate(["1×1", *(f"3×3 at rate {rate}" for rate in module.rates)]):
        np.testing.assert_array_equal(by_title[title].images[0].get_array(), answers["branches"][0, i])
    for rate, line in zip(module.rates, by_title["what the eye's position reads"].lines, strict=True):
        columns, rows = (np.unique(values) for values in line.get_data())
        for middle, found in zip(picture.EYE, (rows, columns), strict=True):
            np.testing.assert_array_equal(found, middle + 2 * rate * np.array([-1, 0, 1]))


def looks(figure):
    """The panels that show where a pixel looks, by the pixel that is marked in them."""
    drawn = [axes for axes in figure.axes if axes.get_title().startswith("from row")]
    marks = [tuple(float(end[0]) for end in axes.lines[0].get_data()) for axes in drawn]
    return {(row, column): axes for (column, row), axes in zip(marks, drawn, strict=True)}


@pytest.mark.parametrize("at", [(0, 0), (199, 299), (101, 7)])
def test_the_pixel_asked_for_is_marked_and_what_it_looks_at_shines(at, monkeypatch):
    monkeypatch.setattr(picture, "SIZE", COARSE)
    small = PositionAttention(channels=2)  # the features before and after are not the matter here
    drawn = looks(picture.draw(small, SEED, at))
    assert list(drawn) == [at, *picture.OTHERS]
    title, (photo, heat) = drawn[at].get_title(), drawn[at].images
    assert title.startswith(f"from row {at[0]}, column {at[1]}\n")
    np.testing.assert_array_equal(photo.get_array(), photograph().mean(axis=2))
    assert heat.get_array().shape == photograph().shape[:2]
    shine = np.asarray(heat.get_array())
    assert shine[at] > np.quantile(shine, 0.98)  # itself looks like itself


def test_without_a_wish_attention_is_drawn_from_the_eye():
    drawn = looks(shown("pam")[0])
    assert list(drawn) == [picture.EYE, *picture.OTHERS]
    heat = drawn[picture.EYE].images[1].get_array()
    assert 0.01 < np.mean(heat > 0.5) < 0.2


def test_show_passes_the_pixel_on(folder, monkeypatch):
    asked = []

    def draw(module, seed, at):
        asked.append(at)
        return matplotlib.figure.Figure(figsize=(2, 1))

    monkeypatch.setattr(picture, "draw", draw)
    assert cli.main(["show", "pam", "--at", "3,299"]) == 0
    assert cli.main(["show", "pam", "--force"]) == 0
    assert asked == [(3, 299), None]


def test_every_head_has_a_row_of_its_own_looks():
    figure, _ = shown("mhsa")
    drawn = [axes for axes in figure.axes if axes.get_title().startswith("from row")]
    pixels = [picture.EYE, *picture.OTHERS]
    expected = [f"from row {row}, column {column}, head {head}" for head in (1, 2) for row, column in pixels]
    assert [axes.get_title().partition("\n")[0] for axes in drawn] == expected
    heights = [axes.get_position().y0 for axes in drawn]
    assert min(heights[:5]) > max(heights[5:]) + 0.1
    first, second = (np.asarray(axes.images[1].get_array()) for axes in drawn[::5])
    assert np.abs(first - second).mean() > 0.01


def test_blocks_count_the_draws_and_the_probability_that_falls_on_them():
    axes = shown("hard")[0].axes
    expected, drawn = (next(a for a in axes if a.get_title().startswith(title)) for title in ("expected", "drawn"))
    expected, drawn = (np.asarray(a.images[0].get_array()) for a in (expected, drawn))
    assert expected.sum() == pytest.approx(1000)
    assert drawn.sum() == 1000
    assert np.sum((drawn - expected) ** 2 / expected) < 300  # chi-square of 150 blocks


def test_as_many_positions_are_marked_as_are_chosen():
    drawn = [axes for axes in shown("soft-hard")[0].axes if axes.get_title().startswith("k = ")]
    for axes in drawn:
        k = int(axes.get_title().split()[2].rstrip(":"))
        assert len(axes.collections[0].get_offsets()) == k
    assert len(drawn) == 5


@pytest.mark.parametrize("spread", [0.01, 1, 100])
def test_scores_are_sharpened_until_half_of_the_weight_is_on_a_hundredth(spread):
    scores = spread * np.random.RandomState(0).standard_normal(15_000)
    weights = np.exp(picture.sharpness(scores) * (scores - scores.max()))
    assert picture.share(weights) == pytest.approx(picture.HALF, rel=0.2)


def test_half_of_the_weight_is_counted_from_the_largest():
    assert picture.share(np.ones(10)) == pytest.approx(0.5, abs=0.11)
    assert picture.share(np.eye(8)[3]) == 1 / 8
    assert picture.share(np.array([0.1, 0.6, 0.1, 0.2])) == 1 / 4


def test_a_channel_that_is_blank_is_not_shown_among_those_that_take_in_most_and_least(monkeypatch):
    def partly_blank(*shape):
        features = photo_features(*shape)
        features[0, [0, 5]] = 0
        return features

    monkeypatch.setattr(picture, "photo_features", partly_blank)
    figure = picture.draw(ChannelAttention(7), SEED)
    titles = [axes.get_title() for axes in figure.axes if " takes in " in axes.get_title()]
    named = {int(words[i]) for words in map(str.split, titles[1:]) for i in (0, 5)}
    assert len(titles) == 3
    assert named <= {1, 2, 3, 4, 6}


def test_statistics_of_the_photograph_give_in_inference_what_training_gives():
    module = DualAttentionHead(in_channels=16, classes=5, dropout=0.0)
    x, params = photo_features(16, *COARSE), module.init(SEED, generic=True)
    prepared = picture.with_photo_statistics(module, params, x)
    masks = [np.ones((1, 4))] * 3
    expected = replace(module, training=True)(params, x, *masks).output
    for y, exact in zip(module(prepared, x).output, expected, strict=True):
        np.testing.assert_allclose(y, exact, atol=1e-3 * np.abs(exact).max())


def test_picture_of_a_head_names_the_classes_and_what_each_branch_makes_of_them():
    titles = [axes.get_title() for axes in shown("danet")[0].axes]
    assert titles[:2] == ["photograph", "both branches"]
    agreeing = [int(title.split("\n")[1].partition("%")[0]) for title in titles[2:4]]
    assert all(20 < share < 100 for share in agreeing)  # five classes by chance agree on a fifth
    assert list(looks(shown("danet")[0])) == [picture.EYE, *picture.OTHERS]


def test_picture_of_a_residual_shows_the_system_within():
    figure = picture.draw(Residual(Residual(ChannelAttention(6))), SEED)
    assert "Residual round ChannelAttention" in figure.get_suptitle()
    assert any(axes.get_title().startswith("affinity") for axes in figure.axes)


def test_from_one_eye_pixel_correlation_finds_the_other_and_leaves_the_background_out():
    figure = shown("pcm")[0]
    titles = [axes.get_title() for axes in figure.axes]
    (place,) = (i for i, title in enumerate(titles) if title.startswith("coarse map: one eye"))
    refined = next(
        np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.get_title().startswith("refined")
    )
    coarse = np.asarray(figure.axes[place].images[0].get_array())
    step = len(photograph()) // len(coarse)
    other, background = (
        np.s_[row // step - 2 : row // step + 3, column // step - 2 : column // step + 3]
        for row, column in (picture.OTHERS[0], picture.COARSE["background"])
    )
    assert coarse[other].max() < np.quantile(coarse, 0.99)
    assert np.mean(refined[other]) > np.quantile(refined, 0.9) > np.median(refined) > np.mean(refined[background])


def test_one_channel_alone_has_a_picture():
    assert picture.draw(ChannelAttention(1), SEED).axes


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
    for name in ("matplotlib.pyplot", "npattn.picture"):  # as in a process that has imported neither
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = matplotlib.rcParams.copy()
    assert cli.main(["show", "eca"]) == 0
    assert "matplotlib.pyplot" not in sys.modules
    assert matplotlib.rcParams.copy() == before

"""The pictures of the pages are what their command draws, and small."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.pictures.drawing import assert_well_laid_out, page_of

matplotlib = pytest.importorskip("matplotlib")
image = pytest.importorskip("PIL.Image")
pages = pytest.importorskip("npattn.pictures.pages")
catalogue = pytest.importorskip("npattn.pictures.pages.catalogue")

DERIVATIONS = Path(__file__).parents[2] / "derivations"
MEASURED = "training", "training_attention"  # drawn by the program that trained
FILES = sorted(path for path in (DERIVATIONS / "pictures").glob("*") if path.stem not in MEASURED)
NEARLY_WHITE = {"equivariance": {"contrast": 0.001}}
"""Where a panel shows that something vanishes."""
MOST_BYTES = 60_000
CELL = 20
"""Pixels along each side of what is compared: a letter that another version draws otherwise changes it little."""
ALIKE = 0.12
"""How far pictures may be apart that two versions of matplotlib draw of the same: they lay panels out otherwise."""
DRAWN_BY = "3.11."
"""The version of matplotlib that drew the files."""
SAME = 0.04
"""How far a cell may be from what that version draws: a label that changes, or a panel that moves, shows in one."""


def kept(path):
    """The pixels of a file, from 0 to 1."""
    with image.open(path) as file:
        return np.asarray(file.convert("RGB")) / 255


def as_in_file(path, pixels):
    """Pixels in as few colours as the file has, from 0 to 1."""
    with image.open(path) as file:
        colours = len(file.getpalette()) // 3
    drawn = image.fromarray(pixels).quantize(colours, dither=image.Dither.NONE)
    return np.asarray(drawn.convert("RGB")) / 255


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def page(request):
    """A picture as it is drawn today: its file, the figure, and the pixels."""
    figure = page_of(request.param.stem)
    return request.param, figure, catalogue.pixels_of(figure)


def ink(pixels):
    """How much each cell differs from white paper, by colours."""
    rows, columns = (length // CELL for length in pixels.shape[:2])
    cells = pixels[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL, 3)
    return 1 - cells.mean(axis=(1, 3))


def distance(one, other):
    """How far the inks of two pictures are apart: 0 if they are the same, 1 if nothing of one is in the other."""
    return np.abs(one - other).sum() / (one.sum() + other.sum())


def worst(one, other):
    """How far the cells are apart that differ most."""
    return np.abs(one - other).max()


def test_every_file_has_a_command_that_draws_it_and_stands_beside_it():
    assert [path.stem for path in FILES] == sorted(pages.PICTURES)
    text = "".join(path.read_text(encoding="utf-8") for path in DERIVATIONS.glob("*.md"))
    for path in FILES:
        assert f"](pictures/{path.name})" in text, path.name
        assert re.search(rf"`python -m npattn\.pictures\.pages {path.stem}`", text), path.name


def test_pictures_are_small_and_as_wide_as_a_page():
    assert {path.suffix for path in FILES} == {".png"}
    assert [path.name for path in FILES if path.stat().st_size >= MOST_BYTES] == []
    assert {kept(path).shape[1] for path in FILES} == {catalogue.WIDTH}


def test_pictures_are_what_is_drawn_today(page):
    path, _, pixels = page
    drawn, found = as_in_file(path, pixels), kept(path)
    assert np.abs(np.subtract(drawn.shape, found.shape)).max() <= 2
    drawn, found = ink(drawn[: len(found)]), ink(found[: len(drawn)])
    assert distance(drawn, found) < ALIKE
    if matplotlib.__version__.startswith(DRAWN_BY):
        assert worst(drawn, found) < SAME


def test_pictures_are_well_laid_out(page):
    path, figure, pixels = page
    assert_well_laid_out(figure, pixels / 255, **NEARLY_WHITE.get(path.stem, {}))


def test_a_label_that_is_gone_and_a_panel_that_has_moved_show_in_a_cell():
    found = kept(DERIVATIONS / "pictures" / "triplet.png")
    gone, moved = found.copy(), found.copy()
    gone[170:182, 255:275] = 1  # the last label of an axis
    moved[:, 130:325] = np.roll(moved[:, 130:325], 6, axis=1)
    for other in (gone, moved):
        assert distance(ink(other), ink(found)) < ALIKE
        assert worst(ink(other), ink(found)) > SAME


def test_pictures_of_different_things_are_told_apart():
    inks = [ink(kept(path)) for path in FILES]
    for n, one in enumerate(inks):
        for other in inks[:n]:
            if one.shape == other.shape:
                assert worst(one, other) > SAME


def test_the_command_writes_one_picture_and_refuses_to_replace_it(folder, monkeypatch, capsys):
    def run():  # as python -m does, in this process
        try:
            runpy.run_path(str(Path(pages.__file__).with_name("__main__.py")), run_name="__main__")
        except SystemExit as ended:
            return ended.code
        return 0

    monkeypatch.setattr(sys, "argv", ["pages", "efficient_channel_matrix", "-o", "matrix.png"])
    assert (run(), capsys.readouterr().out) == (0, "matrix.png\n")
    assert kept("matrix.png").shape[1] == catalogue.WIDTH
    assert run() == 2
    assert "matrix.png" in capsys.readouterr().err.splitlines()[-1]

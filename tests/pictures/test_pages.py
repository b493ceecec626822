"""The pictures of the pages are what their command draws, and small."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pages = pytest.importorskip("npattn.pictures.pages")
catalogue = pytest.importorskip("npattn.pictures.pages.catalogue")
image = pytest.importorskip("PIL.Image")

DERIVATIONS = Path(__file__).parents[2] / "derivations"
FILES = sorted((DERIVATIONS / "pictures").glob("*"))
MOST_BYTES = 60_000
CELL = 20
"""Pixels along each side of what is compared: a letter that another font draws otherwise changes it little."""


def coarse(pixels):
    """Means over cells, from 0 to 1."""
    rows, columns = (length // CELL for length in pixels.shape[:2])
    cells = pixels[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL, 3)
    return cells.mean(axis=(1, 3)) / 255


def differing(one, other):
    """How much of a picture is another: the share of cells that differ to the eye."""
    return np.mean(np.abs(coarse(one) - coarse(other)).max(axis=2) > 0.15)


def test_every_file_has_a_command_that_draws_it_and_stands_beside_it():
    assert [path.stem for path in FILES] == sorted(pages.PICTURES)
    text = "".join(path.read_text(encoding="utf-8") for path in DERIVATIONS.glob("*.md"))
    for path in FILES:
        assert f"](pictures/{path.name})" in text, path.name
        assert re.search(rf"`python -m npattn\.pictures\.pages {path.stem}`", text), path.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pictures_are_small(path):
    assert path.suffix == ".png"
    assert path.stat().st_size < MOST_BYTES
    assert image.open(path).width == catalogue.WIDTH


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pictures_are_what_is_drawn_today(path):
    drawn, kept = catalogue.draw_pixels(path.stem), np.asarray(image.open(path).convert("RGB"))
    assert np.abs(np.subtract(drawn.shape, kept.shape)).max() <= 2
    assert differing(drawn, kept) < 0.03


def test_pictures_that_differ_are_told_apart():
    kept = {path.stem: np.asarray(image.open(path).convert("RGB")) for path in FILES}
    for name, pixels in kept.items():
        for other, others in kept.items():
            if name != other and pixels.shape == others.shape:
                assert differing(pixels, others) > 0.03, (name, other)


def test_the_command_writes_one_picture_and_refuses_to_replace_it(folder):
    command = [sys.executable, "-m", "npattn.pictures.pages", "efficient_channel_matrix", "-o", "matrix.png"]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2))
    assert (first.returncode, first.stdout) == (0, "matrix.png\n")
    assert image.open("matrix.png").width == catalogue.WIDTH
    assert second.returncode == 2
    assert "matrix.png" in second.stderr.splitlines()[-1]

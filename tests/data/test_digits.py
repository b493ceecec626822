import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npattn.data import digits
from tests.naming import for_each

FOLDER = Path(str(resources.files("npattn.data")))


def test_the_digits_are_those_whose_provenance_stands_beside_them():
    images, labels = digits.handwritten_digits()
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for array, shape in ((images, (1797, 8, 8)), (labels, (1797,))):
        assert (array.shape, array.dtype) == (shape, np.uint8)
        assert hashlib.sha256(array.tobytes()).hexdigest() in page
    assert "CC BY 4.0" in page
    assert images.max() == 16
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_digits_are_a_small_file_without_pickled_objects():
    path = FOLDER / "digits.npz"
    assert path.stat().st_size <= 50_000
    with np.load(path, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["images", "labels"]


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from(["train", "test"]), st.integers(1, 3))
def test_every_labelled_pixel_has_ink_and_every_cell_at_most_one_digit(seed, split, cells):
    maps = digits.digit_maps(3, seed, split, cells=cells)
    side = 10 * cells
    assert (maps.x.shape, maps.labels.shape) == ((3, 1, side, side), (3, side, side))
    inked = maps.labels != digits.BACKGROUND
    assert (maps.x[:, 0][inked] > digits.MIN_INK - 6 * digits.NOISE_DEVIATION).all()
    for label in maps.labels:
        for cell in label.reshape(cells, 10, cells, 10).transpose(0, 2, 1, 3).reshape(-1, 100):
            found = set(cell.tolist()) - {digits.BACKGROUND}
            assert len(found) == 1 if cells == 1 else len(found) <= 1


def test_a_map_without_noise_and_clutter_is_the_digit_itself_under_its_own_label(monkeypatch):
    monkeypatch.setattr(digits, "NOISE_DEVIATION", 0)
    monkeypatch.setattr(digits, "DIGIT_SIZES", (8, 9))
    monkeypatch.setattr(digits, "clutter", lambda images, cells, random: np.zeros((10, 10)))
    classes = {image.tobytes(): int(digit) for image, digit in zip(*digits.handwritten_digits(), strict=True)}
    for x, label in zip(*digits.digit_maps(20, seed=1, cells=1), strict=True):
        ink = np.rint(16 * x[0]).astype(np.uint8)
        windows = (ink[row : row + 8, column : column + 8].tobytes() for row in range(3) for column in range(3))
        (digit,) = (classes[window] for window in windows if window in classes)
        assert set(label[x[0] > digits.MIN_INK].tolist()) == {digit}
        assert set(label[x[0] <= digits.MIN_INK].tolist()) == {digits.BACKGROUND}


def test_digits_are_of_all_sizes_and_classes_and_clutter_is_background():
    maps = digits.digit_maps(100, cells=1)
    assert set(maps.labels.min(axis=(1, 2)).tolist()) == set(range(digits.NUM_DIGITS))
    heights = {int(np.ptp(np.nonzero((label != digits.BACKGROUND).any(axis=1))[0])) + 1 for label in maps.labels}
    assert {6, 7, 8, 9, 10} <= heights
    background = maps.x[:, 0][maps.labels == digits.BACKGROUND]
    assert (background > 0.9).any()


def test_no_scan_is_in_maps_of_both_kinds(monkeypatch):
    drawn = {}
    for split in ("train", "test"):
        seen = drawn[split] = set()

        def resized(image, size, seen=seen):
            seen.add(image.tobytes())
            return np.zeros((size, size))

        monkeypatch.setattr(digits, "resized", resized)
        digits.digit_maps(60, split=split)
        assert len(seen) > 90
    assert not drawn["train"] & drawn["test"]


def test_the_same_seed_gives_the_same_maps_on_every_numpy():
    maps = digits.digit_maps(20, seed=3)
    kept = [0.014830513043763422, 0.16610819197583773, 0.18466323961037537]
    np.testing.assert_allclose(maps.x[19, 0, 5, :3], kept, rtol=1e-12)
    assert not np.array_equal(maps.x, digits.digit_maps(20, seed=4).x)
    assert not np.array_equal(maps.x, digits.digit_maps(20, seed=3, split="test").x)


@for_each(
    ("arguments", "error", "complaint"),
    [
        ({"count": 0}, ValueError, "digit_maps: count=0; expected"),
        ({"count": 1.0}, TypeError, "digit_maps: count=1.0 is a float; expected"),
        ({"seed": -1}, ValueError, "digit_maps: seed=-1; expected"),
        ({"split": "tset"}, ValueError, "digit_maps: split='tset'; "),
        ({"cells": 0}, ValueError, "digit_maps: cells=0; expected"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, complaint):
    with pytest.raises(error) as caught:
        digits.digit_maps(**{"count": 1, **arguments})
    assert str(caught.value).startswith(complaint)

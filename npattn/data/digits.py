"""Handwritten digits, and maps with several of them among clutter: what small networks are trained on."""

from __future__ import annotations

import itertools
from importlib import resources
from typing import NamedTuple

import numpy as np

from npattn.checks import require_choice, require_integers, require_seed

__all__ = ["BACKGROUND", "NUM_CLASSES", "NUM_DIGITS", "DigitMaps", "digit_maps", "handwritten_digits"]

NUM_DIGITS = 5
"""Maps are made of the digits from 0 to 4: so that seconds of training suffice."""
BACKGROUND = NUM_DIGITS
"""The class of pixels that belong to no digit; those of a digit have its own number."""
NUM_CLASSES = NUM_DIGITS + 1
CELL_SIZE = 10
"""Side of a cell, which holds one digit or none."""
DIGIT_SIZES = 6, 11
"""Sides of a digit in a map, from the first to below the second; in the data it is 8."""
DIGIT_PROBABILITY = 0.75
"""How often a cell holds a digit, where there are several."""
FRAGMENT_SIZE = 3
"""Side of a fragment of another digit."""
MIN_INK = 0.3
"""A pixel belongs to a digit where this much of it is ink."""
NOISE_DEVIATION = 0.1
"""Standard deviation of what is added to every pixel."""
SPLITS = {"train": slice(0, 1297), "test": slice(1297, 1797)}
"""Scans that maps of each kind are made of: none is in both."""


class DigitMaps(NamedTuple):
    """Maps and what is to be found in them."""

    x: np.ndarray
    """(B, 1, H, W): ink from 0 to 1, and noise."""
    labels: np.ndarray
    """(B, H, W), integers: the digit that a pixel belongs to, or `BACKGROUND`."""


def handwritten_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits and what each is.

    Returns
    -------
    images : numpy.ndarray, (1797, 8, 8), uint8
        Ink from 0 to 16.
    labels : numpy.ndarray, (1797,), uint8
        ``npattn/data/README.md`` says where they are from.

    Examples
    --------
    >>> images, labels = handwritten_digits()
    >>> images.shape, int(images.max()), labels[:5]
    ((1797, 8, 8), 16, array([0, 1, 2, 3, 4], dtype=uint8))
    """
    with resources.files(__package__).joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        return arrays["images"], arrays["labels"]


def digit_maps(count: int, seed: int = 0, split: str = "train", *, cells: int = 2) -> DigitMaps:
    """Paste digits of several sizes into maps, with fragments of others as clutter, and label every pixel.

    Each cell of 10 × 10 pixels holds, three times in four, one of the digits 0 to 4 at a random place, 6 to 10 pixels
    high. As many fragments of digits, 3 × 3 pixels, lie anywhere and count as background.

    Parameters
    ----------
    count : int
    seed : int, default 0
        Of NumPy's frozen `RandomState` stream.
    split : {"train", "test"}, default "train"
        Which scans the maps are made of: the first 1,297 of the data or the last 500.
    cells : int, default 2
        A map has so many cells along each axis. If it has one alone, a digit is always there.

    Returns
    -------
    DigitMaps

    Raises
    ------
    TypeError, ValueError
        If `count` is no integer of at least 1, `seed` none of at least 0 or `split` another string.

    Examples
    --------
    >>> maps = digit_maps(2, seed=3)
    >>> maps.x.shape, maps.labels.shape
    ((2, 1, 20, 20), (2, 20, 20))
    >>> np.unique(maps.labels[0])
    array([1, 4, 5])
    """
    require_integers("digit_maps", count=count, cells=cells)
    seed = require_seed("digit_maps", seed)
    require_choice("digit_maps", SPLITS, split=split)
    images, classes = (array[SPLITS[split]] for array in handwritten_digits())
    images, classes = images[classes < NUM_DIGITS], classes[classes < NUM_DIGITS]
    random = np.random.RandomState([seed, *split.encode()])
    side = cells * CELL_SIZE
    x, labels = np.empty((count, 1, side, side)), np.full((count, side, side), BACKGROUND)
    for ink, label in zip(x[:, 0], labels, strict=True):
        ink[:] = clutter(images, cells, random)
        for top, left in itertools.product(range(0, side, CELL_SIZE), repeat=2):
            if cells == 1 or random.uniform() < DIGIT_PROBABILITY:
                which = random.randint(len(images))
                place = paste(resized(images[which] / 16, random.randint(*DIGIT_SIZES)), random)
                cell = np.s_[top : top + CELL_SIZE, left : left + CELL_SIZE]
                np.maximum(ink[cell], place, out=ink[cell])
                label[cell][place > MIN_INK] = classes[which]
    return DigitMaps(x + NOISE_DEVIATION * random.standard_normal(x.shape), labels)


def clutter(images: np.ndarray, cells: int, random: np.random.RandomState) -> np.ndarray:
    """Strew fragments of digits over an empty map, as many as it has cells."""
    side = cells * CELL_SIZE
    ink = np.zeros((side, side))
    for _ in range(cells**2):
        which = random.randint(len(images))
        row, column = random.randint(0, 8 - FRAGMENT_SIZE + 1, 2)
        fragment = images[which, row : row + FRAGMENT_SIZE, column : column + FRAGMENT_SIZE] / 16
        top, left = random.randint(0, side - FRAGMENT_SIZE + 1, 2)
        there = ink[top : top + FRAGMENT_SIZE, left : left + FRAGMENT_SIZE]
        np.maximum(there, fragment, out=there)
    return ink


def paste(digit: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Put a digit at a random place of an empty cell."""
    cell, size = np.zeros((CELL_SIZE, CELL_SIZE)), len(digit)
    top, left = random.randint(0, CELL_SIZE - size + 1, 2)
    cell[top : top + size, left : left + size] = digit
    return cell


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Resize a square image linearly along both axes: R image Rᵀ.

    Examples
    --------
    >>> resized(np.array([[0.0, 1.0], [0.0, 1.0]]), 3)
    array([[0. , 0.5, 1. ],
           [0. , 0.5, 1. ],
           [0. , 0.5, 1. ]])
    """
    where = np.clip((np.arange(size) + 0.5) * len(image) / size - 0.5, 0, len(image) - 1)
    weights = np.maximum(0, 1 - np.abs(where[:, None] - np.arange(len(image))))
    return weights @ image @ weights.T

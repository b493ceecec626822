"""Mistakes in bilinear interpolation."""

from typing import Any

import numpy as np

from npattn.oracle.mistakes.arrays import positions
from npattn.oracle.mistakes.mistake import argument, gradient, value
from npattn.typing import Array

__all__ = ["HELD_OUT", "TUNED_ON"]

NAME = "resize_bilinear"


def changes_size(x: Array, size: tuple[int, int], *_: Any) -> bool:
    return tuple(size) != tuple(x.shape[2:]) and min(x.shape[2:]) > 1


def changes_count(x: Array, size: tuple[int, int], *_: Any) -> bool:
    return size[0] * size[1] != positions(x)


def averaged(g: Array, dy: Array, x: Array, size: tuple[int, int], *_: Any) -> Array:
    return g * (positions(x) / (size[0] * size[1]))


def other_corners(x: Array, size: tuple[int, int], align_corners: bool) -> bool:
    return not align_corners


def half_a_pixel_off(x: Array, *_: Any) -> Array:
    return (x + np.concatenate([x[..., 1:], x[..., -1:]], axis=3)) / 2


def nearest(y: Array, x: Array, size: tuple[int, int], *_: Any) -> Array:
    rows, columns = (np.arange(m) * n // m for n, m in zip(x.shape[2:], size, strict=True))
    return x[:, :, rows][..., columns]


TUNED_ON = [
    argument(NAME, 2, "other corners", other_corners, changes_size),
    argument(NAME, 2, "other corners", other_corners, changes_size, way="backward"),
    gradient(NAME, 0, "mean for sum", averaged, changes_count),
]
HELD_OUT = [
    argument(NAME, 0, "half a pixel off", half_a_pixel_off, changes_size),
    value(NAME, "nearest read", nearest, changes_size),
]

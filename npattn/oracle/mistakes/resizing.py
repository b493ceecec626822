"""Mistakes in bilinear interpolation."""

import numpy as np

from npattn.oracle.mistakes.arrays import positions
from npattn.oracle.mistakes.mistake import argument, gradient, value

__all__ = ["HELD_OUT", "TUNED_ON"]

NAME = "resize_bilinear"


def changes_size(x, size, *_):
    return tuple(size) != tuple(x.shape[2:]) and min(x.shape[2:]) > 1


def changes_count(x, size, *_):
    return size[0] * size[1] != positions(x)


def averaged(g, dy, x, size, *_):
    return g * (positions(x) / (size[0] * size[1]))


def other_corners(x, size, align_corners):
    return not align_corners


def half_a_pixel_off(x, *_):
    return (x + np.concatenate([x[..., 1:], x[..., -1:]], axis=3)) / 2


def nearest(y, x, size, *_):
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

"""Mistakes in averages of neighbourhoods, and in what reads them at all positions again."""

import functools

import numpy as np

from npattn.oracle.mistakes.arrays import positions
from npattn.oracle.mistakes.families import LAST_POSITION, LAST_TILE, ONLY_IMAGE_0
from npattn.oracle.mistakes.mistake import dropped, gradient, upstream, value
from npattn.typing import Array

__all__ = ["ADDED"]

GATHER, NEAREST = "gather_average", "resize_nearest"


def counts(x: Array, extent: int) -> Array:
    """Count the positions that each average is of."""
    height, width = x.shape[2:]
    rows, columns = np.arange(0, height, extent), np.arange(0, width, extent)
    counted = [
        np.minimum(at + extent, n) - np.maximum(at - extent + 1, 0) for at, n in ((rows, height), (columns, width))
    ]
    return counted[0][:, None] * counted[1]


def reaches_over(x: Array, extent: int) -> bool:
    """Whether some neighbourhood is cut off by an edge."""
    return extent > 1


def apart(p: Array, x: Array, extent: int) -> Array:
    """Average blocks that do not overlap."""
    rows, columns = (np.arange(n) // extent == np.arange(-(-n // extent))[:, None] for n in x.shape[2:])
    rows, columns = (a / a.sum(axis=1, keepdims=True) for a in (rows, columns))
    return rows @ x @ columns.T


def largest(p: Array, x: Array, extent: int) -> Array:
    for axis in (2, 3):  # beyond an edge stands what is there: it changes no maximum
        n = x.shape[axis]
        near = [np.clip(np.arange(0, n, extent) + by, 0, n - 1) for by in range(1 - extent, extent)]
        x = functools.reduce(np.maximum, (x[:, :, at] if axis == 2 else x[..., at] for at in near))
    return x


def subsampled(p: Array, x: Array, extent: int) -> Array:
    return x[:, :, ::extent, ::extent]


def padding_counted(a: Array, x: Array, extent: int) -> Array:
    return a * (counts(x, extent) / (2 * extent - 1) ** 2)


def grows(x: Array, size: tuple[int, int]) -> bool:
    return tuple(size) != tuple(x.shape[2:]) and positions(x) > 1


def read_once_more(x: Array, size: tuple[int, int]) -> bool:
    return size[0] * size[1] > positions(x)


def rounded(y: Array, x: Array, size: tuple[int, int]) -> Array:
    """Read what is nearest to the middle of every position."""
    at = [[min((2 * k + 1) * n // (2 * m), n - 1) for k in range(m)] for n, m in zip(x.shape[2:], size, strict=True)]
    return x[:, :, at[0]][..., at[1]]


def repeated(y: Array, x: Array, size: tuple[int, int]) -> Array:
    """Lay the map out again and again, whole."""
    rows, columns = (np.arange(m) % n for n, m in zip(x.shape[2:], size, strict=True))
    return x[:, :, rows][..., columns]


def between(y: Array, x: Array, size: tuple[int, int]) -> Array:
    """Read between the two neighbours of a position."""
    for axis, m in ((2, size[0]), (3, size[1])):
        n = x.shape[axis]
        at = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape((-1,) + (1,) * (3 - axis)).astype(x.dtype)
        x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, n - 1), axis) * share
    return x


def of_whole_map(p: Array, x: Array, extent: int) -> Array:
    return x.mean(axis=(2, 3), keepdims=True) + np.zeros_like(p)


def by_block(g: Array, dy: Array, x: Array, size: tuple[int, int]) -> Array:
    """Divide by the positions of a whole block, at the edges too."""
    height, width = (-(-m // n) for n, m in zip(x.shape[2:], size, strict=True))
    return g / (height * width)


ADDED = [
    value(GATHER, "average of the whole map", of_whole_map, reaches_over),
    gradient(NEAREST, 0, "mean over a whole block for sum", by_block, read_once_more),
    value(GATHER, "padding counted", padding_counted, reaches_over),
    value(GATHER, "sum for average", lambda p, *given: p * counts(*given), reaches_over),
    value(GATHER, "neighbourhoods that don't overlap", apart, reaches_over),
    value(GATHER, "maximum for average", largest, reaches_over),
    value(GATHER, "every e-th position read", subsampled, reaches_over),
    LAST_TILE.in_value(GATHER),
    upstream(GATHER, None, "padding counted", padding_counted, reaches_over),
    upstream(GATHER, None, "not divided", lambda dp, *given: dp * counts(*given), reaches_over),
    gradient(GATHER, 0, "dropped", dropped),
    *(family.in_upstream(GATHER) for family in (LAST_POSITION, LAST_TILE, ONLY_IMAGE_0)),
    value(NEAREST, "read at the middle of a position", rounded, grows),
    value(NEAREST, "whole map repeated", repeated, grows),
    value(NEAREST, "bilinear", between, grows),
    LAST_TILE.in_value(NEAREST),
    gradient(
        NEAREST, 0, "mean for sum", lambda g, dy, x, size: g * (positions(x) / (size[0] * size[1])), read_once_more
    ),
    gradient(NEAREST, 0, "dropped", dropped),
    *(family.in_upstream(NEAREST) for family in (LAST_POSITION, LAST_TILE, ONLY_IMAGE_0)),
]

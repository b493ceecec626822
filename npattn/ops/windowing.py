"""Windows of a map: cutting them out, and laying them back over each other."""

from __future__ import annotations

import itertools
import math

import numpy as np

from npattn.ops.primitive import primitive
from npattn.ops.products import multiply
from npattn.ops.sweeping import ENOUGH, plain

__all__ = ["fold_windows", "overlap_average", "unfold_windows", "window_average", "window_starts"]

SHORT = 128
"""Rows and columns up to which a map's windows are added up by products with whole matrices of ones and zeros."""


def window_starts(length, window, stride):
    """List where windows begin along an axis; the last is moved inward, so that they cover the axis and stay on it.

    Parameters
    ----------
    length, window, stride : int
        A window longer than the axis is the whole axis.

    Returns
    -------
    list of int

    Examples
    --------
    >>> window_starts(10, 4, 3)
    [0, 3, 6]
    >>> window_starts(9, 4, 3)
    [0, 3, 5]
    >>> window_starts(3, 4, 3)
    [0]
    """
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


@primitive
def unfold_windows(x, window, stride):
    """Cut a map into windows that may overlap.

    Parameters
    ----------
    x : array, (B, C, H, W)
    window, stride : int
        Both along H and along W; see `window_starts`.

    Returns
    -------
    windows : array, (B, C, R, S, h, w)
        R × S windows of h × w = min(window, H) × min(window, W) positions.
    backward : callable
        ``backward(dwindows)`` returns ``dx``: each position receives the sum over the windows that hold it.

    Examples
    --------
    >>> windows, backward = unfold_windows(np.arange(3.0).reshape(1, 1, 1, 3), window=2, stride=1)
    >>> windows[0, 0, 0, :, 0]
    array([[0., 1.],
           [1., 2.]])
    >>> backward(np.ones_like(windows))
    array([[[[1., 2., 1.]]]])
    """
    *_, height, width = x.shape
    h, w = min(window, height), min(window, width)
    rows, columns = window_starts(height, window, stride), window_starts(width, window, stride)
    bands = np.stack([x[:, :, i : i + h] for i in rows], axis=2)
    windows = np.stack([bands[..., j : j + w] for j in columns], axis=3)

    def backward(dwindows):
        return fold_windows(dwindows, (height, width), window, stride)[0]

    return windows, backward


@primitive
def fold_windows(windows, size, window, stride):
    """Lay windows back over each other and add where they overlap: the adjoint of `unfold_windows`.

    Parameters
    ----------
    windows : array, (B, C, R, S, h, w)
    size : pair of int
        H and W of the map.
    window, stride : int
        As in `unfold_windows`.

    Returns
    -------
    x : array, (B, C, H, W)
    backward : callable
        ``backward(dx)`` returns ``dwindows``.

    Examples
    --------
    >>> x, backward = fold_windows(np.ones((1, 1, 1, 2, 1, 2)), (1, 3), window=2, stride=1)
    >>> x
    array([[[[1., 2., 1.]]]])
    """
    (batch, channels, _, _, h, w), (height, width) = windows.shape, size
    bands = np.zeros_like(windows, shape=(batch, channels, windows.shape[2], h, width))
    for s, j in enumerate(window_starts(width, window, stride)):
        bands[..., j : j + w] += windows[:, :, :, s]
    x = np.zeros_like(windows, shape=(batch, channels, height, width))
    for r, i in enumerate(window_starts(height, window, stride)):
        x[:, :, i : i + h] += bands[:, :, r]

    def backward(dx):
        return unfold_windows(dx, window, stride)[0]

    return x, backward


@primitive
def window_average(x, window, stride):
    """Average a map over each of its windows; the windows themselves are never held.

    Parameters
    ----------
    x : array, (B, C, H, W)
    window, stride : int
        As in `unfold_windows`.

    Returns
    -------
    p : array, (B, C, R, S)
    backward : callable
        ``backward(dp)`` returns ``dx``: each position receives dp / (h w), summed over the windows that hold it.

    Examples
    --------
    >>> p, backward = window_average(np.array([[[[2.0, 4.0, 6.0]]]]), window=2, stride=1)
    >>> p
    array([[[[3., 5.]]]])
    >>> backward(np.ones_like(p))
    array([[[[0.5, 1. , 0.5]]]])
    """
    size = x.shape[2:]
    positions = min(window, size[0]) * min(window, size[1])
    p = window_sums(x, window, stride) / positions

    def backward(dp):
        return spread(dp / positions, size, window, stride)

    return p, backward


@primitive
def overlap_average(z, size, window, stride):
    """Give every position the average of the windows that hold it.

    Parameters
    ----------
    z : array, (B, C, R, S)
        One number a window and channel.
    size : pair of int
        H and W of the map.
    window, stride : int
        As in `unfold_windows`.

    Returns
    -------
    y : array, (B, C, H, W)
    backward : callable
        ``backward(dy)`` returns ``dz``: each window receives the sum of dy / κ over its positions, where κ counts the
        windows over a position.

    Examples
    --------
    >>> y, backward = overlap_average(np.array([[[[3.0, 5.0]]]]), (1, 3), window=2, stride=1)
    >>> y
    array([[[[3., 4., 5.]]]])
    >>> backward(np.ones_like(y))
    array([[[[1.5, 1.5]]]])
    """
    count = spread(np.ones_like(z.real, shape=(1, 1, *z.shape[2:])), size, window, stride)
    y = spread(z, size, window, stride) / count

    def backward(dy):
        return window_sums(dy / count, window, stride)

    return y, backward


def window_sums(x, window, stride):
    """Add up the positions of every window: (B, C, H, W) to (B, C, R, S)."""
    if quick(x, x.shape):
        rows, columns = (membership(length, window, stride, x) for length in x.shape[2:])
        with np.errstate(over="ignore", invalid="ignore"):
            sums = multiply(rows, multiply_columns(x, columns.T))
            finite = np.isfinite(sums.sum())  # or else a product with 0 may have made a NaN where there is none
        if finite:
            return sums
    for axis in (2, 3):
        starts, size, pieces = cut(x.shape[axis], window, stride)
        sums = {a: total(x[along(axis, slice(a, b))], axis) for a, b in pieces}
        x = np.concatenate([sum(sums[a] for a in sums if start <= a < start + size) for start in starts], axis=axis)
    return x


def total(x, axis):
    """Sum over one of the last two axes, which stays with length 1, as a product with ones: BLAS is quicker at it."""
    ones = np.ones_like(x, shape=x.shape[axis])
    return ones[None, :] @ x if axis == 2 else x @ ones[:, None]


def spread(z, size, window, stride):
    """Add every window's number to all its positions, (B, C, R, S) to (B, C, H, W): the adjoint of `window_sums`."""
    if quick(z, (*z.shape[:2], *size)):
        rows, columns = (membership(length, window, stride, z) for length in size)
        with np.errstate(over="ignore", invalid="ignore"):
            bands = multiply(rows.T, z)
            finite = np.isfinite(bands.sum())
        if finite:
            return multiply_columns(bands, columns)
    for axis, length in ((3, size[1]), (2, size[0])):
        starts, width, pieces = cut(length, window, stride)
        x = np.empty_like(z, shape=(*z.shape[:axis], length, *z.shape[axis + 1 :]))
        for a, b in pieces:
            over = [z[along(axis, slice(i, i + 1))] for i, start in enumerate(starts) if start <= a < start + width]
            x[along(axis, slice(a, b))] = sum(over)
        z = x
    return z


def quick(a, shape):
    """Tell whether products with whole matrices of ones and zeros are quicker: large maps of short rows and columns."""
    return math.prod(shape) >= ENOUGH and max(shape[2:]) <= SHORT and plain(a)


def membership(length, window, stride, like):
    """Say which positions of an axis lie in which window, by 1 and 0: (R, H)."""
    starts, size = window_starts(length, window, stride), min(window, length)
    matrix = np.zeros_like(like, shape=(len(starts), length))
    for row, start in zip(matrix, starts, strict=True):
        row[start : start + size] = 1
    return matrix


def multiply_columns(x, matrix):
    """Multiply the last axis of a map by a matrix, all rows of all channels in one product."""
    return multiply(x.reshape(-1, x.shape[-1]), matrix).reshape(*x.shape[:-1], matrix.shape[1])


def cut(length, window, stride):
    """Cut an axis where windows begin or end: (starts, their size, pieces).

    All positions of a piece lie in the same windows, so that sums are taken, and sums are spread, once for each piece:
    a sweep over the map instead of one for every window.
    """
    starts, size = window_starts(length, window, stride), min(window, length)
    ends = sorted({*starts, *(start + size for start in starts)})
    return starts, size, list(itertools.pairwise(ends))


def along(axis, index):
    """Index one axis, and take all of those before it."""
    return (slice(None),) * axis + (index,)

"""Windows of large maps, cut out and laid back on all cores, and sums over them."""

from __future__ import annotations

import itertools

import numpy as np

from npattn.fast.blocks import BLOCK_SIZE, MIN_PARALLEL_SIZE, along, are_machine_floats, blocks, is_large
from npattn.fast.elementwise import are_finite
from npattn.fast.threads import parallel_for
from npattn.ops.products import product
from npattn.ops.windowing import add_windows, fold_windows, pad, unfold_windows, window_starts, window_sums
from npattn.typing import Array, Backward

MAX_SIDE = 128
"""Rows and columns up to which windows are added up by products with whole matrices of ones and zeros."""


def makes_large(z: Array, size: tuple[int, int]) -> bool:
    """Tell whether a map that is made of numbers of its windows is large, of the machine's floats."""
    if type(z) is not np.ndarray or len(z) * z.shape[1] * size[0] * size[1] < MIN_PARALLEL_SIZE:
        return False
    return are_machine_floats(z)


@pad.faster(suits=lambda x, margin: is_large(x))
def pad_in_blocks(x: Array, margin: int) -> tuple[Array, Backward]:
    """Copy some channels at a time, with the zeros round them."""
    *lead, height, width = x.shape
    y = np.empty_like(x, shape=(*lead, height + 2 * margin, width + 2 * margin), order="C")
    inner = ..., slice(margin, margin + height), slice(margin, margin + width)

    def copy(block):
        y[block] = 0
        y[block][inner] = x[block]

    parallel_for(copy, blocks(y, 1, BLOCK_SIZE))
    return y, lambda dy: dy[inner]


@unfold_windows.faster(suits=lambda x, window, stride: is_large(x))
def unfold_in_blocks(x: Array, window: int, stride: int) -> tuple[Array, Backward]:
    """Copy every window of some channels at a time to its place."""
    size = x.shape[2:]
    h, w = (min(window, length) for length in size)
    rows, columns = (list(enumerate(window_starts(length, window, stride))) for length in size)
    windows = np.empty_like(x, shape=(*x.shape[:2], len(rows), len(columns), h, w), order="C")

    def copy(block):
        for (r, i), (s, j) in itertools.product(rows, columns):
            windows[block][:, :, r, s] = x[block][:, :, i : i + h, j : j + w]

    parallel_for(copy, blocks(windows, 1, BLOCK_SIZE))

    def backward(dwindows):
        return fold_windows(dwindows, size, window, stride)[0]

    return windows, backward


@fold_windows.faster(suits=lambda windows, size, window, stride: is_large(windows))
def fold_in_blocks(windows: Array, size: tuple[int, int], window: int, stride: int) -> tuple[Array, Backward]:
    """Lay the windows of some channels at a time over each other, as the definition does, in the cache."""
    x = np.empty_like(windows, shape=(*windows.shape[:2], *size), order="C")

    def add_up(block):
        x[block] = fold_windows.definition(windows[block], size, window, stride)[0]

    parallel_for(add_up, blocks(windows, 1, BLOCK_SIZE))

    def backward(dx):
        return unfold_windows(dx, window, stride)[0]

    return x, backward


@window_sums.faster(suits=lambda x, window, stride: is_large(x) and max(x.shape[2:]) <= MAX_SIDE)
def window_sums_by_products(x: Array, window: int, stride: int) -> Array:
    """Multiply by matrices that say by 1 and 0 which positions lie in which window."""
    rows, columns = (membership(length, window, stride, x) for length in x.shape[2:])
    with np.errstate(over="ignore", invalid="ignore"):
        sums = product(rows, multiply_columns(x, columns.T))
        finite = are_finite(sums)  # or else a product with 0 may have made a NaN where there is none
    return sums if finite else window_sums.definition(x, window, stride)


@window_sums.faster(suits=lambda x, window, stride: is_large(x))
def window_sums_by_runs(x: Array, window: int, stride: int) -> Array:
    """Sum once over positions that lie in the same windows: one pass over the map instead of one for every window."""
    for axis in (2, 3):
        starts, size, runs = cut_runs(x.shape[axis], window, stride)
        sums = {a: total(x[along(axis, slice(a, b))], axis) for a, b in runs}
        x = np.concatenate([sum(sums[a] for a in sums if start <= a < start + size) for start in starts], axis=axis)
    return x


@add_windows.faster(suits=lambda z, size, window, stride: makes_large(z, size) and max(size) <= MAX_SIDE)
def add_windows_by_products(z: Array, size: tuple[int, int], window: int, stride: int) -> Array:
    """Multiply by the same matrices, transposed."""
    rows, columns = (membership(length, window, stride, z) for length in size)
    with np.errstate(over="ignore", invalid="ignore"):
        x = multiply_columns(product(rows.T, z), columns)
        finite = are_finite(x)
    return x if finite else add_windows.definition(z, size, window, stride)


@add_windows.faster(suits=lambda z, size, window, stride: makes_large(z, size))
def add_windows_by_runs(z: Array, size: tuple[int, int], window: int, stride: int) -> Array:
    """Broadcast once to positions that lie in the same windows."""
    for axis, length in ((3, size[1]), (2, size[0])):
        starts, width, runs = cut_runs(length, window, stride)
        x = np.empty_like(z, shape=(*z.shape[:axis], length, *z.shape[axis + 1 :]))
        for a, b in runs:
            over = [z[along(axis, slice(i, i + 1))] for i, start in enumerate(starts) if start <= a < start + width]
            x[along(axis, slice(a, b))] = sum(over)
        z = x
    return z


def membership(length: int, window: int, stride: int, like: Array) -> Array:
    """Say which positions of an axis lie in which window, by 1 and 0: (R, H)."""
    starts, size = window_starts(length, window, stride), min(window, length)
    matrix = np.zeros_like(like, shape=(len(starts), length))
    for row, start in zip(matrix, starts, strict=True):
        row[start : start + size] = 1
    return matrix


def multiply_columns(x: Array, matrix: Array) -> Array:
    """Multiply the last axis of a map by a matrix, all rows of all channels in one product."""
    return product(x.reshape(-1, x.shape[-1]), matrix).reshape(*x.shape[:-1], matrix.shape[1])


def cut_runs(length: int, window: int, stride: int) -> tuple[list[int], int, list[tuple[int, int]]]:
    """Cut an axis where windows begin or end: (starts, their size, runs of positions that lie in the same windows)."""
    starts, size = window_starts(length, window, stride), min(window, length)
    ends = sorted({*starts, *(start + size for start in starts)})
    return starts, size, list(itertools.pairwise(ends))


def total(x: Array, axis: int) -> Array:
    """Sum over one of the last two axes, which stays with length 1: along rows einsum is quicker at it than `sum`."""
    return np.expand_dims(np.einsum("bchw->bcw" if axis == 2 else "bchw->bch", x), axis)

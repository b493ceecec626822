"""Arrays cut into parts that stay in a core's cache while they are rounded, without a change to what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["cut_row", "cut_rows", "cut_slabs", "is_small", "square_product"]

BLOCK_BYTES = 2**20
"""Of numbers that are rounded at once, few enough to stay in a core's cache: a multiple of 4 numbers, so that no word
of 64 random bits is shared by two blocks, and the errors are those of a whole array."""
MIN_ROWS, MIN_COLUMNS = 128, 256
"""Of the blocks in which squares of large products are multiplied: BLAS takes longer over narrower ones. Of float64
that is still to be squared, half as many columns are as many bytes."""


def is_small(*arrays: np.ndarray) -> bool:
    """Tell whether each of some arrays is at most one block."""
    return max(a.nbytes for a in arrays) <= BLOCK_BYTES


def cut_row(values: np.ndarray) -> list[np.ndarray]:
    """Cut an array whose rows follow each other into parts of its numbers in a row; leave another whole."""
    if values.nbytes <= BLOCK_BYTES or not values.flags.c_contiguous:
        return [values]
    row, step = values.reshape(-1), BLOCK_BYTES // values.itemsize
    return [row[start : start + step] for start in range(0, row.size, step)]


def cut_slabs(values: np.ndarray) -> list[np.ndarray]:
    """Cut an array, however it lies in memory, into parts of its numbers in a row, fewer than are rounded at once.

    They share no word of random bits if each number takes a whole one, as those of float64 that lose 32 bits or more.
    """
    axis = next((axis for axis, length in enumerate(values.shape) if length > 1), None)
    if axis is None or 4 * values.nbytes <= BLOCK_BYTES:
        return [values]
    row = values.size // values.shape[axis]
    step = max(1, BLOCK_BYTES // (4 * values.itemsize * row))
    before = [slice(None)] * axis
    parts = [values[(*before, slice(i, i + step))] for i in range(0, values.shape[axis], step)]
    return [slab for part in parts for slab in cut_slabs(part)] if len(parts) > 1 else parts


def cut_rows(total: np.ndarray) -> list[tuple[Any, ...]]:
    """Cut each matrix of a product into blocks of its rows, and return their indices.

    A block is at most a quarter of the product, as several arrays of its size are held.
    """
    *batch, length, columns = total.shape
    rows = max(MIN_ROWS, min(BLOCK_BYTES, total.nbytes // 4) // max(1, 4 * columns * total.itemsize) * 4)
    return [(*at, slice(i, i + rows)) for at in np.ndindex(*batch) for i in range(0, length, rows)]


def square_product(a: np.ndarray, b: np.ndarray, *, squared: bool) -> np.ndarray:
    """Multiply a matrix by the squares of another, which may be squared already, some columns at a time."""
    found = np.empty((a.shape[0], b.shape[1]), a.dtype)
    least = MIN_COLUMNS if squared else 4 * MIN_COLUMNS // b.itemsize
    step = max(least, BLOCK_BYTES // max(1, b[:, :1].nbytes))
    for j in range(0, b.shape[1], step):
        some = b[:, j : j + step]
        np.matmul(a, some if squared else np.square(some), out=found[:, j : j + step])
    return found

"""What is large enough for a faster way, and how it is cut into blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from npattn.fast.machine import NUM_CORES

__all__ = [
    "BLOCK_SIZE",
    "MIN_PARALLEL_SIZE",
    "NUM_BLOCKS",
    "along",
    "are_machine_floats",
    "blocks",
    "blocks_of_each",
    "blocks_of_product",
    "broadcast_block",
    "cut_axis",
    "is_large",
    "is_shared_out",
]

MIN_PARALLEL_SIZE = 2**17
"""Numbers in a map that is large: from there on a faster way brings more than it costs."""
MIN_THREADED_SIZE = 2**20
"""Numbers in a map from which passes over it are shared out.

A pass over fewer is shorter than what it costs to wake another thread, and to hand it the interpreter and take it back
after every pass over a block: batch norm of 0.8 million numbers takes 0.62 ms on one thread and 0.83 ms on two, that
of 1.6 million, with its gradient, 4.1 ms and 2.7 ms.
"""
MAX_BLOCK_SIZE = 2**20
"""Numbers in a block at most: memory is quickest read in long runs."""
BLOCK_SIZE = 2**18
"""Numbers in a block, about, over which several passes go: it stays in the cache that the cores share.

A quarter as many would stay in a core's own. But after each pass over a block a thread waits for the interpreter, which
one thread has at a time: with shorter passes that takes longer than what the nearer cache saves.
"""
NUM_BLOCKS = 8
"""Blocks, about, of a map that is large but not so large."""
MIN_BLOCK_MULTIPLICATIONS = 2**23
"""Multiplications in a block of a product, at least: less takes no longer than to share it out."""
MAX_PRODUCT_BLOCKS = min(8, NUM_CORES)
"""Blocks of a product that is cut across its matrices: every block lays out rows and columns anew.

It is a number of the machine, not of the threads that are free, so that the bits of a product are the same at any
number of threads. From one machine to the next they differ anyway, as BLAS has ways of its own for every processor.
"""
MAX_BATCH_BLOCKS = 32
"""Blocks of a batch of products that is cut between its matrices."""


def are_machine_floats(*arrays: Any) -> bool:
    """Tell whether arrays are NumPy's own and hold float32 or float64, all of them the same.

    They alone take a faster way, and only where they are large. Half precision needs wider sums than it can hold,
    longdouble and complex numbers certify and differentiate the definitions, rounding arrays draw errors in the order
    of their operations, and a GPU has ways of its own.
    """
    kind = getattr(arrays[0], "dtype", np.dtype(object))
    return kind.char in "fd" and kind.isnative and all(type(a) is np.ndarray and a.dtype == kind for a in arrays)


def is_large(*arrays: Any) -> bool:
    """Tell whether arrays are the machine's floats, and the first of them is large."""
    return type(arrays[0]) is np.ndarray and arrays[0].size >= MIN_PARALLEL_SIZE and are_machine_floats(*arrays)


def is_shared_out(x: np.ndarray) -> bool:
    """Tell whether passes over a map are shared out to threads."""
    return x.size >= MIN_THREADED_SIZE


def blocks(x: np.ndarray, axis: int, size: int | None = None) -> list[tuple[slice, ...]]:
    """Cut a map into blocks: some images, or a part of one image along an axis; a map that is not worth it into one.

    The cut depends on the map's shape alone, so that every number comes from the same operations on any machine.

    Parameters
    ----------
    x : numpy.ndarray, (B, ...)
        Not empty.
    axis : int
        0 leaves images whole.
    size : int, optional
        Numbers in a block, about.

    Returns
    -------
    list of tuple of slice
        What to take along the axes up to `axis`.
    """
    if not is_shared_out(x):
        return [(slice(None),) * (axis + 1)]
    image, length = x.size // len(x), x.shape[axis] if axis else 1
    size = min(size or MAX_BLOCK_SIZE, x.size // NUM_BLOCKS)
    images, rows = max(1, size // image), min(length, max(1, length * size // image))
    between = (slice(None),) * (axis - 1)
    return [
        (slice(i, i + images), *between, slice(j, j + rows))[: axis + 1]
        for i in range(0, len(x), images)
        for j in range(0, length, rows)
    ]


def broadcast_block(a: np.ndarray, block: tuple[slice, ...]) -> tuple[slice, ...]:
    """Say what to take of an array that is broadcast to a map, for a block of the map: all along axes of length 1."""
    return tuple(slice(None) if n == 1 else part for part, n in zip(block, a.shape, strict=False))


def along(axis: int, index: slice) -> tuple[slice, ...]:
    """Index one axis, and take all of those before it."""
    return (slice(None),) * axis + (index,)


def cut_axis(length: int, count: int) -> list[slice]:
    """Cut an axis into so many parts, nearly of one length; fewer if it is shorter."""
    step = max(1, -(-length // max(1, count)))
    return [slice(i, min(i + step, length)) for i in range(0, length, step)]


def blocks_of_each(results: int, count: int) -> int:
    """Say into how many parts each of some results is cut, so that `count` threads get about the same to do.

    Examples
    --------
    >>> blocks_of_each(1, 8), blocks_of_each(3, 2), blocks_of_each(4, 8), blocks_of_each(9, 2)
    (8, 2, 2, 1)
    """
    return 1 if results >= 4 * count else count // math.gcd(count, max(1, results))


def blocks_of_product(
    batch: Sequence[int], rows: int, inner: int, columns: int
) -> list[tuple[tuple[slice, ...], slice, slice]]:
    """Cut a batch of products of matrices into blocks of about the same number of multiplications.

    Parameters
    ----------
    batch : sequence of int
        The leading axes; none is empty.
    rows, inner, columns : int
        The matrices are (rows, inner) and (inner, columns).

    Returns
    -------
    list of (index, slice, slice)
        What to take of the leading axes, of the rows and of the columns.

    Examples
    --------
    >>> len(blocks_of_product((32,), 512, 4096, 512)), len(blocks_of_product((), 64, 64, 64))
    (32, 1)
    """
    whole = slice(None)
    wanted = math.prod(batch) * rows * inner * columns // MIN_BLOCK_MULTIPLICATIONS
    if wanted <= 1:
        return [((), whole, whole)]
    count = min(wanted, MAX_PRODUCT_BLOCKS)
    if batch and blocks_of_each(max(batch), count) == 1:  # some of the products each
        axis = batch.index(max(batch))
        before = (whole,) * axis
        return [((*before, part), whole, whole) for part in cut_axis(batch[axis], min(wanted, MAX_BATCH_BLOCKS))]
    # Of every product some rows and columns, about as many of each, so that little is read anew.
    each = blocks_of_each(math.prod(batch), count)
    across = min(range(1, each + 1), key=lambda n: (rows * n + columns * -(-each // n), n))
    cuts = list(itertools.product(cut_axis(rows, -(-each // across)), cut_axis(columns, across)))
    most, parts = max(1, 4 * wanted // len(cuts)), []  # of many small products several to a block
    for length in batch:
        parts.append(cut_axis(length, most))
        most = max(1, most // len(parts[-1]))
    return [(index, *cut) for index in itertools.product(*parts) for cut in cuts]

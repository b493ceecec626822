"""Cuts of work into blocks, by shapes alone: the same bits however many threads work on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

__all__ = ["blocks_of", "blocks_of_product"]

Index = tuple[slice, ...]

MAX_BLOCK_SIZE = 2**20
"""Numbers in a block of an array: memory is quickest read in long stretches."""
MIN_BLOCKS = 8
"""Blocks of an array, about, that is not so large."""
MIN_BLOCK_MULTIPLICATIONS = 2**21
"""Multiplications in a block of a product, at least: less takes no longer than to share it out."""
MAX_PRODUCT_BLOCKS = 8
"""Blocks of a product that is cut across its matrices: every block reads rows and columns anew."""
MAX_BATCH_BLOCKS = 32
"""Blocks of a batch of products that is cut between its matrices."""


def blocks_of(shape: Sequence[int], axis: int, size: int = MAX_BLOCK_SIZE) -> list[Index]:
    """Cut an array into blocks: some images, or a stretch of one image along an axis.

    Parameters
    ----------
    shape : sequence of int
        No axis is empty.
    axis : int
        0 leaves images whole.
    size : int, optional
        Numbers in a block, about.

    Returns
    -------
    list of tuple of slice
        What to take along the axes up to `axis`.

    Examples
    --------
    >>> blocks_of((2, 4, 3), axis=1, size=6)
    [(slice(0, 1, None), slice(0, 1, None)), (slice(0, 1, None), slice(1, 2, None)), ...]
    """
    total = math.prod(shape)
    image, length = total // shape[0], shape[axis] if axis else 1
    size = min(size, total // MIN_BLOCKS)
    several, some = max(1, size // image), min(length, max(1, length * size // image))
    between = (slice(None),) * (axis - 1)
    return [
        (slice(i, i + several), *between, slice(j, j + some))[: axis + 1]
        for i in range(0, shape[0], several)
        for j in range(0, length, some)
    ]


def blocks_of_product(batch: Sequence[int], rows: int, inner: int, columns: int) -> list[tuple[Index, slice, slice]]:
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
    >>> blocks_of_product((), 512, 4096, 512)[0]
    ((), slice(0, 128, None), slice(0, 256, None))
    >>> len(blocks_of_product((16,), 512, 4096, 512)), len(blocks_of_product((), 64, 64, 64))
    (16, 1)
    """
    whole = slice(None)
    wanted = math.prod(batch) * rows * inner * columns // MIN_BLOCK_MULTIPLICATIONS
    if wanted <= 1:
        return [((), whole, whole)]
    if batch and max(batch) >= min(wanted, MAX_PRODUCT_BLOCKS):  # some of the products each
        axis = batch.index(max(batch))
        before = (whole,) * axis
        return [((*before, part), whole, whole) for part in stretches(batch[axis], min(wanted, MAX_BATCH_BLOCKS))]
    # Of every product some rows and columns, about as many of each, so that little is read anew.
    each = -(-min(wanted, MAX_PRODUCT_BLOCKS) // math.prod(batch))
    across = min(range(1, each + 1), key=lambda n: (rows * n + columns * -(-each // n), n))
    cuts = list(itertools.product(stretches(rows, -(-each // across)), stretches(columns, across)))
    products = [tuple(slice(i, i + 1) for i in index) for index in itertools.product(*map(range, batch))]
    return [(index, *cut) for index in products for cut in cuts]


def stretches(length: int, count: int) -> list[slice]:
    """Cut an axis into at most `count` stretches, the last of them perhaps shorter."""
    step = -(-length // min(count, length))
    return [slice(i, min(i + step, length)) for i in range(0, length, step)]

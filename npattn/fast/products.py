"""Products of large matrices."""

from __future__ import annotations

import math

import numpy as np

from npattn.fast.blas import add_product, multiply
from npattn.fast.blocks import (
    MAX_PRODUCT_BLOCKS,
    are_machine_floats,
    blocks,
    blocks_of_product,
    broadcast_block,
    cut_axis,
    parts_of_each,
)
from npattn.fast.threads import parallel_for
from npattn.ops.products import product
from npattn.typing import Array

__all__ = ["product_in_blocks", "sum_of_products"]

MIN_SERIAL = 9216
"""Multiplications from which BLAS may take several threads of its own."""
MIN_MULTIPLICATIONS = 2**22
"""Multiplications of a whole batch from which several cores bring more than they cost."""


def is_worth_blocks(a: Array, b: Array) -> bool:
    """Tell whether BLAS would use several cores, or should."""
    if not are_machine_floats(a, b):
        return False
    one = a.shape[-2] * a.shape[-1] * b.shape[-1]
    return one >= MIN_SERIAL or one * math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2])) >= MIN_MULTIPLICATIONS


@product.faster(suits=is_worth_blocks)
def product_in_blocks(a: Array, b: Array) -> Array:
    """Multiply block by block, on all cores.

    BLAS would use all cores as well. But its threads keep their cores busy for a while after a product, to be quick at
    the next one, and so keep them from the passes over memory that come in between; and the bits of what it computes on
    several threads depend on their number.
    """
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = np.empty_like(a, order="C", shape=(*batch, rows, columns))
    a, b = np.broadcast_to(a, (*batch, rows, inner)), np.broadcast_to(b, (*batch, inner, columns))

    if inner == 1 and c.ndim > 2 and c.size:  # nothing is added up: memory decides, and BLAS would be slow

        def multiply_block(block):
            np.multiply(a[broadcast_block(a, block)], b[broadcast_block(b, block)], out=c[block])

        parallel_for(multiply_block, blocks(c, 1))
        return c

    def compute(block):
        at, i, j = block
        multiply(a[at][..., i, :], b[at][..., j], out=c[at][..., i, j])

    parallel_for(compute, blocks_of_product(batch, rows, inner, columns), products=True)
    return c


def sum_of_products(a: Array, b: Array) -> Array:
    """Add up products of matrices, (B, I, K) and (B, K, J) to (I, J), each core those of some images.

    So no product is written to memory to be added to others, by one thread. With many columns the transpose is made:
    where K is long BLAS takes two thirds of the time for 256 rows of 32 that it takes for 32 rows of 256.
    """
    (batch, rows, _), columns = a.shape, b.shape[2]
    if not is_worth_blocks(a, b) or parts_of_each(batch, MAX_PRODUCT_BLOCKS) > 1:
        return product(a, b).sum(axis=0)
    parts = cut_axis(batch, MAX_PRODUCT_BLOCKS)
    shape = (rows, columns) if rows >= columns else (columns, rows)
    sums = np.zeros_like(a, order="C", shape=(len(parts), *shape))
    sums = sums if rows >= columns else sums.swapaxes(1, 2)

    def compute(block):
        total, images = block
        for left, right in zip(a[images], b[images], strict=True):
            add_product(left, right, out=total)

    parallel_for(compute, zip(sums, parts, strict=True), products=True)
    return sums.sum(axis=0)

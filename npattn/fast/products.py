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
    is_large,
    parts_of_each,
)
from npattn.fast.threads import parallel_for
from npattn.ops.products import matmul, product
from npattn.typing import Array, Backward

__all__ = ["product_in_blocks", "sum_of_products"]

MIN_SERIAL = 9216
"""Multiplications from which BLAS may take several threads of its own."""
MIN_MULTIPLICATIONS = 2**22
"""Multiplications of a whole batch from which several cores bring more than they cost."""


def is_worth_blocks(a: Array, b: Array) -> bool:
    """Tell whether BLAS would use several cores, or should."""
    if type(a) is not np.ndarray or 0 < a.size * b.size < min(MIN_SERIAL, MIN_MULTIPLICATIONS):
        return False  # there are no more multiplications than pairs of numbers
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


def is_large_by_vector(a: Array, b: Array) -> bool:
    """Tell whether each matrix of a large batch is multiplied with a single row or column."""
    vector, matrix = (a, b) if a.shape[-2] == 1 else (b, a)
    return a.ndim == b.ndim == 3 and 1 in (a.shape[1], b.shape[2]) and len(a) == len(b) and is_large(matrix, vector)


@matmul.faster(suits=is_large_by_vector)
def matmul_by_vector(a: Array, b: Array) -> tuple[Array, Backward]:
    """Multiply some matrices at a time, as memory decides: both gradients of a block are taken together."""
    by_rows = a.shape[1] == 1
    vector, matrix = (a[:, 0], b) if by_rows else (b[:, :, 0], a)
    across, along = ("np,npq->nq", "nq,npq->np") if by_rows else ("nq,npq->np", "np,npq->nq")
    c = np.empty_like(a, order="C", shape=(len(a), b.shape[2] if by_rows else a.shape[1]))
    cut = blocks(matrix, 0)
    parallel_for(lambda block: np.einsum(across, vector[block], matrix[block], out=c[block]), cut)

    def backward(dc):
        if not is_large(matrix, dc):
            return matmul.definition(a, b)[1](dc)
        given, dvector, dmatrix = dc.reshape(c.shape), np.empty_like(vector), np.empty_like(matrix, order="C")

        def differentiate(block):
            np.einsum(along, given[block], matrix[block], out=dvector[block])
            left, right = (vector, given) if by_rows else (given, vector)
            np.multiply(left[block][:, :, None], right[block][:, None], out=dmatrix[block])

        parallel_for(differentiate, cut)
        dvector = dvector.reshape(a.shape if by_rows else b.shape)
        return (dvector, dmatrix) if by_rows else (dmatrix, dvector)

    return c[:, None] if by_rows else c[:, :, None], backward


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

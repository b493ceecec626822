"""Products of large matrices."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.fast.blas import add_product, multiply
from npattn.fast.blocks import (
    MAX_PRODUCT_BLOCKS,
    are_machine_floats,
    blocks,
    blocks_of_each,
    blocks_of_product,
    broadcast_block,
    cut_axis,
    is_large,
)
from npattn.fast.threads import parallel_for
from npattn.ops.context import CONTEXT
from npattn.ops.products import matmul, product
from npattn.typing import Array, Backward

__all__ = ["product_and_sum", "product_in_blocks", "sum_of_products"]

Job = Callable[[], Any]
"""A part of the work, which a core does."""

MIN_SERIAL = 9216
"""Multiplications from which BLAS may take several threads of its own."""
MIN_MULTIPLICATIONS = 2**22
"""Multiplications of a whole batch from which several cores bring more than they cost."""

MIN_SUMMED_ROWS = 512
"""Rows of a block in a sum of products, from which it counts little that every block lays out all columns anew."""


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

    parallel_for(run, jobs_of_product(a, b, c), products=True)
    return c


def jobs_of_product(a: Array, b: Array, c: Array) -> list[Job]:
    """List what is to be done so that `c` holds the products of matrices, all with the same leading axes."""
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    return [
        functools.partial(multiply, a[at][..., i, :], b[at][..., j], out=c[at][..., i, j])
        for at, i, j in blocks_of_product(c.shape[:-2], rows, inner, columns)
    ]


def run(job: Job) -> None:
    """Do a part of the work."""
    job()


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
    """Add up products of matrices, (..., I, K) and (..., K, J) to (I, J), on all cores."""
    jobs, result = jobs_of_sum(a, b)
    parallel_for(run, jobs, products=True)
    return result()


def product_and_sum(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    """Return the products of a and b, and the sum of those of c and d, from one loop.

    Where a loop begins a thread waits for another one to wake, and where it ends for one that is not done.
    """
    if not is_worth_blocks(a, b) or a.shape[-1] == 1 or CONTEXT.get().handlers:
        return product(a, b), sum_of_products(c, d)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (np.broadcast_to(matrix, (*batch, *matrix.shape[-2:])) for matrix in (a, b))
    products = np.empty_like(a, order="C", shape=(*batch, a.shape[-2], b.shape[-1]))
    jobs, result = jobs_of_sum(c, d)
    parallel_for(run, jobs + jobs_of_product(a, b, products), products=True)
    return products, result()


def jobs_of_sum(a: Array, b: Array) -> tuple[list[Job], Callable[[], Array]]:
    """List what is to be done for a sum of products, and say how to get it when that is done.

    Each core adds up some rows of all products, where they are many, or else the products of some images. So no product
    is written to memory to be added to others, by one thread. With many columns the transpose is made: where K is long
    BLAS takes two thirds of the time for 256 rows of 32 that it takes for 32 rows of 256.
    """
    batch, (rows, inner), columns = a.shape[:-2], a.shape[-2:], b.shape[-1]
    worth = is_worth_blocks(a, b)
    few = blocks_of_each(math.prod(batch), MAX_PRODUCT_BLOCKS) > 1
    if not worth or few or rows * inner * columns < MIN_MULTIPLICATIONS:
        axes = tuple(range(len(batch)))
        if not worth or CONTEXT.get().handlers:
            return [], lambda: product(a, b).sum(axis=axes)
        products = np.empty_like(a, order="C", shape=(*batch, rows, columns))
        return jobs_of_product(a, b, products), lambda: products.sum(axis=axes)
    if rows < columns:
        jobs, result = jobs_of_sum(b.swapaxes(-1, -2), a.swapaxes(-1, -2))
        return jobs, lambda: result().T
    images, by_rows = list(np.ndindex(batch)), rows // MAX_PRODUCT_BLOCKS >= MIN_SUMMED_ROWS
    cut = cut_axis(rows if by_rows else len(images), MAX_PRODUCT_BLOCKS)
    sums = np.empty_like(a, order="C", shape=(1 if by_rows else len(cut), rows, columns))

    def add_up(number):
        some, part = (images, cut[number]) if by_rows else (images[cut[number]], slice(None))
        total = sums[0, part] if by_rows else sums[number]
        multiply(a[some[0]][part], b[some[0]], out=total)
        for image in some[1:]:
            add_product(a[image][part], b[image], out=total)

    return [functools.partial(add_up, i) for i in range(len(cut))], lambda: functools.reduce(operator.iadd, sums)

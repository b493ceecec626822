"""Products of large matrices."""

from __future__ import annotations

import itertools
import math

import numpy as np

from npattn.fast.blocks import are_machine_floats, cut_axis
from npattn.fast.threads import parallel_for
from npattn.ops.products import product

MIN_ONE_CORE = 9216
"""Multiplications in one product below which BLAS takes one core by itself."""
MIN_MULTIPLICATIONS = 2**22
"""Multiplications from which several cores bring more than they cost, a twentieth of a millisecond."""
NUM_BLOCKS = 4
"""Blocks of one product, or of few."""


def multiplications(a, b):
    """Count those of one product, and of all."""
    one = a.shape[-2] * a.shape[-1] * b.shape[-1]
    return one, one * math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))


def is_worth_blocks(a, b):
    """Tell whether BLAS would use several cores, or should."""
    if not are_machine_floats(a, b):
        return False
    one, every = multiplications(a, b)
    return one >= MIN_ONE_CORE or every >= MIN_MULTIPLICATIONS


@product.faster(suits=is_worth_blocks)
def product_in_blocks(a, b):
    """Multiply block by block, on all cores.

    BLAS would use all cores as well. But its threads keep their cores busy for a while after a product, to be quick at
    the next one, and so keep them from the passes over memory that come in between; and the bits of what it computes on
    several threads depend on their number.
    """
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = np.empty_like(a, order="C", shape=(*lead, rows, columns))
    a, b = np.broadcast_to(a, (*lead, rows, inner)), np.broadcast_to(b, (*lead, inner, columns))

    def compute(block):
        at, i, j = block
        np.matmul(a[at][..., i, :], b[at][..., j], out=c[at][..., i, j])

    parallel_for(compute, product_blocks(lead, rows, inner, columns), products=True)
    return c


def product_blocks(lead, rows, inner, columns):
    """Cut products into blocks by their shapes alone: some of the products, or of every one some rows or columns."""
    whole = slice(None)
    if math.prod(lead) * rows * inner * columns < MIN_MULTIPLICATIONS:
        return [((), whole, whole)]
    if lead and max(lead) >= NUM_BLOCKS:
        axis = lead.index(max(lead))
        before, behind = (whole,) * axis, (whole,) * (len(lead) - axis - 1)
        return [((*before, some, *behind), whole, whole) for some in cut_axis(lead[axis], NUM_BLOCKS)]
    count = -(-NUM_BLOCKS // math.prod(lead))
    cuts = (
        [(i, whole) for i in cut_axis(rows, count)]
        if rows >= columns
        else [(whole, j) for j in cut_axis(columns, count)]
    )
    return [(at, *cut) for at, cut in itertools.product(np.ndindex(lead), cuts)]

"""Sums of large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import blocks, broadcast_block, is_large
from npattn.fast.elementwise import add_up_in_blocks, combine_in_blocks
from npattn.fast.threads import parallel_for
from npattn.ops.adding import accumulate, add, shift
from npattn.typing import Array, Backward


@add.faster(suits=lambda *arrays: len(arrays) > 1 and is_large(*arrays))
def add_in_one_pass(*arrays: Array) -> tuple[Array, Backward]:
    """Add further maps to a block of the sum of two while it is in the cache."""
    first, second, *others = arrays
    count, y = len(arrays), np.empty_like(first)

    def compute(block):
        np.add(first[block], second[block], out=y[block])
        for other in others:
            y[block] += other[block]

    parallel_for(compute, blocks(y, axis=min(1, y.ndim - 1)))
    return y, lambda dy: (dy,) * count


MIN_UNCACHED_SIZE = 2**20
"""Numbers in a map from which a gradient that was just computed is not in its core's cache any more."""


@accumulate.faster(suits=lambda total, gradient: is_large(total, gradient) and total.flags.writeable)
def accumulate_in_place(total: Array, gradient: Array) -> Array:
    """Write the sum where the one summand stands: a new map would have to be got from memory."""
    if total.size < MIN_UNCACHED_SIZE:
        total += gradient
        return total

    def compute(block):
        total[block] += gradient[broadcast_block(gradient, block)]

    # From the end: what the pass before came to last is still in the cache.
    parallel_for(compute, blocks(total, axis=min(1, total.ndim - 1))[::-1])
    return total


@shift.faster(suits=is_large)
def shift_block_by_block(x: Array, t: Array) -> tuple[Array, Backward]:
    """Add to blocks, and add up the gradients of blocks, on all cores."""
    term = t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
    y, own = combine_in_blocks(np.add, x, term)

    def backward(dy):
        dt = None
        if is_large(dy, term):
            dt = add_up_in_blocks(dy, own, lambda block, subscripts, sums: np.einsum(subscripts, dy[block], out=sums))
        return shift.definition(dy, t)[1](dy) if dt is None else (dy, dt.reshape(t.shape))

    return y, backward

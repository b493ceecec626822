"""Gates of large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import broadcast_block, is_large
from npattn.fast.elementwise import add_up_in_blocks, combine_in_blocks
from npattn.ops.gating import gate
from npattn.typing import Array, Backward


@gate.faster(suits=is_large)
def gate_block_by_block(x: Array, a: Array) -> tuple[Array, Backward]:
    """Take both gradients of a block while it is in the cache, so that dy comes from memory once."""
    factor = a.reshape(a.shape + (1,) * (x.ndim - a.ndim))
    y, own = combine_in_blocks(np.multiply, x, factor)

    def backward(dy):
        if not is_large(dy, x, factor):
            return gate.definition(x, a)[1](dy)
        dx = np.empty_like(dy)

        def differentiate(block, subscripts, sums):
            if sums.ndim == dy.ndim:
                np.multiply(dy[block], x[block], out=sums)
            else:
                every, kept = subscripts.split("->")
                np.einsum(f"{every},{every}->{kept}", dy[block], x[block], out=sums)
            np.multiply(dy[block], factor[broadcast_block(factor, block)], out=dx[block])

        da = add_up_in_blocks(dy, own, differentiate)
        return gate.definition(x, a)[1](dy) if da is None else (dx, da.reshape(a.shape))

    return y, backward

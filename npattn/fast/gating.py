"""Gates of large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import blocks, broadcast_block, is_large
from npattn.fast.elementwise import combine_in_blocks
from npattn.fast.threads import parallel_for
from npattn.ops.gating import gate
from npattn.typing import Array, Backward


@gate.faster(suits=is_large)
def gate_block_by_block(x: Array, a: Array) -> tuple[Array, Backward]:
    """Take both gradients of a block while it is in the cache, so that dy comes from memory once."""
    factor = a.reshape(a.shape + (1,) * (x.ndim - a.ndim))
    y, every, own = combine_in_blocks(np.multiply, x, factor)

    def backward(dy):
        if not own.startswith("a") or not is_large(dy, x, factor):
            return gate.definition(x, a)[1](dy)
        # All that one element of a serves is in one block.
        dx, da = np.empty_like(dy), np.empty_like(factor)
        sums = da.reshape([n for n, m in zip(factor.shape, x.shape, strict=True) if n == m])

        def differentiate(block):
            to = tuple(part for part, letter in zip(block, every, strict=False) if letter in own)
            np.einsum(f"{every},{every}->{own}", dy[block], x[block], out=sums[to])
            np.multiply(dy[block], factor[broadcast_block(factor, block)], out=dx[block])

        parallel_for(differentiate, blocks(dy, axis=1 if own.startswith("ab") else 0))
        return dx, da.reshape(a.shape)

    return y, backward

"""Gates of large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import blocks, broadcast_block, is_large
from npattn.fast.elementwise import add_up_in_blocks, combine_in_blocks
from npattn.fast.threads import parallel_for
from npattn.ops.context import CONTEXT
from npattn.ops.gating import affine, gate
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


def is_large_and_unwatched(x: Array, weight: Array, bias: Array) -> bool:
    """Tell whether a map is large, and nobody asks for the gate and the shift that it goes through."""
    return is_large(x, weight, bias) and not CONTEXT.get().handlers


@affine.faster(suits=is_large_and_unwatched)
def affine_block_by_block(x: Array, weight: Array, bias: Array) -> tuple[Array, Backward]:
    """Shift a block while it is in the cache, and take all gradients of a block together."""
    y = np.empty_like(x)
    cut = blocks(x, 1)

    def compute(block):
        to = y[block]
        np.multiply(x[block], weight[:, block[1]], out=to)
        to += bias[:, block[1]]

    parallel_for(compute, cut)

    def backward(dy):
        if not is_large(dy, x):
            return affine.definition(x, weight, bias)[1](dy)
        dx, sums = np.empty_like(dy), np.empty_like(dy, shape=(2, *dy.shape[:2]))

        def differentiate(block):
            given = dy[block]
            np.einsum("bchw,bchw->bc", given, x[block], out=sums[0][block])
            np.einsum("bchw->bc", given, out=sums[1][block])
            np.multiply(given, weight[:, block[1]], out=dx[block])

        parallel_for(differentiate, cut)
        return dx, *sums.sum(axis=1).reshape(2, *weight.shape)

    return y, backward

"""Softmax of many rows."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import BLOCK_SIZE, blocks, is_large
from npattn.fast.threads import parallel_for
from npattn.ops.weighting import softmax
from npattn.typing import Array, Backward


@softmax.faster(suits=lambda x, axis=-1: is_large(x) and axis % x.ndim != 0)
def softmax_in_blocks(x: Array, axis: int = -1) -> tuple[Array, Backward]:
    """Weigh the rows of a block while it is in the cache, on all cores; images are apart."""
    axis %= x.ndim
    shape = *x.shape[:axis], 1, *x.shape[axis + 1 :]
    y, first = np.empty_like(x), np.empty_like(x, shape=shape, dtype=np.intp)
    cut = blocks(x, int(axis > 1), BLOCK_SIZE)

    def weigh(block):
        some = x[block]
        first[block] = some.argmax(axis=axis, keepdims=True)
        e = np.subtract(some, np.take_along_axis(some, first[block], axis), out=y[block])
        np.exp(e, out=e)
        e /= e.sum(axis=axis, keepdims=True)

    parallel_for(weigh, cut)

    def backward(dy):
        if not is_large(x, dy):
            return softmax.definition(x, axis)[1](dy)
        dx = np.empty_like(x)

        def differentiate(block):
            given = dy[block] - np.take_along_axis(dy[block], first[block], axis)
            along = (y[block] * given).sum(axis=axis, keepdims=True)
            given -= along
            np.multiply(y[block], given, out=dx[block])

        parallel_for(differentiate, cut)
        return dx

    return y, backward

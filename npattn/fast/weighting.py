"""Softmax of many rows."""

from __future__ import annotations

from collections import deque

import numpy as np

from npattn.fast.blocks import BLOCK_SIZE, blocks, is_large
from npattn.fast.threads import parallel_for, reusing_memory
from npattn.ops.weighting import softmax
from npattn.typing import Array, Backward

MAX_SHORT_LENGTH = 16
"""Numbers along an axis up to which it takes longer to find where the largest stands than to do all else."""


def are_short_columns(x: Array, axis: int = -1) -> bool:
    """Tell whether a map is large, and weighed along an axis of few numbers, which stand apart."""
    return is_large(x) and 0 < axis % x.ndim < x.ndim - 1 and x.shape[axis] <= MAX_SHORT_LENGTH


@softmax.faster(suits=are_short_columns)
def softmax_of_short_columns(x: Array, axis: int = -1) -> tuple[Array, Backward]:
    """Weigh all columns of a block at once, on all cores, without asking where the largest number of each stands.

    Backward the average of dy is taken off twice. The second takes off the rounding error of the first, beside which
    little else may be left where a weight is nearly 1.
    """
    axis %= x.ndim
    y, cut = np.empty_like(x), blocks(x, int(axis > 1), BLOCK_SIZE)

    def weigh(block):
        to_weights(np.subtract(x[block], x[block].max(axis=axis, keepdims=True), out=y[block]), axis)

    parallel_for(weigh, cut)

    def backward(dy):
        if not is_large(x, dy):
            return softmax.definition(x, axis)[1](dy)
        dx, finite = np.empty_like(x), deque[bool]()

        def differentiate(block, memory):
            weights, to = y[block], dx[block]
            average = np.multiply(weights, dy[block], out=to).sum(axis=axis, keepdims=True)
            given = np.subtract(dy[block], average, out=memory(to.shape))
            given -= np.multiply(weights, given, out=to).sum(axis=axis, keepdims=True)
            np.multiply(weights, given, out=to)
            finite.append(bool(np.isfinite(average).all()))

        with np.errstate(over="ignore", invalid="ignore"):
            parallel_for(reusing_memory(differentiate, x, 1), cut)
        return dx if all(finite) else softmax.definition(x, axis)[1](dy)

    return y, backward


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
        to_weights(np.subtract(some, np.take_along_axis(some, first[block], axis), out=y[block]), axis)

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


def to_weights(z: Array, axis: int) -> None:
    """Make of logits, the largest of which is 0, their weights, in place."""
    np.exp(z, out=z)
    z /= z.sum(axis=axis, keepdims=True)

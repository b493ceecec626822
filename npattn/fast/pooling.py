"""Pools of large maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npattn.fast.blocks import blocks, broadcast_block, is_large
from npattn.fast.threads import parallel_for
from npattn.ops.context import replaced
from npattn.ops.gating import LETTERS
from npattn.ops.global_pooling import global_pools
from npattn.ops.pooling import first_maximum, mean, scatter
from npattn.typing import Array, Backward

MAX_ROW_LENGTH = 4096
"""Numbers that may be added up one after the other: their rounding errors add up too."""


def has_short_rows(x: Array, axis: int | tuple[int, ...]) -> bool:
    """Tell whether a sum may go along the axis, or the last of them, one number after the other."""
    axes = (axis,) if isinstance(axis, int) else axis
    return is_large(x) and min(axes) >= 0 and x.shape[max(axes)] <= MAX_ROW_LENGTH


@mean.faster(suits=has_short_rows)
def mean_by_einsum(x: Array, axis: int | tuple[int, ...]) -> Array:
    """Add up along one axis by `np.einsum`, up to four times as quick as `np.mean`, which is slow where rows are short.

    The rest is small. A long sum is left to `np.mean`, which adds up in pairs and so loses fewer digits.
    """
    last = axis if isinstance(axis, int) else max(axis)
    length = x.shape[last]
    if axis == (x.ndim - 2, last) and x.shape[-2] * length <= MAX_ROW_LENGTH and x.flags.c_contiguous:
        one_row = x.reshape(*x.shape[:-2], x.shape[-2] * length)  # which is quicker than many short ones
        return mean_by_einsum(one_row, last - 1)[..., None]
    letters = LETTERS[: x.ndim]
    subscripts = f"{letters}->{letters.replace(letters[last], '')}"
    sums = np.empty_like(x, shape=x.shape[:last] + x.shape[last + 1 :])

    def add_up(block):
        target = [part for i, part in enumerate(block) if i != last]
        np.einsum(subscripts, x[block], out=sums[tuple(target)])

    parallel_for(add_up, blocks(x, next((i for i in range(1, x.ndim) if i != last), 0)))
    return np.expand_dims(sums / length, last).mean(axis=axis, keepdims=True)


@first_maximum.faster(suits=lambda x, axis: is_large(x) and axis >= 0)
def first_maximum_by_hits(x: Array, axis: int) -> tuple[Array, Array]:
    """Seek the maximum, then the place where it stands, while a block is in the cache.

    On an axis that is not the last argmax would turn the array around in memory first. Each hit counts for what is left
    of the axis, so that the first counts most.
    """
    length, shape = x.shape[axis], (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    first, highest = np.empty_like(x, shape=shape, dtype=np.intp), np.empty_like(x, shape=shape)
    left = np.arange(length - 1, -1, -1, dtype=np.min_scalar_type(length - 1))
    left = left.reshape((length,) + (1,) * (x.ndim - axis - 1))

    def find(block):
        some, to = x[block], broadcast_block(first, block)
        if axis != x.ndim - 1:
            np.max(some, axis=axis, keepdims=True, out=highest[to])
            hits = (some == highest[to]).view(np.uint8) * left
            first[to] = length - 1 - hits.max(axis=axis, keepdims=True).astype(np.intp)
        if axis == x.ndim - 1 or np.isnan(highest[to]).any():  # NaN is hit nowhere
            np.argmax(some, axis=axis, keepdims=True, out=first[to])
            highest[to] = np.take_along_axis(some, first[to], axis)

    parallel_for(find, blocks(x, next((i for i in range(1, x.ndim) if i != axis), 0)))
    return first, highest


def may_be_written(dp: Array, index: Array, axis: int, shape: tuple[int, ...], accumulate_into: Array | None) -> bool:
    """Tell whether there is a large map to add to."""
    if accumulate_into is None or axis < 0:
        return False
    return is_large(accumulate_into, dp) and accumulate_into.flags.writeable


@scatter.faster(suits=may_be_written)
def scatter_in_place(dp: Array, index: Array, axis: int, shape: tuple[int, ...], accumulate_into: Array) -> Array:
    """Add to those few numbers that change, instead of a map that is 0 nearly everywhere."""
    found = np.take_along_axis(accumulate_into, index, axis)
    np.put_along_axis(accumulate_into, index, found + dp, axis)
    return accumulate_into


def are_average_and_maximum(x: Array, names: Sequence[str]) -> bool:
    """Tell whether both are asked for, of rows that are short enough to be added up one number after the other."""
    return is_large(x) and {"avg", "max"} <= set(names) and x.shape[2] * x.shape[3] <= MAX_ROW_LENGTH


@global_pools.faster(suits=are_average_and_maximum)
def global_pools_in_one_pass(x: Array, names: Sequence[str]) -> tuple[tuple[Array, ...], Backward]:
    """Take average and maximum of a block while it is in the cache."""
    row = *x.shape[:2], x.shape[2] * x.shape[3]
    flat = x.reshape(row)
    average, first = np.empty_like(x, shape=row[:2]), np.empty_like(x, shape=(*row[:2], 1), dtype=np.intp)

    def compute(block):
        np.einsum("bcn->bc", flat[block], out=average[block])
        np.argmax(flat[block], axis=2, keepdims=True, out=first[block])

    parallel_for(compute, blocks(flat, 1))
    average /= row[2]
    found = {mean: average[:, :, None, None], first_maximum: (first, np.take_along_axis(flat, first, 2))}
    return replaced(lambda primitive, *_: found.get(primitive, NotImplemented), global_pools.definition, x, names)

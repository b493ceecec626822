"""Large maps cut into parts and dealt out, copied on all cores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from npattn.fast.blocks import blocks, is_large
from npattn.fast.threads import parallel_for
from npattn.fast.windowing import along
from npattn.ops.joining import channel_shuffle, split
from npattn.typing import Array, Backward


@split.faster(suits=lambda x, sizes, axis: is_large(x) and axis >= 0)
def split_and_join_in_blocks(x: Array, sizes: Sequence[int], axis: int) -> tuple[tuple[Array, ...], Backward]:
    """Lay the gradients of parts end to end block by block."""
    parts, back = split.definition(x, sizes, axis)
    shape, ends = x.shape, list(itertools.accumulate(sizes))

    def backward(dparts):
        if not all(is_large(dpart) for dpart in dparts):
            return back(dparts)
        dx = np.empty_like(dparts[0], shape=shape)
        places = [dx[along(axis, slice(end - size, end))] for end, size in zip(ends, sizes, strict=True)]

        def copy(job):
            place, dpart, block = job
            place[block] = dpart[block]

        pairs = zip(places, dparts, strict=True)
        parallel_for(copy, [(*pair, block) for pair in pairs for block in blocks(pair[1], min(1, dx.ndim - 1))])
        return dx

    return parts, backward


@channel_shuffle.faster(suits=lambda x, groups: is_large(x))
def channel_shuffle_in_blocks(x: Array, groups: int) -> tuple[Array, Backward]:
    """Copy some channels of each group at a time to where they go."""

    def backward(dy):
        return deal(dy, dy.shape[1] // groups) if is_large(dy) else channel_shuffle.definition(x, groups)[1](dy)

    return deal(x, groups), backward


def deal(x: Array, groups: int) -> Array:
    """Deal the channels of groups out in turn."""
    shape = len(x), groups, x.shape[1] // groups
    y = np.empty_like(x, shape=(shape[0], shape[2], groups, *x.shape[2:]), order="C")
    dealt = x.reshape(*shape, *x.shape[2:]).swapaxes(1, 2)

    def copy(block):
        y[block] = dealt[block]

    parallel_for(copy, blocks(y, 1))
    return y.reshape(x.shape)

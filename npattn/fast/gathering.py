"""Averages of overlapping neighbourhoods of large maps."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import BLOCK_SIZE, along, blocks, is_large
from npattn.fast.threads import parallel_for
from npattn.ops.gathering import gather_average
from npattn.typing import Array, Backward


@gather_average.faster(suits=lambda x, extent: is_large(x))
def gather_average_by_shifts(x: Array, extent: int) -> tuple[Array, Backward]:
    """Add up shifted rows, then shifted columns, while a block is in the cache; no neighbourhood is laid out."""
    taps = [list_distances(length, extent) for length in x.shape[2:]]
    rows, columns = (np.zeros_like(x, shape=-(-length // extent)) for length in x.shape[2:])
    for lengths, reads in zip((rows, columns), taps, strict=True):
        for to, _ in reads:
            lengths[to] += 1
    count = rows[:, None] * columns
    p = np.empty_like(x, shape=(*x.shape[:2], *count.shape))
    cut = blocks(x, 1, BLOCK_SIZE)

    def gather(block):
        some = x[block]
        for axis, ((_, first), *others) in zip((2, 3), taps, strict=True):
            total = some[along(axis, first)].copy()
            for to, read in others:
                total[along(axis, to)] += some[along(axis, read)]
            some = total
        np.divide(some, count, out=p[block])

    parallel_for(gather, cut)

    def backward(dp):
        if not is_large(x, dp):
            return gather_average.definition(x, extent)[1](dp)
        dx = np.empty_like(x)

        def share_out(block):
            shares = dp[block] / count
            across = share(shares, taps[1], 3, np.empty_like(dp, shape=(*shares.shape[:3], x.shape[3])))
            share(across, taps[0], 2, dx[block])

        parallel_for(share_out, cut)
        return dx

    return p, backward


def list_distances(length: int, extent: int) -> list[tuple[slice, slice]]:
    """Say which averages along an axis count a number at a distance, and which numbers those are.

    The distances are 0 to e - 1, to which every number lies from one average, and then -1 to 1 - e.
    """
    taps = []
    for distance in (*range(extent), *range(-1, -extent, -1)):
        first, last = int(distance < 0), (length - 1 - max(0, distance)) // extent
        if first <= last:
            read = slice(first * extent + distance, last * extent + distance + 1, extent)
            taps.append((slice(first, last + 1), read))
    return taps


def share(shares: Array, taps: list[tuple[slice, slice]], axis: int, out: Array) -> Array:
    """Give every number its share of all averages along an axis that count it."""
    for to, read in taps:
        if to.start == 0:  # these come first, and are all numbers
            out[along(axis, read)] = shares[along(axis, to)]
        else:
            out[along(axis, read)] += shares[along(axis, to)]
    return out

"""Affinities of many positions."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import MIN_PARALLEL_SIZE, are_machine_floats
from npattn.ops.affinity import affinity_sums
from npattn.ops.attention import transpose

BLOCK_PAIRS = 2**19
"""Pairs of positions in a block: few enough to stay in the cache from one pass over them to the next."""
MIN_ROWS = 256
"""Rows in a block at least: every block adds to all later columns, which has to serve many rows to be worth it."""


def is_worth_blocks(u, v):
    """Tell whether there are many pairs, of the machine's floats."""
    return u.shape[0] * u.shape[2] ** 2 >= MIN_PARALLEL_SIZE and are_machine_floats(u, v)


@affinity_sums.faster(suits=is_worth_blocks)
def affinity_sums_by_halves(u, v):
    """Compute but one of a_ij = a_ji, in blocks of the upper half, which their mirror image serves as well."""
    values = np.concatenate([v, np.ones_like(u[:, :1])], axis=1)
    sums = np.zeros_like(values)
    blocks = upper_half(u.shape[0], u.shape[2])
    for at, rows, rest, later in blocks:
        a = transpose(u[at][..., rows]) @ u[at][..., rest]
        a *= a > 0
        sums[at][..., rows] += values[at][..., rest] @ transpose(a)
        sums[at][..., later] += values[at][..., rows] @ a[..., a.shape[-2] :]

    def backward(dt, ds):
        dsums = np.concatenate([dt, ds], axis=1)
        du, dvalues = np.zeros_like(u), np.zeros_like(values)
        left, right = np.concatenate([dsums, values], axis=1), np.concatenate([values, dsums], axis=1)
        for at, rows, rest, later in blocks:
            a = transpose(u[at][..., rows]) @ u[at][..., rest]
            positive = a > 0
            a *= positive
            dvalues[at][..., rows] += dsums[at][..., rest] @ transpose(a)
            dvalues[at][..., later] += dsums[at][..., rows] @ a[..., a.shape[-2] :]
            da = np.matmul(transpose(left[at][..., rows]), right[at][..., rest], out=a)
            da *= positive
            du[at][..., rows] += u[at][..., rest] @ transpose(da)
            du[at][..., later] += u[at][..., rows] @ da[..., da.shape[-2] :]
        return du, dvalues[:, :-1].copy()

    return (sums[:, :-1], sums[:, -1:]), backward


def upper_half(images, positions):
    """Cut the upper half of the affinities into blocks: which images, which rows, the columns from there on.

    The rows' own columns come first in a block; `later` are those behind them, which the mirror image serves.
    """
    rows = max(1, min(positions, max(MIN_ROWS, BLOCK_PAIRS // positions)))
    several = max(1, BLOCK_PAIRS // (rows * positions))
    return [
        (slice(i, i + several), slice(m, m + rows), slice(m, None), slice(m + rows, None))
        for i in range(0, images, several)
        for m in range(0, positions, rows)
    ]

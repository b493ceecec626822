"""Affinities of many positions."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import MIN_PARALLEL_SIZE, are_machine_floats
from npattn.ops.affinity import affinity_sums
from npattn.ops.attention import transpose
from npattn.ops.products import product
from npattn.typing import Array, Backward

BLOCK_PAIRS = 2**19
"""Pairs of positions in a block: few enough to stay in the cache from one pass over them to the next."""
MIN_ROWS = 256
"""Rows in a block at least: every block adds to all later columns, which has to serve many rows to be worth it."""


def is_worth_blocks(u: Array, v: Array) -> bool:
    """Tell whether there are many pairs, of the machine's floats."""
    return u.shape[0] * u.shape[2] ** 2 >= MIN_PARALLEL_SIZE and are_machine_floats(u, v)


@affinity_sums.faster(suits=is_worth_blocks)
def affinity_sums_by_halves(u: Array, v: Array) -> tuple[tuple[Array, Array], Backward]:
    """Compute but one of a_ij = a_ji, in blocks of the upper half, which their mirror image serves as well."""
    values = np.concatenate([v, np.ones_like(u[:, :1])], axis=1)
    sums = np.zeros_like(values)
    blocks = upper_half(u.shape[0], u.shape[2])
    for at, rows, rest, later in blocks:
        a = product(transpose(u[at][..., rows]), u[at][..., rest])
        a *= a > 0
        sums[at][..., rows] += product(values[at][..., rest], transpose(a))
        sums[at][..., later] += product(values[at][..., rows], a[..., a.shape[-2] :])

    def backward(dt, ds):
        dsums = np.concatenate([dt, ds], axis=1)
        du, dvalues = np.zeros_like(u), np.zeros_like(values)
        left, right = np.concatenate([dsums, values], axis=1), np.concatenate([values, dsums], axis=1)
        for at, rows, rest, later in blocks:
            a = product(transpose(u[at][..., rows]), u[at][..., rest])
            positive = a > 0
            a *= positive
            dvalues[at][..., rows] += product(dsums[at][..., rest], transpose(a))
            dvalues[at][..., later] += product(dsums[at][..., rows], a[..., a.shape[-2] :])
            da = product(transpose(left[at][..., rows]), right[at][..., rest])
            da *= positive
            du[at][..., rows] += product(u[at][..., rest], transpose(da))
            du[at][..., later] += product(u[at][..., rows], da[..., da.shape[-2] :])
        return du, dvalues[:, :-1].copy()

    return (sums[:, :-1], sums[:, -1:]), backward


def upper_half(images: int, positions: int) -> list[tuple[slice, slice, slice, slice]]:
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

"""Affinities of many positions."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable

import numpy as np

from npattn.fast.blas import multiply, serial_product
from npattn.fast.blocks import MIN_PARALLEL_SIZE, are_machine_floats, cut_axis
from npattn.fast.elementwise import drop_where
from npattn.fast.threads import parallel_for
from npattn.ops.affinity import affinity_sums
from npattn.ops.attention import transpose
from npattn.typing import Array, Backward

BLOCK_ROWS, BLOCK_COLUMNS = 512, 768
"""Rows and columns in a block at most: its pairs stay in the cache from one pass over them to the next."""
Block = tuple[slice, slice, slice]
"""Images, rows and columns of a block of affinities."""
Parts = list[tuple[slice, tuple[Array, ...]]]
"""What a block adds to the results: at which positions, and to each of them how much."""


def is_worth_blocks(u: Array, v: Array) -> bool:
    """Tell whether there are many pairs, of the machine's floats."""
    return u.shape[0] * u.shape[2] ** 2 >= MIN_PARALLEL_SIZE and are_machine_floats(u, v)


@affinity_sums.faster(suits=is_worth_blocks)
def affinity_sums_by_halves(u: Array, v: Array) -> tuple[tuple[Array, Array], Backward]:
    """Compute but one of a_ij = a_ji, in blocks of the upper half, which their mirror image serves as well.

    Several blocks are computed at the same time; what they add to rows and columns is added in their order.
    """
    values = np.concatenate([v, np.ones_like(u[:, :1])], axis=1)
    sums = np.zeros_like(values)
    blocks = blocks_of_affinity(u.shape[0], u.shape[2])

    def sum_block(at: slice, m: slice, n: slice) -> Parts:
        a = serial_product(transpose(u[at][..., m]), u[at][..., n])
        np.maximum(a, 0, out=a)
        parts: Parts = [(m, (serial_product(values[at][..., n], transpose(a)),))]
        if n != m:
            parts.append((n, (serial_product(values[at][..., m], a),)))
        return parts

    add_in_order(sum_block, blocks, sums)

    def backward(dt, ds):
        dsums = np.concatenate([dt, ds], axis=1)
        du, dvalues = np.zeros_like(u), np.zeros_like(values)
        left, right = np.concatenate([dsums, values], axis=1), np.concatenate([values, dsums], axis=1)

        def differentiate_block(at: slice, m: slice, n: slice) -> Parts:
            a = serial_product(transpose(u[at][..., m]), u[at][..., n])
            np.maximum(a, 0, out=a)
            off = a == 0
            dvalues_m = serial_product(dsums[at][..., n], transpose(a))
            dvalues_n = serial_product(dsums[at][..., m], a) if n != m else None
            da = drop_where(off, multiply(transpose(left[at][..., m]), right[at][..., n], out=a), out=np.empty_like(a))
            parts: Parts = [(m, (serial_product(u[at][..., n], transpose(da)), dvalues_m))]
            if n != m:
                parts.append((n, (serial_product(u[at][..., m], da), dvalues_n)))
            return parts

        add_in_order(differentiate_block, blocks, du, dvalues)
        return du, dvalues[:, :-1].copy()

    return (sums[:, :-1], sums[:, -1:]), backward


def add_in_order(compute: Callable[[slice, slice, slice], Parts], blocks: list[Block], *totals: Array) -> None:
    """Compute blocks on all cores, and add what they give to the totals, in their order.

    The calling thread adds whenever it has computed a block: so little waits to be added, and the others compute on.
    """
    caller, found = get_ident(), dict[int, Parts]()
    added = 0

    def add():
        nonlocal added
        while added in found:
            at = blocks[added][0]
            for positions, parts in found.pop(added):
                for total, part in zip(totals, parts, strict=True):
                    total[at, :, positions] += part
            added += 1

    def work(number):
        found[number] = compute(*blocks[number])
        if get_ident() == caller:
            add()

    parallel_for(work, range(len(blocks)), products=True)
    add()


def blocks_of_affinity(images: int, positions: int) -> list[Block]:
    """Cut the upper half of the affinities into blocks of some images, rows and columns.

    Of each block of rows the rows' own columns come first; those behind them are served by the mirror image too.
    """
    rows = cut_axis(positions, -(-positions // BLOCK_ROWS))
    largest = rows[0].stop * min(positions, BLOCK_COLUMNS)
    several = max(1, BLOCK_ROWS * BLOCK_COLUMNS // largest)
    at = [slice(i, i + several) for i in range(0, images, several)]
    return [(some, m, n) for m in rows for n in [m, *cut_range(m.stop, positions)] for some in at]


def cut_range(start: int, stop: int) -> list[slice]:
    """Cut the columns from one on into blocks of nearly one length."""
    parts = cut_axis(stop - start, -(-(stop - start) // BLOCK_COLUMNS)) if start < stop else []
    return [slice(start + part.start, start + part.stop) for part in parts]

"""Affinities of many positions."""

from __future__ import annotations

import numpy as np

from npattn.fast.blas import serial_product
from npattn.fast.blocks import MIN_PARALLEL_SIZE, are_machine_floats, cut_axis
from npattn.fast.threads import parallel_for
from npattn.ops.affinity import affinity_sums
from npattn.ops.attention import transpose
from npattn.typing import Array, Backward

BLOCK_ROWS, BLOCK_COLUMNS = 512, 768
"""Rows and columns in a block at most: its pairs stay in the cache from one pass over them to the next."""


def is_worth_blocks(u: Array, v: Array) -> bool:
    """Tell whether there are many pairs, of the machine's floats."""
    return u.shape[0] * u.shape[2] ** 2 >= MIN_PARALLEL_SIZE and are_machine_floats(u, v)


@affinity_sums.faster(suits=is_worth_blocks)
def affinity_sums_by_halves(u: Array, v: Array) -> tuple[tuple[Array, Array], Backward]:
    """Compute but one of a_ij = a_ji, in blocks of the upper half, which their mirror image serves as well.

    One block of rows comes after the other. Its blocks add to different columns, so that they can be computed at the
    same time; what they add to the rows themselves is summed behind them, in order.
    """
    values = np.concatenate([v, np.ones_like(u[:, :1])], axis=1)
    sums = np.zeros_like(values)
    images, halves = cut(u.shape[0], u.shape[2])

    def add_up(block):
        at, m, n, part = block
        a = serial_product(transpose(u[at][..., m]), u[at][..., n])
        a *= a > 0
        part[at] = serial_product(values[at][..., n], transpose(a))
        if n != m:
            sums[at][..., n] += serial_product(values[at][..., m], a)

    for m, columns in halves:
        parts = np.empty_like(values, shape=(len(columns), *values[..., m].shape))
        blocks = [(at, m, n, part) for n, part in zip(columns, parts, strict=True) for at in images]
        parallel_for(add_up, blocks, products=True)
        sums[..., m] += parts.sum(axis=0)

    def backward(dt, ds):
        dsums = np.concatenate([dt, ds], axis=1)
        du, dvalues = np.zeros_like(u), np.zeros_like(values)
        left, right = np.concatenate([dsums, values], axis=1), np.concatenate([values, dsums], axis=1)

        def differentiate(block):
            at, m, n, du_part, dvalues_part = block
            a = serial_product(transpose(u[at][..., m]), u[at][..., n])
            positive = a > 0
            a *= positive
            da = serial_product(transpose(left[at][..., m]), right[at][..., n])
            da *= positive
            dvalues_part[at] = serial_product(dsums[at][..., n], transpose(a))
            du_part[at] = serial_product(u[at][..., n], transpose(da))
            if n != m:
                dvalues[at][..., n] += serial_product(dsums[at][..., m], a)
                du[at][..., n] += serial_product(u[at][..., m], da)

        for m, columns in halves:
            parts = [np.empty_like(x, shape=(len(columns), *x[..., m].shape)) for x in (u, values)]
            blocks = [(at, m, *rest) for rest in zip(columns, *parts, strict=True) for at in images]
            parallel_for(differentiate, blocks, products=True)
            du[..., m] += parts[0].sum(axis=0)
            dvalues[..., m] += parts[1].sum(axis=0)
        return du, dvalues[:, :-1].copy()

    return (sums[:, :-1], sums[:, -1:]), backward


def cut(images: int, positions: int) -> tuple[list[slice], list[tuple[slice, list[slice]]]]:
    """Cut the upper half of the affinities into blocks: images, and for each block of rows those of columns.

    The rows' own columns come first; those behind them are served by the mirror image too.
    """
    rows = cut_axis(positions, -(-positions // BLOCK_ROWS))
    largest = rows[0].stop * min(positions, BLOCK_COLUMNS)
    several = max(1, BLOCK_ROWS * BLOCK_COLUMNS // largest)
    at = [slice(i, i + several) for i in range(0, images, several)]
    return at, [(m, [m, *cut_range(m.stop, positions)]) for m in rows]


def cut_range(start: int, stop: int) -> list[slice]:
    """Cut the columns from one on into blocks of nearly one length."""
    parts = cut_axis(stop - start, -(-(stop - start) // BLOCK_COLUMNS)) if start < stop else []
    return [slice(start + part.start, start + part.stop) for part in parts]

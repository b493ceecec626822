"""Logits by relative position, of many pairs."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import deque
from typing import Any

import numpy as np

from npattn.fast.attention import BLOCK_LOGITS, NUM_BLOCKS_OF_SEVERAL, cut_lead, product_in
from npattn.fast.blas import multiply
from npattn.fast.blocks import MIN_PARALLEL_SIZE, are_machine_floats, cut_axis, is_shared_out
from npattn.fast.threads import Memory, parallel_for, reusing_memory
from npattn.ops.relative import relative_logits
from npattn.typing import Array, Backward


def are_many_pairs(q: Array, height_rel: Array, width_rel: Array, scale: float = 1.0) -> bool:
    """Tell whether there are, of the machine's floats, with vectors for every distance."""
    if type(q) is not np.ndarray or 0 < q.size * len(height_rel) * len(width_rel) < MIN_PARALLEL_SIZE:
        return False
    if not are_machine_floats(q, height_rel, width_rel):
        return False
    keys = [(len(table) + 1) // 2 for table in (height_rel, width_rel)]
    fitting = all(length <= count for length, count in zip(q.shape[-2:], keys, strict=True))
    return fitting and q.size // max(1, q.shape[-3]) * math.prod(keys) >= MIN_PARALLEL_SIZE


@relative_logits.faster(suits=are_many_pairs)
def relative_logits_at_once(
    q: Array, height_rel: Array, width_rel: Array, scale: float = 1.0
) -> tuple[Array, Backward]:
    """Multiply every query with the vectors of all offsets, and take what its keys ask for, on all cores.

    That is twice as many numbers, but in one product for each map, as the queries lie in memory. The definition
    multiplies the queries of one row, or one column, with vectors of their own: many small products of numbers that lie
    far apart. All that a block of queries needs is done in one go, while its products are in the cache.
    """
    shape, (d, h, w), lead = q.shape, q.shape[-3:], q.shape[:-3] or (1,)
    q = q.reshape(*lead, d, h, w)
    rows, columns = ((len(table) + 1) // 2 for table in (height_rel, width_rel))
    tables = scale * np.concatenate([height_rel, width_rel])
    z = np.empty_like(q, shape=(*lead, h, w, rows, columns), order="C")
    cut = blocks_of_queries(z)

    def add(block, first, second):
        at, i = block
        of_block, queries = z[at][..., i, :, :, :], side_by_side(q[at][..., i, :], first)
        to_rows, to_columns = asked_for(product_in(second, tables, queries), i.start, of_block.shape)
        np.add(np.ascontiguousarray(to_rows)[..., None], np.ascontiguousarray(to_columns)[..., None, :], out=of_block)

    parallel_for(reusing_memory(add, q, 2), cut, products=True)

    def backward(dz):
        dz, dq = dz.reshape(z.shape), np.empty_like(q, order="C")
        lines = lines_of_keys(rows, columns, dz)
        parts = np.empty_like(tables, shape=(len(cut), *tables.shape))
        totals: deque[Any] = deque()

        def differentiate(numbered, first, second, third):
            number, (at, i) = numbered
            queries, of_block = side_by_side(q[at][..., i, :], first), dz[at][..., i, :, :, :]
            sums = product_in(second, of_block.reshape(-1, rows * columns), lines).reshape(*of_block.shape[:-2], -1)
            dproducts = third((len(tables), queries.shape[1]))
            dproducts[...] = 0
            to_rows, to_columns = asked_for(dproducts, i.start, of_block.shape)
            to_rows[...], to_columns[...] = sums[..., :rows], sums[..., rows:]
            multiply(dproducts, queries.T, out=parts[number])
            dqueries = np.moveaxis(dq[at][..., i, :], -3, 0)
            totals.append(sums.sum())
            dqueries[...] = product_in(second, tables.T, dproducts).reshape(dqueries.shape)

        with np.errstate(over="ignore", invalid="ignore"):
            parallel_for(reusing_memory(differentiate, q, 3), enumerate(cut), products=True)
            dtables = scale * functools.reduce(operator.iadd, parts)
            totals.extend((tables.sum(), dtables.sum()))
        if not np.isfinite(totals).all():  # a product with 0 may have made a NaN where there is none
            return relative_logits.definition(q.reshape(shape), height_rel, width_rel, scale)[1](dz)
        return dq.reshape(shape), dtables[: len(height_rel)], dtables[len(height_rel) :]

    return z.reshape(*shape[:-3], h * w, rows * columns), backward


def blocks_of_queries(z: Array) -> list[tuple[Any, slice]]:
    """Cut logits, (*lead, h, w, K, L), into blocks: what to take of the leading axes, and which rows of queries."""
    *lead, h, w, rows, columns = z.shape
    if not is_shared_out(z):
        return [((), slice(0, h))]
    of_map, size = h * w * rows * columns, max(1, min(BLOCK_LOGITS, z.size // NUM_BLOCKS_OF_SEVERAL))
    return list(itertools.product(cut_lead(tuple(lead), size // of_map), cut_axis(h, -(-of_map // size))))


def side_by_side(queries: Array, memory: Memory) -> Array:
    """Lay maps side by side: (..., d, h, w) to (d, M h w)."""
    queries = np.moveaxis(queries, -3, 0)
    laid = memory(queries.shape)
    laid[...] = queries
    return laid.reshape(len(queries), -1)


def asked_for(products: Array, first: int, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """View those products that queries ask for, by rows and columns of keys: (..., h, w, K) and (..., h, w, L).

    The query in row i asks for those with the offsets -i, ..., K - 1 - i. The products, (2K - 1 + 2L - 1, M h w), are
    those of rows of queries from `first` on; `shape`, (..., h, w, K, L), is that of their logits.
    """
    *lead, h, w, rows, columns = shape
    offset, column = products.strides
    row = w * column
    maps = [h * row * math.prod(lead[axis + 1 :]) for axis in range(len(lead))]

    def view(offsets, keys, strides):
        return np.lib.stride_tricks.as_strided(offsets, (*lead, h, w, keys), (*maps, *strides))

    of_rows, of_columns = products[rows - 1 - first :], products[2 * rows - 1 + columns - 1 :]
    by_row, by_column = (row - offset, column, offset), (row, column - offset, offset)
    return view(of_rows, rows, by_row), view(of_columns, columns, by_column)


def lines_of_keys(rows: int, columns: int, like: Array) -> Array:
    """Say by 1 and 0 in which row, and in which column, a key stands: (K L, K + L)."""
    lines = np.zeros_like(like, shape=(rows, columns, rows + columns))
    for line in (lines[..., :rows].swapaxes(1, 0), lines[..., rows:]):
        line[...] = np.eye(line.shape[-1], dtype=like.dtype)
    return lines.reshape(rows * columns, rows + columns)

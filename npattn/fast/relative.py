"""Logits by relative position, of many pairs."""

from __future__ import annotations

import math

import numpy as np

from npattn.fast.blocks import BLOCK_SIZE, MIN_PARALLEL_SIZE, are_machine_floats, blocks
from npattn.fast.elementwise import are_finite
from npattn.fast.products import product_and_sum
from npattn.fast.threads import parallel_for
from npattn.ops.products import product
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
    """Multiply every query with the vectors of all offsets, and take what its keys ask for.

    That is twice as many numbers, but in one product for each map, as the queries lie in memory. The definition
    multiplies the queries of one row, or one column, with vectors of their own: many small products of numbers that lie
    far apart.
    """
    *lead, d, h, w = q.shape
    rows, columns = ((len(table) + 1) // 2 for table in (height_rel, width_rel))
    images = math.prod(lead)
    tables = scale * np.concatenate([height_rel, width_rel])
    maps = q.reshape(*lead, d, h * w)
    products = product(tables, maps).reshape(images, len(tables), h, w)
    to_rows, to_columns = (np.ascontiguousarray(a) for a in asked_for(products, rows, columns))
    z = np.empty_like(q, shape=(images, h, w, rows, columns), order="C")
    cut = blocks(z, 1, BLOCK_SIZE)

    def add(block):
        np.add(to_rows[block][..., None], to_columns[block][..., None, :], out=z[block])

    parallel_for(add, cut)

    def backward(dz):
        with np.errstate(over="ignore", invalid="ignore"):
            sums = product(dz.reshape(-1, rows * columns), lines_of_keys(rows, columns, dz))
            sums = sums.reshape(images, h, w, rows + columns)
            dproducts = np.zeros_like(sums, shape=(images, len(tables), h, w))
            of_rows, of_columns = asked_for(dproducts, rows, columns)
            of_rows[...], of_columns[...] = sums[..., :rows], sums[..., rows:]
            dproducts = dproducts.reshape(*lead, len(tables), h * w)
            dq, dtables = product_and_sum(tables.T, dproducts, dproducts, maps.swapaxes(-1, -2))
            finite = are_finite(sums, tables, dtables)
        if not finite:  # a product with 0 may have made a NaN where there is none
            return relative_logits.definition(q, height_rel, width_rel, scale)[1](dz)
        dtables = scale * dtables
        return dq.reshape(q.shape), dtables[: len(height_rel)], dtables[len(height_rel) :]

    return z.reshape(*lead, h * w, rows * columns), backward


def asked_for(products: Array, rows: int, columns: int) -> tuple[Array, Array]:
    """View the products, (M, 2K - 1 + 2L - 1, h, w), that queries ask for: by rows of keys, (M, h, w, K), and columns.

    The query in row i asks for those with the offsets -i, ..., K - 1 - i.
    """
    image, offset, row, column = products.strides

    def view(offsets, keys, strides):
        shape = len(products), *products.shape[2:], keys
        return np.lib.stride_tricks.as_strided(offsets[:, keys - 1 :], shape, strides)

    of_rows, of_columns = products[:, : 2 * rows - 1], products[:, 2 * rows - 1 :]
    by_row, by_column = (image, row - offset, column, offset), (image, row, column - offset, offset)
    return view(of_rows, rows, by_row), view(of_columns, columns, by_column)


def lines_of_keys(rows: int, columns: int, like: Array) -> Array:
    """Say by 1 and 0 in which row, and in which column, a key stands: (K L, K + L)."""
    lines = np.zeros_like(like, shape=(rows, columns, rows + columns))
    for line in (lines[..., :rows].swapaxes(1, 0), lines[..., rows:]):
        line[...] = np.eye(line.shape[-1], dtype=like.dtype)
    return lines.reshape(rows * columns, rows + columns)

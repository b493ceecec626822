"""Logits by relative position: what a query says of a key by how far off it lies."""

from __future__ import annotations

import math

import numpy as np

from npattn.ops.attention import transpose
from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.typing import Array, Backward

__all__ = ["relative_logits"]


@primitive
def relative_logits(q: Array, height_rel: Array, width_rel: Array, scale: float = 1.0) -> tuple[Array, Backward]:
    """Multiply every query with two vectors for each key, those of its offset in rows and in columns.

    z_{ij,kl} = scale q_ij · (r^H_{k-i} + r^W_{l-j}), for the query at (i, j) and the key at (k, l): as many numbers as
    there are pairs, of products with as many vectors as there are rows and columns.

    Parameters
    ----------
    q : array, (..., d, h, w)
        A map of queries.
    height_rel : array, (2K - 1, d)
        The vectors of the offsets -(K - 1), ..., K - 1, for K ≥ h rows of keys.
    width_rel : array, (2L - 1, d)
        Likewise, for L ≥ w columns of keys.
    scale : float, default 1

    Returns
    -------
    z : array, (..., h w, K L)
        A row for each query, row by row of the map.
    backward : callable
        ``backward(dz)`` returns ``(dq, dheight_rel, dwidth_rel)``.

    Notes
    -----
    Shaw et al.: Self-Attention with Relative Position Representations, NAACL 2018; of maps: Bello et al.: Attention
    Augmented Convolutional Networks, ICCV 2019. ``derivations/relative_logits.md`` derives the gradient.

    Examples
    --------
    Two queries, 1 and 10, side by side; a key to the left says 2, one to the right 4, the same column 3:

    >>> q, height_rel, width_rel = np.array([[[1.0, 10.0]]]), np.array([[0.0]]), np.array([[2.0], [3.0], [4.0]])
    >>> z, backward = relative_logits(q, height_rel, width_rel)
    >>> z
    array([[ 3.,  4.],
           [20., 30.]])
    >>> dq, dheight_rel, dwidth_rel = backward(np.ones_like(z))
    >>> dq.ravel(), dwidth_rel.ravel()
    (array([7., 5.]), array([10., 11.,  1.]))
    """
    queries = scale * np.moveaxis(q, -3, -1)  # (..., h, w, d)
    a, back_rows = offset_logits(queries, height_rel)
    b, back_columns = offset_logits(queries.swapaxes(-2, -3), width_rel)
    z = a[..., None] + b.swapaxes(-2, -3)[..., None, :]  # (..., h, w, K, L)

    def backward(dz):
        dz = dz.reshape(z.shape)
        drows, dheight_rel = back_rows(dz.sum(axis=-1))
        dcolumns, dwidth_rel = back_columns(dz.sum(axis=-2).swapaxes(-2, -3))
        return scale * np.moveaxis(drows + dcolumns.swapaxes(-2, -3), -1, -3), dheight_rel, dwidth_rel

    *lead, h, w, rows, columns = z.shape
    return z.reshape(*lead, h * w, rows * columns), backward


def offset_logits(q: Array, table: Array) -> tuple[Array, Backward]:
    """Multiply queries, (..., n, m, d), with the vectors of the offsets of K keys along the axis of n.

    At place i of n the offsets are -i, ..., K - 1 - i: K rows of the table, one up for each place on.
    """
    keys = (len(table) + 1) // 2
    starts = range(keys - 1, keys - 1 - q.shape[-3], -1)
    r = np.stack([table[start : start + keys] for start in starts])  # (n, K, d)

    def backward(da):
        dr = product(transpose(by_place(da)), by_place(q))
        dtable = np.zeros_like(table)
        for start, dvectors in zip(starts, dr, strict=True):
            dtable[start : start + keys] += dvectors
        return product(da, r), dtable

    return product(q, transpose(r)), backward


def by_place(a: Array) -> Array:
    """Collect what stands at each place: (..., n, m, c) to (n, M, c), M being all that shares a place."""
    *lead, n, m, c = a.shape
    return np.moveaxis(a, -3, 0).reshape(n, math.prod(lead) * m, c)

"""Positions that gather from all that look like them, in tiles."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive

__all__ = ["affinity_sums"]

PAIRS = 2**19
"""Pairs of positions in a tile: few enough to stay in the cache from one sweep over them to the next."""
ROWS = 256
"""Rows in a tile at least: every tile adds to all later columns, which has to serve many rows to be worth it."""


@primitive
def affinity_sums(u, v):
    """Sum values over all positions, each weighted by how much its feature points the same way: t = v A, s = 1ᵀ A.

    a_ij = max(u_i · u_j, 0), the affinity of positions i and j. The N × N of them are never held: forward and backward
    make them anew, a tile at a time, so memory grows as N. As a_ij = a_ji, only one of the two is made.

    Parameters
    ----------
    u : array, (B, E, N)
        Features of N positions, of unit length for a cosine.
    v : array, (B, K, N)
        Values.

    Returns
    -------
    (t, s) : array, (B, K, N), and array, (B, 1, N)
        Sums t_kj = Σ_i a_ij v_ki, and totals s_j = Σ_i a_ij.
    backward : callable
        ``backward(dt, ds)`` returns ``(du, dv)``. An affinity of exactly 0 has slope 0, as in `relu`.

    Notes
    -----
    The totals are the sums of a value that is 1 everywhere, so one product gives both. Values are scaled by their
    caller. ``derivations/pixel_correlation.md`` derives the gradient.

    Examples
    --------
    >>> u, v = np.array([[[1.0, 0.6, 0.0], [0.0, 0.8, -1.0]]]), np.array([[[1.0, 2.0, 4.0]]])
    >>> (t, s), backward = affinity_sums(u, v)
    >>> t, s
    (array([[[2.2, 2.6, 4. ]]]), array([[[1.6, 1.6, 1. ]]]))
    >>> du, dv = backward(np.ones((1, 1, 3)), np.zeros((1, 1, 3)))
    >>> dv
    array([[[1.6, 1.6, 1. ]]])
    """
    values = with_ones(v)
    sums = np.zeros_like(values)
    tiles = cut(u.shape[0], u.shape[2])
    for at, some, rest, later in tiles:
        a = transpose(u[at][..., some]) @ u[at][..., rest]
        a *= a.real > 0
        sums[at][..., some] += values[at][..., rest] @ transpose(a)
        sums[at][..., later] += values[at][..., some] @ a[..., a.shape[-2] :]

    def backward(dt, ds):
        dsums = np.concatenate([dt, ds], axis=1)
        du, dvalues = np.zeros_like(u), np.zeros_like(values)
        # a_ij stands in the sums of i and of j: its gradient is Σ_k (dsums_ki v_kj + v_ki dsums_kj), in one product.
        left, right = np.concatenate([dsums, values], axis=1), np.concatenate([values, dsums], axis=1)
        for at, some, rest, later in tiles:
            a = transpose(u[at][..., some]) @ u[at][..., rest]
            positive = a > 0
            a *= positive
            dvalues[at][..., some] += dsums[at][..., rest] @ transpose(a)
            dvalues[at][..., later] += dsums[at][..., some] @ a[..., a.shape[-2] :]
            da = np.matmul(transpose(left[at][..., some]), right[at][..., rest], out=a)
            da *= positive
            du[at][..., some] += u[at][..., rest] @ transpose(da)
            du[at][..., later] += u[at][..., some] @ da[..., da.shape[-2] :]
        return du, dvalues[:, :-1].copy()

    return (sums[:, :-1], sums[:, -1:]), backward


def with_ones(v):
    """Append a row of ones to the values of every image."""
    ones = np.ones_like(v, shape=(v.shape[0], 1, v.shape[2]))
    return np.concatenate([v, ones], axis=1)


def cut(images, positions):
    """Cut the upper half of the affinities into tiles: which images, which rows, the columns from there on.

    The rows' own columns come first in a tile; `later` are those behind them, which the mirror image serves.
    """
    some = max(1, min(positions, max(ROWS, PAIRS // positions)))
    several = max(1, PAIRS // (some * positions))
    return [
        (slice(i, i + several), slice(m, m + some), slice(m, None), slice(m + some, None))
        for i in range(0, images, several)
        for m in range(0, positions, some)
    ]


def transpose(a):
    """Swap the last two axes."""
    return a.swapaxes(-1, -2)

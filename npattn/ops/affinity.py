"""Positions that gather from all that look like them, block by block."""

from __future__ import annotations

import numpy as np

from npattn.ops.attention import transpose
from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.typing import Array, Backward

__all__ = ["affinity_sums"]

BLOCK_ROWS = 64
"""Rows in a block: no more affinities than theirs are ever materialised."""


@primitive
def affinity_sums(u: Array, v: Array) -> tuple[tuple[Array, Array], Backward]:
    """Sum values over all positions, each weighted by how much its feature points the same way: t = v A, s = 1ᵀ A.

    a_ij = max(u_i · u_j, 0), the affinity of positions i and j. The N × N of them are never
    materialised: forward and backward compute them block by block of rows, so memory grows as N.

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
        ``backward(dt, ds)`` returns ``(du, dv)``. An affinity of exactly 0 has slope 0, and NaN passes, as in `relu`.

    Notes
    -----
    The totals are the sums of a value that is 1 everywhere, so one product gives both. Values are scaled by their
    caller. Wang et al.: Self-supervised Equivariant Attention, CVPR 2020, gather this way.
    ``derivations/pixel_correlation.md`` derives the gradient.

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
    blocks = [slice(j, j + BLOCK_ROWS) for j in range(0, u.shape[2], BLOCK_ROWS)]
    values = np.concatenate([v, np.ones_like(u[:, :1])], axis=1)
    sums = np.empty_like(values)
    for j in blocks:
        c = product(transpose(u[..., j]), u)
        sums[..., j] = product(values, transpose(np.where(c.real <= 0, 0, c)))

    def backward(dt, ds):
        dsums = np.concatenate([dt, ds], axis=1)
        du, dvalues = np.empty_like(u), np.empty_like(values)
        # a_ij stands in the sums of i and of j: its gradient is Σ_k (dsums_ki values_kj + values_ki dsums_kj).
        left, right = np.concatenate([dsums, values], axis=1), np.concatenate([values, dsums], axis=1)
        for j in blocks:
            c = product(transpose(u[..., j]), u)
            dvalues[..., j] = product(dsums, transpose(np.where(c <= 0, 0, c)))
            da = product(transpose(left[..., j]), right)
            du[..., j] = product(u, transpose(np.where(c <= 0, 0, da)))
        return du, dvalues[:, :-1]

    return (sums[:, :-1], sums[:, -1:]), backward

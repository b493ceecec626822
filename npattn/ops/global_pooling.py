"""Global pools: one number for all positions of a channel.

Their ``backward(dp)`` returns ``dx``, and adds it to a gradient that is given as ``accumulate_into``, as that of the
pools along an axis does. ``derivations/global_pooling.md`` derives them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npattn.ops.adding import accumulate
from npattn.ops.pooling import average_pool, max_pool
from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = [
    "GLOBAL_POOLS",
    "global_average_pool",
    "global_lp_pool",
    "global_lse_pool",
    "global_max_pool",
    "global_pools",
]


@primitive
def global_average_pool(x: Array) -> tuple[Array, Backward]:
    """Average each channel over its positions: p_bc = (1/N) Σ_n x_bcn.

    Parameters
    ----------
    x : array, (B, C, H, W)

    Returns
    -------
    p : array, (B, C)
    backward : callable
        ``backward(dp, accumulate_into=None)`` returns ``dx``, (B, C, H, W); without `accumulate_into` a read-only
        view, as `average_pool`.

    Examples
    --------
    >>> p, backward = global_average_pool(np.array([[[[1.0, 2.0], [3.0, 6.0]]]]))
    >>> p
    array([[3.]])
    >>> backward(np.array([[1.0]]))
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    p, back_pool = average_pool(x, (2, 3))

    def backward(dp, accumulate_into=None):
        return back_pool(dp[:, :, None, None], accumulate_into)

    return p[:, :, 0, 0], backward


@primitive
def global_max_pool(x: Array) -> tuple[Array, Backward]:
    """Take each channel's maximum over its positions: p_bc = max_n x_bcn.

    Parameters
    ----------
    x : array, (B, C, H, W)

    Returns
    -------
    p : array, (B, C)
        NaN where there is one in the channel.
    backward : callable
        ``backward(dp, accumulate_into=None)`` returns ``dx``, (B, C, H, W): all of dp goes to the maximum's first
        position, row by row.

    Examples
    --------
    >>> p, backward = global_max_pool(np.array([[[[1.0, 7.0], [7.0, 6.0]]]]))
    >>> p
    array([[7.]])
    >>> backward(np.array([[1.0]]))
    array([[[[0., 1.],
             [0., 0.]]]])
    """
    row = *x.shape[:2], x.shape[2] * x.shape[3]
    p, back_pool = max_pool(x.reshape(row), axis=2)

    def backward(dp, accumulate_into=None):
        total = None if accumulate_into is None else accumulate_into.reshape(row)
        return back_pool(dp[:, :, None], total).reshape(x.shape)

    return p[:, :, 0], backward


@primitive
def global_lp_pool(x: Array) -> tuple[Array, Backward]:
    """Take each channel's Euclidean norm over its positions: p_bc = (Σ_n x_bcn²)^½.

    Parameters
    ----------
    x : array, (B, C, H, W)

    Returns
    -------
    p : array, (B, C)
    backward : callable
        ``backward(dp, accumulate_into=None)`` returns ``dx``, (B, C, H, W): dp x / p, and 0 where the whole
        channel is 0.

    Notes
    -----
    Numbers are squared as they are, as in PyTorch's ``lp_pool2d``. Where squares overflow, those of more than 1.8e19 in
    float32 and 1.3e154 in float64, p is infinite and dx 0; where all underflow, those of less than 2.7e-23 and
    1.6e-162, p is 0 and dx infinite, or NaN at a 0.

    Examples
    --------
    >>> p, backward = global_lp_pool(np.array([[[[3.0, 4.0]], [[0.0, 0.0]]]]))
    >>> p
    array([[5., 0.]])
    >>> backward(np.array([[1.0, 1.0]]))
    array([[[[0.6, 0.8]],
    <BLANKLINE>
            [[0. , 0. ]]]])
    """
    squares = (x * x).sum(axis=(2, 3))
    zero = (x.real == 0).all(axis=(2, 3))  # not by the squares, which may underflow
    p = np.sqrt(np.where(zero, 0, squares))

    def backward(dp, accumulate_into=None):
        return accumulate(accumulate_into, x * np.where(zero, 0, dp / np.where(zero, 1, p))[:, :, None, None])

    return p, backward


@primitive
def global_lse_pool(x: Array) -> tuple[Array, Backward]:
    """Take each channel's logsumexp over its positions, a soft maximum: p_bc = log Σ_n exp x_bcn.

    Parameters
    ----------
    x : array, (B, C, H, W)

    Returns
    -------
    p : array, (B, C)
        +∞ where +∞ is in the channel, -∞ where nothing else is.
    backward : callable
        ``backward(dp, accumulate_into=None)`` returns ``dx``, (B, C, H, W): dp times the softmax of the channel, which
        is NaN at what makes p infinite.

    Examples
    --------
    >>> p, backward = global_lse_pool(np.log(np.array([[[[1.0, 3.0]]]])) + 1000)
    >>> p - 1000
    array([[1.38629436]])
    >>> backward(np.array([[1.0]]))
    array([[[[0.25, 0.75]]]])
    """
    # log Σ exp x = m + log Σ exp(x - m) for any m; the maximum keeps exp from overflowing.
    maximum = x.real.max(axis=(2, 3), keepdims=True)
    maximum = np.where(np.isfinite(maximum), maximum, 0)  # ∞ - ∞ would be NaN
    e = np.exp(x - maximum)
    total = e.sum(axis=(2, 3), keepdims=True)
    p = (maximum + np.log(total))[:, :, 0, 0]

    def backward(dp, accumulate_into=None):
        return accumulate(accumulate_into, e * (dp[:, :, None, None] / total))

    return p, backward


GLOBAL_POOLS = {
    "avg": global_average_pool,
    "max": global_max_pool,
    "lp": global_lp_pool,
    "lse": global_lse_pool,
}
"""What a channel may be summarised by: its mean, maximum, Euclidean norm, and logsumexp."""


@primitive
def global_pools(x: Array, names: Sequence[str]) -> tuple[tuple[Array, ...], Backward]:
    """Pool each channel over its positions in several ways: p_k = pool_k(x).

    Parameters
    ----------
    x : array, (B, C, H, W)
    names : sequence of str
        Keys of `GLOBAL_POOLS`, each at most once: ``"avg"``, ``"max"``, ``"lp"``, ``"lse"``.

    Returns
    -------
    pooled : tuple of array, (B, C)
        In the order of `names`.
    backward : callable
        ``backward(dpooled, accumulate_into=None)`` takes a gradient for each pool and returns ``dx``, (B, C, H, W),
        their sum.

    Examples
    --------
    >>> (p, q), backward = global_pools(np.array([[[[1.0, 2.0], [3.0, 6.0]]]]), ("avg", "max"))
    >>> p, q
    (array([[3.]]), array([[6.]]))
    >>> backward((np.array([[4.0]]), np.array([[10.0]])))
    array([[[[ 1.,  1.],
             [ 1., 11.]]]])
    """
    pooled, backs = zip(*(GLOBAL_POOLS[name](x) for name in names), strict=True)

    def backward(dpooled, accumulate_into=None):
        for back, dp in zip(backs, dpooled, strict=True):
            accumulate_into = back(dp, accumulate_into=accumulate_into)
        return accumulate_into

    return pooled, backward

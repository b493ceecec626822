"""Pools: one number for many positions.

Their ``backward(dp)`` returns ``dx``. Given ``accumulate_into``, a gradient of x that has come another way, they add to
it in place and return it: a maximum's gradient is 0 nearly everywhere, and need not be written out for that.
"""

from __future__ import annotations

import math

import numpy as np

from npattn.ops.primitive import primitive
from npattn.ops.sweeping import LONG, average, elementwise, on_cores, pieces, spread_piece, worth_parting

__all__ = [
    "GLOBAL_POOLS",
    "average_pool",
    "global_average_pool",
    "global_lp_pool",
    "global_lse_pool",
    "global_max_pool",
    "global_pools",
    "max_pool",
]


@primitive
def average_pool(x, axis):
    """Average along one axis or several, which stay with length 1.

    Along W (axis 3) or H (axis 2) this is coordinate attention's directional pool, along the channels (axis 1) CBAM's
    channel pool.

    Parameters
    ----------
    x : array, (B, C, H, W)
    axis : int or tuple of int

    Returns
    -------
    p : array, as `x` with length 1 along `axis`
    backward : callable
        ``backward(dp, accumulate_into=None)`` returns ``dx``: every averaged element receives dp over their number.
        Without `accumulate_into` it is a read-only view that repeats numbers; add it to a gradient, or copy it.

    Examples
    --------
    >>> p, backward = average_pool(np.array([[[[1.0, 2.0], [3.0, 6.0]]]]), axis=3)
    >>> p
    array([[[[1.5],
             [4.5]]]])
    >>> backward(p)
    array([[[[0.75, 0.75],
             [2.25, 2.25]]]])
    """
    p = average(x, axis)
    return p, back_average(x.shape, p.shape)


def back_average(shape, pooled):
    """Make the backward pass of an average."""
    averaged = math.prod(shape) // max(math.prod(pooled), 1)

    def backward(dp, accumulate_into=None):
        share = dp / averaged
        return np.broadcast_to(share, shape) if accumulate_into is None else added(share, accumulate_into)

    return backward


@primitive
def max_pool(x, axis):
    """Take the maximum along one axis, which stays with length 1.

    Parameters
    ----------
    x : array, any shape
        Complex numbers are ordered by their real parts.
    axis : int
        From 1 on: images are apart.

    Returns
    -------
    p : array, as `x` with length 1 along `axis`
        NaN where there is one among the elements.
    backward : callable
        ``backward(dp, accumulate_into=None)`` returns ``dx``: all of dp goes to the maximum's first index, as in
        PyTorch.

    Examples
    --------
    >>> p, backward = max_pool(np.array([[1.0, 5.0, 5.0]]), axis=1)
    >>> p
    array([[5.]])
    >>> backward(np.array([[2.0]]))
    array([[0., 2., 0.]])
    """
    first, p = first_maximum(x, axis)
    return p, back_maximum(x.shape, first, axis)


def back_maximum(shape, first, axis):
    """Make the backward pass of a maximum from the place where it stands."""

    def backward(dp, accumulate_into=None):
        dx = np.zeros_like(dp, shape=shape) if accumulate_into is None else accumulate_into
        np.put_along_axis(dx, first, np.take_along_axis(dx, first, axis) + dp, axis)
        return dx

    return backward


@primitive
def global_average_pool(x):
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
    return average_of(x.shape, average(x, (2, 3)))


@primitive
def global_max_pool(x):
    """Take each channel's maximum over its positions: p_bc = max_n x_bcn.

    Parameters
    ----------
    x : array, (B, C, H, W)

    Returns
    -------
    p : array, (B, C)
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
    return maximum_of(x.shape, *first_maximum(x.reshape(*x.shape[:2], x.shape[2] * x.shape[3]), axis=2))


@primitive
def global_lp_pool(x):
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
    zero = (x.real == 0).all(axis=(2, 3))
    p = np.sqrt(np.where(zero, 0, squares))

    def backward(dp, accumulate_into=None):
        return added(x * np.where(zero, 0, dp / np.where(zero, 1, p))[:, :, None, None], accumulate_into)

    return p, backward


@primitive
def global_lse_pool(x):
    """Take each channel's log-sum-exp over its positions, a soft maximum: p_bc = log Σ_n exp x_bcn.

    Parameters
    ----------
    x : array, (B, C, H, W)

    Returns
    -------
    p : array, (B, C)
    backward : callable
        ``backward(dp, accumulate_into=None)`` returns ``dx``, (B, C, H, W): dp times the softmax of the channel.

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
    maximum = np.where(np.isfinite(maximum), maximum, 0)
    e = np.exp(x - maximum)
    total = e.sum(axis=(2, 3), keepdims=True)
    p = (maximum + np.log(total))[:, :, 0, 0]

    def backward(dp, accumulate_into=None):
        return added(e * (dp[:, :, None, None] / total), accumulate_into)

    return p, backward


GLOBAL_POOLS = {
    "avg": global_average_pool,
    "max": global_max_pool,
    "lp": global_lp_pool,
    "lse": global_lse_pool,
}
"""What a channel may be summarised by: its mean, maximum, Euclidean norm, and log-sum-exp."""


@primitive
def global_pools(x, names):
    """Pool each channel over its positions in several ways.

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
    both = average_and_maximum(x) if {"avg", "max"} <= set(names) and worth_parting(x) else {}
    pooled, backs = zip(*(both.get(name) or GLOBAL_POOLS[name](x) for name in names), strict=True)

    def backward(dpooled, accumulate_into=None):
        ways = zip(names, backs, dpooled, strict=True)
        # An average by itself gives a view, to which nothing can be added: it comes last.
        for _, back, dp in sorted(ways, key=lambda way: way[0] == "avg"):
            accumulate_into = back(dp, accumulate_into=accumulate_into)
        return accumulate_into

    return pooled, backward


def average_and_maximum(x):
    """Pool a large map by average and by maximum, in one sweep where rows are short enough to be added up plainly."""
    batch, channels, height, width = x.shape
    if height * width > LONG:
        return {}
    flat = x.reshape(batch, channels, height * width)
    mean, first = np.empty_like(x, shape=(batch, channels)), np.empty_like(x, shape=(batch, channels, 1), dtype=np.intp)

    def compute(piece):
        np.einsum("bcn->bc", flat[piece], out=mean[piece])
        np.argmax(flat[piece], axis=2, keepdims=True, out=first[piece])

    on_cores(compute, pieces(flat, 1))
    mean /= height * width
    return {
        "avg": average_of(x.shape, mean[:, :, None, None]),
        "max": maximum_of(x.shape, first, np.take_along_axis(flat, first, 2)),
    }


def average_of(shape, p):
    """Make a global average from the average over positions."""
    back_pool = back_average(shape, p.shape)

    def backward(dp, accumulate_into=None):
        return back_pool(dp[:, :, None, None], accumulate_into)

    return p[:, :, 0, 0], backward


def maximum_of(shape, first, p):
    """Make a global maximum from the maximum over positions in a row, and from where it stands."""
    batch, channels, height, width = shape
    row = batch, channels, height * width
    back_pool = back_maximum(row, first, axis=2)

    def backward(dp, accumulate_into=None):
        return back_pool(dp[:, :, None], None if accumulate_into is None else accumulate_into.reshape(row)).reshape(
            shape
        )

    return p[:, :, 0], backward


def first_maximum(x, axis):
    """Find where the first maximum along an axis stands, or the first NaN, and what it is.

    On an axis that is not the last argmax would turn the array around in memory first. Where x is large the maximum is
    sought, then the place where it stands, while the piece is in the cache: each hit counts for what is left of the
    axis, so that the first counts most.
    """
    if not worth_parting(x):
        first = np.argmax(x.real, axis=axis, keepdims=True)
        return first, np.take_along_axis(x, first, axis)
    length, shape = x.shape[axis], (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    first, highest = np.empty_like(x, shape=shape, dtype=np.intp), np.empty_like(x, shape=shape)
    left = np.arange(length - 1, -1, -1, dtype=np.min_scalar_type(length - 1))
    left = left.reshape((length,) + (1,) * (x.ndim - axis - 1))

    def find(piece):
        some, to = x[piece], spread_piece(first, piece)
        if axis != x.ndim - 1:
            np.max(some, axis=axis, keepdims=True, out=highest[to])
            hits = (some == highest[to]).view(np.uint8) * left
            first[to] = length - 1 - hits.max(axis=axis, keepdims=True).astype(np.intp)
        if axis == x.ndim - 1 or np.isnan(highest[to]).any():  # NaN is hit nowhere
            np.argmax(some, axis=axis, keepdims=True, out=first[to])
            highest[to] = np.take_along_axis(some, first[to], axis)

    on_cores(find, pieces(x, next((i for i in range(1, x.ndim) if i != axis), 0)))
    return first, highest


def added(dx, accumulate_into):
    """Add a gradient to another in place, if there is another."""
    return dx if accumulate_into is None else elementwise(np.add, accumulate_into, dx, out=accumulate_into)

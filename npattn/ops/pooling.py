"""Pools along an axis: one number for many.

Their ``backward(dp)`` returns ``dx``. Given ``accumulate_into``, a gradient of x that has come another way, they return
the sum of both, and may write it there: a maximum's gradient is 0 nearly everywhere.
"""

from __future__ import annotations

import math

import numpy as np

from npattn.ops.adding import accumulate
from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = [
    "average_pool",
    "first_maximum",
    "max_pool",
    "mean",
    "scatter",
]


@primitive
def mean(x: Array, axis: int | tuple[int, ...]) -> Array:
    """Average along one axis or several, which stay with length 1, p = (1/n) Σ_i x_i: the forward step of all averages.

    Parameters
    ----------
    x : array
    axis : int or tuple of int

    Returns
    -------
    array

    Examples
    --------
    >>> mean(np.array([[[1.0, 2.0], [3.0, 6.0]]]), axis=(1, 2))
    array([[[3.]]])
    """
    return x.mean(axis=axis, keepdims=True)


@primitive
def first_maximum(x: Array, axis: int) -> tuple[Array, Array]:
    """Find where the first maximum along an axis stands, or the first NaN, and what it is: m = x_i = max_k x_k.

    Parameters
    ----------
    x : array
        Complex numbers are ordered by their real parts.
    axis : int

    Returns
    -------
    index, maximum : array
        As `x` with length 1 along `axis`.

    Examples
    --------
    >>> first_maximum(np.array([[1.0, 5.0, 5.0]]), axis=1)
    (array([[1]]), array([[5.]]))
    """
    index = np.argmax(x.real, axis=axis, keepdims=True)
    return index, np.take_along_axis(x, index, axis)


@primitive
def scatter(dp: Array, index: Array, axis: int, shape: tuple[int, ...], accumulate_into: Array | None) -> Array:
    """Send each gradient to the one place along an axis that it belongs to: the backward step of all maxima.

    dx_k = dp where k is the index, else 0.

    Parameters
    ----------
    dp : array
        With length 1 along `axis`.
    index : array of int, as `dp`
    axis : int
    shape : tuple of int
        Of the result, which is 0 elsewhere.
    accumulate_into : array or None
        A gradient that has come another way, to which it is added.

    Returns
    -------
    array

    Examples
    --------
    >>> scatter(np.array([[2.0]]), np.array([[1]]), 1, (1, 3), None)
    array([[0., 2., 0.]])
    """
    dx = np.zeros_like(dp, shape=shape)
    np.put_along_axis(dx, index, dp, axis)
    return accumulate(accumulate_into, dx)


@primitive
def average_pool(x: Array, axis: int | tuple[int, ...]) -> tuple[Array, Backward]:
    """Average along one axis or several, which stay with length 1: p = (1/n) Σ_i x_i.

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
    p = mean(x, axis)
    averaged = math.prod(x.shape) // max(math.prod(p.shape), 1)  # 0 of an empty batch

    def backward(dp, accumulate_into=None):
        return accumulate(accumulate_into, np.broadcast_to(dp / averaged, x.shape))

    return p, backward


@primitive
def max_pool(x: Array, axis: int) -> tuple[Array, Backward]:
    """Take the maximum along one axis, which stays with length 1: p = max_i x_i.

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

    def backward(dp, accumulate_into=None):
        return scatter(dp, first, axis, x.shape, accumulate_into)

    return p, backward

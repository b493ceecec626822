"""Positions of a map that are scored, and some of them taken."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.typing import Array, Backward

__all__ = ["score", "select", "take", "top"]


@primitive
def score(x: Array, weight: Array, bias: Array) -> tuple[Array, Backward]:
    """Give every position one number: s_bn = Σ_c w_c x_bcn + β, a 1×1 convolution to one channel.

    Parameters
    ----------
    x : array, (B, C, N)
    weight : array, (1, C, 1, 1)
    bias : array, (1,)

    Returns
    -------
    s : array, (B, N)
    backward : callable
        ``backward(ds)`` returns ``(dx, dweight, dbias)``.

    Notes
    -----
    Scores decide which position comes first, and equal features should tie. A product of BLAS may round them
    differently, by where in the row they stand; einsum adds up every position's terms in the same order.

    Examples
    --------
    >>> s, backward = score(np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.ones((1, 2, 1, 1)), np.array([10.0]))
    >>> s
    array([[14., 16.]])
    >>> dx, dweight, dbias = backward(np.array([[1.0, 0.0]]))
    >>> dweight.ravel(), dbias
    (array([1., 3.]), array([1.]))
    """
    w = weight.reshape(weight.shape[1])
    s = np.einsum("bcn,c->bn", x, w) + bias

    def backward(ds):
        dweight = product(x, ds[:, :, None]).sum(axis=0).reshape(weight.shape)
        return w[:, None] * ds[:, None, :], dweight, ds.sum().reshape(1)

    return s, backward


@primitive
def take(x: Array, index: Array) -> tuple[Array, Backward]:
    """Take some positions' features: y_bck = x_bcn with n = index_bk.

    Parameters
    ----------
    x : array, (B, C, N)
    index : array of int, (B, K)
        Positions of each image, no two of them the same.

    Returns
    -------
    y : array, (B, C, K)
    backward : callable
        ``backward(dy)`` returns ``dx``: dy where a position was taken, else 0.

    Examples
    --------
    >>> y, backward = take(np.array([[[5.0, 6.0, 7.0]]]), np.array([[2, 0]]))
    >>> y
    array([[[7., 5.]]])
    >>> backward(np.array([[[1.0, 2.0]]]))
    array([[[2., 0., 1.]]])
    """
    # With positions before channels, an image and a position are the index of a whole feature.
    at = np.arange(len(index), like=index)[:, None], index

    def backward(dy):
        dx = np.zeros_like(x)
        dx.swapaxes(1, 2)[at] = dy.swapaxes(1, 2)
        return dx

    return x.swapaxes(1, 2)[at].swapaxes(1, 2), backward


@primitive
def select(x: Array, index: Array) -> tuple[Array, Backward]:
    """Select one position's feature, as a sum in which h is 1 at that position, else 0: y_bc = Σ_n h_bn x_bcn.

    Parameters
    ----------
    x : array, (B, C, N)
    index : array of int, (B,)

    Returns
    -------
    y : array, (B, C)
    backward : callable
        ``backward(dy)`` returns ``(dx, dh)``: dh, (B, N), says of every position what its weight would do.

    Examples
    --------
    >>> y, backward = select(np.array([[[5.0, 6.0, 7.0]]]), np.array([1]))
    >>> y
    array([[6.]])
    >>> dx, dh = backward(np.array([[2.0]]))
    >>> dx, dh
    (array([[[0., 2., 0.]]]), array([[10., 12., 14.]]))
    """
    y, back_take = take(x, index[:, None])

    def backward(dy):
        return back_take(dy[:, :, None]), product(dy[:, None], x)[:, 0]

    return y[:, :, 0], backward


@primitive
def top(x: Array, k: int) -> tuple[tuple[Array, Array], Backward]:
    """Take the k largest numbers of each row, the largest first: y_bj = x_bi with i = index_bj.

    Parameters
    ----------
    x : array, (B, N)
        Of equal numbers the one that stands first is taken first, the later ones where there is room. NaN counts as
        +∞, and is equal to it; -∞ comes last. Complex numbers are ordered by their real parts.
    k : int
        At most N.

    Returns
    -------
    y, index : array, (B, k)
        The numbers, and where in the row they stand.
    backward : callable
        ``backward(dy)`` returns ``dx``: dy where a number was taken, else 0.

    Examples
    --------
    >>> (y, index), backward = top(np.array([[1.0, 3.0, 2.0, 3.0]]), 2)
    >>> y, index
    (array([[3., 3.]]), array([[1, 3]]))
    >>> backward(np.array([[10.0, 20.0]]))
    array([[ 0., 10.,  0., 20.]])
    """
    falling = np.where(np.isnan(x.real), -np.inf, -x.real)
    index = np.argsort(falling, axis=1, kind="stable")[:, :k]

    def backward(dy):
        dx = np.zeros_like(x)
        np.put_along_axis(dx, index, dy, axis=1)
        return dx

    return (np.take_along_axis(x, index, axis=1), index), backward

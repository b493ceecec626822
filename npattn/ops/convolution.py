"""Convolutions, which here as in the field are cross-correlations: the kernel is not flipped."""

from __future__ import annotations

import numpy as np

__all__ = ["conv1d"]


def conv1d(x, weight):
    """Slide one kernel along every row, with zeros beyond the ends: z_bc = Σ_j w_j x_{b, c + j - (k-1)/2}.

    Parameters
    ----------
    x : array, (B, L)
    weight : array, (1, 1, k)
        One input and one output channel; k is odd, so that z is as long as x.

    Returns
    -------
    z : array, (B, L)
    backward : callable
        ``backward(dz)`` returns ``(dx, dweight)``.

    Examples
    --------
    >>> z, backward = conv1d(np.array([[1.0, 2.0, 3.0]]), np.array([[[10.0, 1.0, 0.0]]]))
    >>> z
    array([[ 1., 12., 23.]])
    >>> dx, dweight = backward(np.array([[1.0, 0.0, 0.0]]))
    >>> dx, dweight
    (array([[1., 0., 0.]]), array([[[0., 1., 2.]]]))
    """
    k = weight.shape[-1]
    kernel = weight.reshape(k)
    neighbours = windows(x, k)
    z = neighbours @ kernel

    def backward(dz):
        # x_c is read by its neighbours through the kernel's mirror image.
        dx = windows(dz, k) @ kernel[::-1]
        dkernel = dz.reshape(-1) @ neighbours.reshape(-1, k)
        return dx, dkernel.reshape(weight.shape)

    return z, backward


def windows(x, k):
    """Lay out the k neighbours of every element of a row, zeros beyond the ends: (B, L) to (B, L, k)."""
    batch, length = x.shape
    padded = np.zeros_like(x, shape=(batch, length + k - 1))
    padded[:, k // 2 : k // 2 + length] = x
    return np.stack([padded[:, j : j + length] for j in range(k)], axis=-1)

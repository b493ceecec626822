"""Pools: one number for many positions."""

from __future__ import annotations

import numpy as np

__all__ = ["global_average_pool"]


def global_average_pool(x):
    """Average each channel over its positions: p_bc = (1/N) Σ_n x_bcn.

    Parameters
    ----------
    x : array, (B, C, H, W)

    Returns
    -------
    p : array, (B, C)
    backward : callable
        ``backward(dp)`` returns ``dx``, (B, C, H, W): every position receives dp / N. It is a read-only view that
        repeats one number per channel; add it to a gradient, or copy it.

    Examples
    --------
    >>> p, backward = global_average_pool(np.array([[[[1.0, 2.0], [3.0, 6.0]]]]))
    >>> p
    array([[3.]])
    >>> backward(np.array([[1.0]]))
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    shape = x.shape
    positions = shape[2] * shape[3]
    p = x.mean(axis=(2, 3))

    def backward(dp):
        return np.broadcast_to((dp / positions)[:, :, None, None], shape)

    return p, backward

"""Gates: a map multiplied by an attention that is smaller than the map."""

from __future__ import annotations

import numpy as np

__all__ = ["gate"]


def gate(x, a):
    """Multiply a map by a gate that is spread over it: y = x ⊙ a.

    Parameters
    ----------
    x : array
        Such as (B, C, H, W).
    a : array
        The leading axes of `x`; an axis that is missing at the end, or of length 1, is spread over that of `x`:
        (B, C) gates channels, (B, 1, H, W) gates positions.

    Returns
    -------
    y : array, shape of `x`
    backward : callable
        ``backward(dy)`` returns ``(dx, da)``.

    Examples
    --------
    >>> y, backward = gate(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.5, 10.0]))
    >>> y
    array([[ 0.5,  1. ],
           [30. , 40. ]])
    >>> dx, da = backward(np.ones((2, 2)))
    >>> da
    array([3., 7.])
    """
    spread = a.reshape(a.shape + (1,) * (x.ndim - a.ndim))
    y = x * spread
    every = "abcdefgh"[: x.ndim]
    own = "".join(letter for letter, n, m in zip(every, spread.shape, x.shape, strict=True) if n == m)

    def backward(dy):
        # One element of a serves every element it was spread over: its gradient is their sum. einsum multiplies and
        # adds in one sweep, without holding the products.
        return dy * spread, np.einsum(f"{every},{every}->{own}", dy, x).reshape(a.shape)

    return y, backward

"""Gates: a map multiplied by an attention that is smaller than the map."""

from __future__ import annotations

from functools import partial

import numpy as np

from npattn.ops.sweeping import by_images, elementwise

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
    y = elementwise(np.multiply, x, spread)
    every = "abcdefgh"[: x.ndim]
    own = "".join(letter for letter, n, m in zip(every, spread.shape, x.shape, strict=True) if n == m)
    products = partial(np.einsum, f"{every},{every}->{own}")
    shared = "a" not in own  # by all images, so that their sums are not apart

    def backward(dy):
        # One element of a serves every element it was spread over: its gradient is their sum. einsum multiplies and
        # adds in one sweep, without holding the products.
        da = products(dy, x) if shared else by_images(products, dy, x)
        return elementwise(np.multiply, dy, spread), da.reshape(a.shape)

    return y, backward

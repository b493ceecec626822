"""Gates: a map multiplied by an attention that is smaller than the map."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.ops.sweeping import elementwise, on_cores, pieces, spread_piece, worth_parting

__all__ = ["gate"]


@primitive
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
    products = f"{every},{every}->{own}"

    def backward(dy):
        # One element of a serves every element it was spread over: its gradient is their sum. einsum multiplies and
        # adds in one sweep, without holding the products.
        if not own.startswith("a") or not worth_parting(dy, x, spread):
            return elementwise(np.multiply, dy, spread), np.einsum(products, dy, x).reshape(a.shape)
        # Both gradients of a piece while it is in the cache, so that dy comes from memory once. All that one element of
        # a serves is in one piece.
        dx, da = np.empty_like(dy), np.empty_like(spread)
        sums = da.reshape([n for n, m in zip(spread.shape, x.shape, strict=True) if n == m])

        def compute(piece):
            to = tuple(part for part, letter in zip(piece, every, strict=False) if letter in own)
            np.einsum(products, dy[piece], x[piece], out=sums[to])
            np.multiply(dy[piece], spread[spread_piece(spread, piece)], out=dx[piece])

        on_cores(compute, pieces(dy, 1) if own.startswith("ab") else pieces(dy, 0))
        return dx, da.reshape(a.shape)

    return y, backward

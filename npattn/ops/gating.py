"""Gates: a map multiplied by an attention that is smaller than the map, or scaled and shifted channel by channel."""

from __future__ import annotations

import numpy as np

from npattn.ops.adding import shift
from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["LETTERS", "affine", "gate"]

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What einsum calls axes."""


@primitive
def gate(x: Array, a: Array) -> tuple[Array, Backward]:
    """Multiply a map by a gate that is broadcast to it: y = x ⊙ a.

    Parameters
    ----------
    x : array
        Such as (B, C, H, W); of at most 52 axes, which einsum has letters for.
    a : array
        The leading axes of `x`; an axis that is missing at the end, or of length 1, is broadcast to that of `x`:
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
    broadcast = a.reshape(a.shape + (1,) * (x.ndim - a.ndim))
    every = LETTERS[: x.ndim]
    own = "".join(letter for letter, n, m in zip(every, broadcast.shape, x.shape, strict=True) if n == m)

    def backward(dy):
        # One element of a serves all that it was broadcast to: its gradient is their sum.
        da = np.einsum(f"{every},{every}->{own}", dy, x)
        return dy * broadcast, da.reshape(a.shape)

    return x * broadcast, backward


@primitive
def affine(x: Array, weight: Array, bias: Array) -> tuple[Array, Backward]:
    """Give every channel a scale and a shift: y = w x + b.

    Parameters
    ----------
    x : array, (B, C, H, W)
    weight, bias : array, (1, C, 1, 1)
        w and b.

    Returns
    -------
    y : array, shape of `x`
    backward : callable
        ``backward(dy)`` returns ``(dx, dweight, dbias)``.

    Examples
    --------
    >>> y, backward = affine(np.array([[[[3.0, 4.0]]]]), np.full((1, 1, 1, 1), 2.0), np.ones((1, 1, 1, 1)))
    >>> y
    array([[[[7., 9.]]]])
    >>> dx, dweight, dbias = backward(np.ones_like(y))
    >>> dx, dweight.ravel(), dbias.ravel()
    (array([[[[2., 2.]]]]), array([7.]), array([2.]))
    """
    scaled, back_scale = gate(x, weight)
    y, back_shift = shift(scaled, bias)

    def backward(dy):
        dscaled, dbias = back_shift(dy)
        return *back_scale(dscaled), dbias

    return y, backward

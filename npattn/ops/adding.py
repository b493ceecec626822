"""Sums of maps: where paths meet, forward as skip connections, backward as the gradients of what went several ways."""

from __future__ import annotations

import functools
import operator

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["accumulate", "add", "shift"]


@primitive
def add(*arrays: Array) -> tuple[Array, Backward]:
    """Add maps: y = Σ_i x_i.

    Parameters
    ----------
    *arrays : array
        All of one shape.

    Returns
    -------
    y : array
    backward : callable
        ``backward(dy)`` returns a tuple with a gradient for every array: dy itself, which is not to be written to.

    Examples
    --------
    >>> import numpy as np
    >>> y, backward = add(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    >>> y
    array([4., 6.])
    >>> backward(y)
    (array([4., 6.]), array([4., 6.]))
    """
    count = len(arrays)  # which alone is kept: the arrays need not live as long as the way back

    def backward(dy):
        return (dy,) * count

    return functools.reduce(operator.add, arrays), backward


@primitive
def accumulate(total: Array | None, gradient: Array) -> Array:
    """Add a gradient to those of the same array that have come other ways: s = t + g, or g where there are none yet.

    Parameters
    ----------
    total : array or None
        Their sum, which is not needed any more: it may be written to. None where there are none yet.
    gradient : array
        Of the same shape, or broadcast to it.

    Returns
    -------
    array

    Examples
    --------
    >>> import numpy as np
    >>> accumulate(np.array([1.0, 2.0]), np.array([3.0]))
    array([4., 5.])
    >>> accumulate(None, np.array([3.0]))
    array([3.])
    """
    return gradient if total is None else total + gradient


@primitive
def shift(x: Array, t: Array) -> tuple[Array, Backward]:
    """Add to a map what is broadcast to it: y = x + t.

    Parameters
    ----------
    x : array
        Such as (B, C, H, W).
    t : array
        The leading axes of `x`; an axis that is missing at the end, or of length 1, is broadcast to that of `x`:
        (B, C) shifts channels.

    Returns
    -------
    y : array, shape of `x`
    backward : callable
        ``backward(dy)`` returns ``(dx, dt)``: dx is dy itself, which is not to be written to.

    Examples
    --------
    >>> import numpy as np
    >>> y, backward = shift(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 20.0]))
    >>> y
    array([[11., 12.],
           [23., 24.]])
    >>> dx, dt = backward(y)
    >>> dt
    array([23., 47.])
    """
    broadcast = t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
    axes = tuple(axis for axis, length in enumerate(broadcast.shape) if length == 1)

    def backward(dy):
        return dy, dy.sum(axis=axes).reshape(t.shape)  # one element of t serves all that it was broadcast to

    return x + broadcast, backward

"""Sums of maps: where paths meet, forward as skip connections, backward as the gradients of what went several ways."""

from __future__ import annotations

import functools
import operator

import numpy as np

from npattn.ops.primitive import primitive
from npattn.ops.sweeping import on_cores, pieces, worth_parting

__all__ = ["add"]


@primitive
def add(*arrays):
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
    >>> y, backward = add(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    >>> y
    array([4., 6.])
    >>> backward(y)
    (array([4., 6.]), array([4., 6.]))
    """
    count = len(arrays)  # which alone is kept: the arrays need not live as long as the way back

    def backward(dy):
        return (dy,) * count

    if count < 2 or not worth_parting(*arrays):
        return functools.reduce(operator.add, arrays), backward
    first, second, *others = arrays
    y = np.empty_like(first)

    def compute(piece):
        np.add(first[piece], second[piece], out=y[piece])
        for other in others:  # while the sum is in the cache
            y[piece] += other[piece]

    on_cores(compute, pieces(y, axis=min(1, y.ndim - 1)))
    return y, backward

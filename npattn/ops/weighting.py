"""Weights that are positive and add up to 1."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["softmax", "softmin"]


@primitive
def softmax(x: Array, axis: int = -1) -> tuple[Array, Backward]:
    """Turn logits into weights that add up to 1 along an axis: y_i = exp x_i / Σ_k exp x_k.

    Parameters
    ----------
    x : array, any shape
    axis : int, default -1

    Returns
    -------
    y : array, shape and dtype of `x`
        A logit of -inf has weight 0. NaN, +inf, or nothing but -inf along the axis makes all weights there NaN.
    backward : callable
        ``backward(dy)`` returns ``dx``: y (dy - Σ_k y_k dy_k).

    Notes
    -----
    ``derivations/softmax_over_branches.md`` derives the gradient.

    Examples
    --------
    >>> y, backward = softmax(np.log([1.0, 3.0]) + 1e4)
    >>> y
    array([0.25, 0.75])
    >>> backward(np.array([1.0, 0.0]))
    array([ 0.1875, -0.1875])
    """
    # A constant added to all logits, or to all of dy, changes nothing. Taking away that of the largest weight keeps exp
    # from overflowing, and a weight of nearly 1 from a gradient that is the difference of two nearly equal numbers.
    first = x.real.argmax(axis=axis, keepdims=True)
    e = np.exp(x - np.take_along_axis(x, first, axis))
    y = e / e.sum(axis=axis, keepdims=True)

    def backward(dy):
        dy = dy - np.take_along_axis(dy, first, axis)
        return y * (dy - (y * dy).sum(axis=axis, keepdims=True))

    return y, backward


@primitive
def softmin(x: Array, axis: int = -1) -> tuple[Array, Backward]:
    """Turn logits into weights, the least logit's the largest: y_i = exp(-x_i) / Σ_k exp(-x_k).

    Parameters
    ----------
    x : array, any shape
    axis : int, default -1

    Returns
    -------
    y : array, shape and dtype of `x`
        The softmax of -x. A logit of +inf has weight 0.
    backward : callable
        ``backward(dy)`` returns ``dx``: -y (dy - Σ_k y_k dy_k).

    Examples
    --------
    >>> y, backward = softmin(np.log([1.0, 3.0]))
    >>> y
    array([0.75, 0.25])
    >>> backward(np.array([1.0, 0.0]))
    array([-0.1875,  0.1875])
    """
    y, back_softmax = softmax(-x, axis)

    def backward(dy):
        return -back_softmax(dy)

    return y, backward

"""Functions of one number, applied to every element."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["ACTIVATIONS", "GATES", "hard_sigmoid", "hard_swish", "relu", "sigmoid", "silu", "tanh"]


@primitive
def relu(x: Array) -> tuple[Array, Backward]:
    """Rectify: y = max(x, 0), with slope 0 at the corner and NaN passed on.

    Parameters
    ----------
    x : array, any shape
        A complex number is rectified by the sign of its real part.

    Returns
    -------
    y : array, shape and dtype of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``.

    Examples
    --------
    >>> y, backward = relu(np.array([-2.0, 0.0, 3.0]))
    >>> y
    array([0., 0., 3.])
    >>> backward(np.array([1.0, 1.0, 1.0]))
    array([0., 0., 1.])
    """
    on = ~(x.real <= 0)  # true for NaN, which so passes

    def backward(dy):
        return np.where(on, dy, 0)

    return np.where(on, x, 0), backward


@primitive
def sigmoid(x: Array) -> tuple[Array, Backward]:
    """Squash into (0, 1) by the logistic function: y = 1 / (1 + exp(-x)).

    Parameters
    ----------
    x : array, any shape

    Returns
    -------
    y : array, shape and dtype of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``.

    Examples
    --------
    >>> y, backward = sigmoid(np.array([-800.0, 0.0, 40.0]))
    >>> y
    array([0. , 0.5, 1. ])
    >>> backward(np.array([0.0, 1.0, 1.0]))[1:]
    array([2.50000000e-01, 4.24835426e-18])
    """
    negative = x.real < 0
    e = np.exp(np.where(negative, x, -x))  # at most 1: never overflows
    y = np.where(negative, e, 1) / (1 + e)

    def backward(dy):
        # y' = y (1 - y) = e / (1 + e)²; the last form has no 1 - y to cancel where y is nearly 1.
        return dy * (e / (1 + e) ** 2)

    return y, backward


@primitive
def hard_sigmoid(x: Array) -> tuple[Array, Backward]:
    """Squash into [0, 1] by straight lines: y = min(max(x + 3, 0), 6) / 6, with slope 0 at both corners.

    Parameters
    ----------
    x : array, any shape

    Returns
    -------
    y : array, shape and dtype of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``.

    Examples
    --------
    >>> y, backward = hard_sigmoid(np.array([-3.0, 0.0, 3.0, 4.0]))
    >>> y
    array([0. , 0.5, 1. , 1. ])
    >>> backward(np.full(4, 6.0))
    array([0., 1., 0., 0.])
    """
    below, above = x.real <= -3, x.real >= 3  # both false for NaN, which so passes
    y = np.where(below, 0, np.where(above, 1, (x + 3) / 6))

    def backward(dy):
        return np.where(below | above, 0, dy / 6)

    return y, backward


@primitive
def hard_swish(x: Array) -> tuple[Array, Backward]:
    """Gate x by its own hard sigmoid: y = x min(max(x + 3, 0), 6) / 6.

    Parameters
    ----------
    x : array, any shape

    Returns
    -------
    y : array, shape and dtype of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``. At the corners -3 and 3 the inner slope is 0 (`hard_sigmoid`), so that y' is
        0 and 1 there.

    Notes
    -----
    Howard et al.: Searching for MobileNetV3, ICCV 2019, section 5.2.

    Examples
    --------
    >>> y, backward = hard_swish(np.array([-3.0, 0.0, 3.0]))
    >>> y
    array([-0.,  0.,  3.])
    >>> backward(np.ones(3))
    array([0. , 0.5, 1. ])
    """
    s, back_sigmoid = hard_sigmoid(x)

    def backward(dy):
        return dy * s + back_sigmoid(dy * x)

    return x * s, backward


@primitive
def silu(x: Array) -> tuple[Array, Backward]:
    """Gate x by its own sigmoid, as a sigmoid linear unit or swish: y = x / (1 + exp(-x)).

    Parameters
    ----------
    x : array, any shape

    Returns
    -------
    y : array, shape and dtype of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``.

    Notes
    -----
    Ramachandran, Zoph, Le: Searching for Activation Functions, arXiv:1710.05941, with β = 1.

    Examples
    --------
    >>> y, backward = silu(np.array([-40.0, 0.0, 40.0]))
    >>> y
    array([-1.6993417e-16,  0.0000000e+00,  4.0000000e+01])
    >>> backward(np.ones(3)).round(3)
    array([-0. ,  0.5,  1. ])
    """
    s, back_sigmoid = sigmoid(x)

    def backward(dy):
        return dy * s + back_sigmoid(dy * x)

    return x * s, backward


@primitive
def tanh(x: Array) -> tuple[Array, Backward]:
    """Squash into (-1, 1) by the hyperbolic tangent: y = (exp(x) - exp(-x)) / (exp(x) + exp(-x)).

    Parameters
    ----------
    x : array, any shape

    Returns
    -------
    y : array, shape and dtype of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``.

    Examples
    --------
    >>> y, backward = tanh(np.array([-800.0, 0.0, np.log(2)]))
    >>> y
    array([-1. ,  0. ,  0.6])
    >>> backward(np.array([0.0, 1.0, 1.0]))
    array([0.  , 1.  , 0.64])
    """
    y = np.tanh(x)

    def backward(dy):
        # y' = 1 - y² = 1 / cosh² x; made of e^-|x|, at most 1, it loses no digits where y is nearly ±1.
        e = np.exp(np.where(x.real < 0, x, -x))
        return dy * (2 * e / (1 + e * e)) ** 2

    return y, backward


ACTIVATIONS = {"relu": relu, "silu": silu, "hard_swish": hard_swish}
"""What may stand between two layers, by name."""
GATES = {"sigmoid": sigmoid, "hard_sigmoid": hard_sigmoid}
"""What may make a gate of a logit, by name."""

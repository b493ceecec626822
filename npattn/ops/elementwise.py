"""Functions of one number, applied to every element."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = [
    "ACTIVATIONS",
    "GATES",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "leaky_relu",
    "relu",
    "sigmoid",
    "silu",
    "tanh",
]


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
    on = ~(x.real <= 0)  # true for NaN, so that it passes

    def backward(dy):
        return np.where(on, dy, 0)

    return np.where(on, x, 0), backward


@primitive
def leaky_relu(x: Array, negative_slope: float = 0.01) -> tuple[Array, Backward]:
    """Rectify, but leave a slope below 0: y = max(x, 0) + negative_slope min(x, 0), with NaN passed on.

    Parameters
    ----------
    x : array, any shape
        A complex number is rectified by the sign of its real part.
    negative_slope : float, default 0.01

    Returns
    -------
    y : array, shape and dtype of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``. At the corner the slope is `negative_slope`.

    Notes
    -----
    Maas, Hannun, Ng: Rectifier Nonlinearities Improve Neural Network Acoustic Models, ICML 2013 workshops, eq. 2.

    Examples
    --------
    >>> y, backward = leaky_relu(np.array([-2.0, 0.0, 3.0]))
    >>> y
    array([-0.02,  0.  ,  3.  ])
    >>> backward(np.array([1.0, 1.0, 1.0]))
    array([0.01, 0.01, 1.  ])
    """
    on = ~(x.real <= 0)  # true for NaN, so that it passes

    def backward(dy):
        return np.where(on, dy, negative_slope * dy)

    return np.where(on, x, negative_slope * x), backward


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
    below, above = x.real <= -3, x.real >= 3  # both false for NaN, so that it passes
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
def gelu(x: Array) -> tuple[Array, Backward]:
    """Gate x by the share of standard normal numbers below it, as a Gaussian error linear unit: y = x Φ(x).

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
    Hendrycks, Gimpel: Gaussian Error Linear Units, arXiv:1606.08415: the function itself, Φ(x) = (1 + erf(x / √2)) / 2,
    not its approximations by tanh or the logistic sigmoid. Of -∞ it is 0 times ∞, NaN, and so is the slope at both
    infinities, as in PyTorch.

    Examples
    --------
    >>> y, backward = gelu(np.array([-10.0, -1.0, 0.0, 1.0]))
    >>> y
    array([-7.61985302e-23, -1.58655254e-01,  0.00000000e+00,  8.41344746e-01])
    >>> backward(np.ones(4)).round(3)
    array([-0.   , -0.083,  0.5  ,  1.083])
    """
    magnitude = np.where(x.real < 0, -x, x)
    magnitude = np.where(magnitude.real > 200, 200, magnitude)  # whose density is 0 for all kinds of number
    tail = normal_tail(magnitude)
    share = np.where(x.real < 0, tail, 1 - tail)

    def backward(dy):
        density = np.exp(-magnitude * magnitude / 2) / np.sqrt(2 * pi_of(x))
        return dy * (share + x * density)

    return x * share, backward


def normal_tail(x: Array) -> Array:
    """Compute Q(x) = 1 - Φ(x) for x ≥ 0, to the digits of any kind of number, however small it is.

    Q(x) = x/π ∫ exp(-(s² + x²)/2) / (s² + x²) ds over all s > 0, by the midpoint rule with steps of 1/2. Below x = 4π
    the pole at s = ix takes 1 / (1 + exp(4πx)) from that, which is put back; then it is off by less than 1e-33 of Q
    (Hunter, Regan: A Note on the Evaluation of the Complementary Error Function, Mathematics of Computation 26, 1972),
    but for the rounding of x²/2 in the exponent. Behind 26 midpoints nothing is left of the integral: exp(-13²/2).
    """
    pi = pi_of(x)
    squares = [(n / 2 + 1 / 4) ** 2 for n in range(26)]  # s²
    integral = sum(np.exp(-(square + x * x) / 2) / (square + x * x) for square in squares) / 2
    e = np.exp(-4 * pi * x)  # at most 1
    return x / pi * integral + np.where(x.real < 4 * pi, e / (1 + e), 0)


def pi_of(x: Array) -> Array:
    """Compute π to the digits that numbers of the kind of x have; a constant has those of float64."""
    return 4 * np.arctan(np.ones_like(x.real, shape=()))


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


ACTIVATIONS = {"relu": relu, "leaky_relu": leaky_relu, "silu": silu, "gelu": gelu, "hard_swish": hard_swish}
"""What may stand between two layers, by name."""
GATES = {"sigmoid": sigmoid, "hard_sigmoid": hard_sigmoid}
"""What may make a gate of a logit, by name."""

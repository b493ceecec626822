"""Mistakes in functions of one number."""

import numpy as np
import scipy

from npattn import ops
from npattn.oracle.mistakes.arrays import several_channels, several_images
from npattn.oracle.mistakes.mistake import When, argument, gradient, value
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

LEAK = 0.01


def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x: Array) -> Array:
    return ops.hard_sigmoid(x)[0]


def slope_of_next_image(g: Array, dy: Array, x: Array) -> Array:
    y = logistic(x)
    return dy * np.roll(y * (1 - y), 1, axis=0)


TUNED_ON = [
    value("relu", "left out", lambda y, x: x),
    value("relu", "leaky, slope 0.01", lambda y, x: y + LEAK * (x - y)),
    gradient("relu", 0, "left out", lambda g, dy, x: dy),
    gradient("relu", 0, "leaky, slope 0.01", lambda g, dy, x: g + LEAK * (dy - g)),
    gradient("relu", 0, "mask of dy", lambda g, dy, x: np.where(dy.real > 0, dy, 0)),
    value("sigmoid", "hard sigmoid", lambda y, x: hard_sigmoid(x)),
    value("sigmoid", "hyperbolic tangent", lambda y, x: np.tanh(x)),
    gradient("sigmoid", 0, "y (1 + y)", lambda g, dy, x: dy * logistic(x) * (1 + logistic(x))),
    gradient("sigmoid", 0, "left out", lambda g, dy, x: dy),
    gradient("sigmoid", 0, "x (1 - x)", lambda g, dy, x: dy * x * (1 - x)),
    gradient("sigmoid", 0, "1 - y", lambda g, dy, x: dy * (1 - logistic(x))),
    value("hard_swish", "swish", lambda y, x: x * logistic(x)),
    value("hard_swish", "gate alone", lambda y, x: hard_sigmoid(x)),
    gradient("hard_swish", 0, "gate constant", lambda g, dy, x: dy * hard_sigmoid(x)),
    gradient("hard_swish", 0, "no corners", lambda g, dy, x: dy * (2 * x + 3) / 6),
]
HELD_OUT = [
    value("sigmoid", "softsign", lambda y, x: 0.5 + 0.5 * x / (1 + np.maximum(x, -x))),
    value(
        "sigmoid", "clamped to ±4", lambda y, x: logistic(np.clip(x, -4, 4)), lambda x: (np.maximum(x, -x) > 4).any()
    ),
    gradient("sigmoid", 0, "slope of the next image", slope_of_next_image, several_images),
    gradient("relu", 0, "mask of the next channel", lambda g, dy, x: dy * np.roll(x > 0, 1, axis=1), several_channels),
    gradient("relu", 0, "mask of the next image", lambda g, dy, x: dy * np.roll(x > 0, 1, axis=0), several_images),
    gradient("hard_swish", 0, "slope of the gate alone", lambda g, dy, x: dy * np.where((x > -3) & (x < 3), x / 6, 0)),
]


def normal_share(x: Array) -> Array:
    return 0.5 * (1 + scipy.special.erf(x / 2**0.5))


def gelu(x: Array) -> Array:
    return x * normal_share(x)


def normal_density(x: Array) -> Array:
    return np.exp(-0.5 * x * x) * (2 * np.pi) ** -0.5


def density_not_divided(g: Array, dy: Array, x: Array) -> Array:
    return dy * (normal_share(x) + x * np.exp(-0.5 * x * x))


def gelu_by_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x)))


def gelu_by_tanh_gradient(g: Array, dy: Array, x: Array) -> Array:
    t = np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x))
    return dy * 0.5 * (1 + t + x * (1 - t * t) * (2 / np.pi) ** 0.5 * (1 + 3 * 0.044715 * x * x))


def has_other_slope(other: float) -> When:
    """Whether a leaky ReLU's slope is not this one."""
    return lambda x, slope: slope != other


def leaky(slope: float, x: Array) -> Array:
    return np.where(x > 0, x, slope * x)


def softmax_over_channels(y: Array, x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def slope_at_gate(g: Array, dy: Array, x: Array) -> Array:
    a = logistic(logistic(x))
    return dy * a * (1 - a)


ADDED = [
    value("relu", "GELU", lambda y, x: gelu(x)),
    value("relu", "GELU by tanh", lambda y, x: gelu_by_tanh(x)),
    value("relu", "ELU", lambda y, x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)),
    value("relu", "softplus", lambda y, x: y + np.log1p(np.exp(-np.maximum(x, -x)))),
    value("relu", "hyperbolic tangent", lambda y, x: np.tanh(x)),
    value("relu", "sigmoid", lambda y, x: logistic(x)),
    value("relu", "magnitude", lambda y, x: np.maximum(x, -x)),
    value("relu", "leaky, slope 0.1", lambda y, x: y + 0.1 * (x - y)),
    value("relu", "SiLU", lambda y, x: x * logistic(x)),
    value("relu", "leaky, slope 0.2", lambda y, x: y + 0.2 * (x - y)),
    value("relu", "bounded by 6", lambda y, x: np.minimum(y, 6)),
    value("relu", "bounded by 1", lambda y, x: np.minimum(y, 1)),
    value("sigmoid", "softmax over channels", softmax_over_channels, several_channels),
    value("sigmoid", "hard sigmoid, slope 0.2", lambda y, x: np.clip(0.2 * x + 0.5, 0, 1)),
    value("sigmoid", "ReLU", lambda y, x: np.maximum(x, 0)),
    argument("sigmoid", 0, "logits doubled (temperature 1/2)", lambda x: 2 * x),
    argument("sigmoid", 0, "logits halved (temperature 2)", lambda x: x / 2),
    value("sigmoid", "sign of x turned", lambda y, x: logistic(-x)),
    gradient("sigmoid", 0, "y", lambda g, dy, x: dy * logistic(x)),
    gradient("sigmoid", 0, "slope at the gate, as if it were the logit", slope_at_gate),
    value("sigmoid", "left out", lambda y, x: x * 1.0),
    value("sigmoid", "twice", lambda y, x: logistic(y)),
    value("hard_sigmoid", "logistic sigmoid", lambda y, x: logistic(x)),
    value("hard_sigmoid", "slope 0.2", lambda y, x: np.clip(0.2 * x + 0.5, 0, 1)),
    value("hard_swish", "left out", lambda y, x: x * 1.0),
    value("hard_swish", "ReLU", lambda y, x: np.maximum(x, 0)),
    value("silu", "left out", lambda y, x: x * 1.0),
    value("silu", "ReLU", lambda y, x: np.maximum(x, 0)),
    value("silu", "hard swish", lambda y, x: x * hard_sigmoid(x)),
    value("silu", "GELU", lambda y, x: gelu(x)),
    value("silu", "gate alone", lambda y, x: logistic(x)),
    value("silu", "slope 1.702", lambda y, x: x * logistic(1.702 * x)),
    gradient("silu", 0, "gate constant", lambda g, dy, x: dy * logistic(x)),
    gradient("silu", 0, "slope of the gate alone", lambda g, dy, x: g - dy * logistic(x)),
    gradient("silu", 0, "left out", lambda g, dy, x: dy),
    value("gelu", "left out", lambda y, x: x * 1.0),
    value("gelu", "by tanh", lambda y, x: gelu_by_tanh(x)),
    value("gelu", "ReLU", lambda y, x: np.maximum(x, 0)),
    value("gelu", "SiLU", lambda y, x: x * logistic(x)),
    value("gelu", "logistic sigmoid of 1.702 x", lambda y, x: x * logistic(1.702 * x)),
    value("gelu", "gate alone", lambda y, x: normal_share(x)),
    value("gelu", "erf of x, not of x/√2", lambda y, x: 0.5 * x * (1 + scipy.special.erf(x))),
    value("gelu", "not halved", lambda y, x: 2 * y),
    gradient("gelu", 0, "gate constant", lambda g, dy, x: dy * normal_share(x)),
    gradient("gelu", 0, "slope of the gate alone", lambda g, dy, x: g - dy * normal_share(x)),
    gradient("gelu", 0, "density not multiplied by x", lambda g, dy, x: dy * (normal_share(x) + normal_density(x))),
    gradient("gelu", 0, "density not divided by √(2π)", density_not_divided),
    gradient("gelu", 0, "of GELU by tanh", gelu_by_tanh_gradient),
    gradient("gelu", 0, "left out", lambda g, dy, x: dy),
    value("leaky_relu", "left out", lambda y, x, slope: x * 1.0),
    value("leaky_relu", "ReLU", lambda y, x, slope: np.maximum(x, 0)),
    *(
        value("leaky_relu", f"slope {other}", lambda y, x, slope, other=other: leaky(other, x), has_other_slope(other))
        for other in (0.01, 0.1, 0.2)
    ),
    value("leaky_relu", "sign of the slope turned", lambda y, x, slope: leaky(-slope, x)),
    gradient("leaky_relu", 0, "left out", lambda g, dy, x, slope: dy),
    gradient("leaky_relu", 0, "of ReLU", lambda g, dy, x, slope: np.where(x > 0, dy, 0)),
    gradient("leaky_relu", 0, "mask of dy", lambda g, dy, x, slope: leaky(slope, dy)),
    *(
        gradient(
            *("leaky_relu", 0, f"slope {other}"),
            lambda g, dy, x, slope, other=other: np.where(x > 0, dy, other * dy),
            has_other_slope(other),
        )
        for other in (0.01, 0.1, 0.2)
    ),
    value("tanh", "left out", lambda y, x: x * 1.0),
    value("tanh", "logistic sigmoid", lambda y, x: logistic(x)),
    value("tanh", "of half of x", lambda y, x: np.tanh(x / 2)),
    value("tanh", "softsign", lambda y, x: x / (1 + np.maximum(x, -x))),
    value("tanh", "clipped to ±1", lambda y, x: np.clip(x, -1, 1)),
    gradient("tanh", 0, "left out", lambda g, dy, x: dy),
    gradient("tanh", 0, "1 - y", lambda g, dy, x: dy * (1 - np.tanh(x))),
    gradient("tanh", 0, "y (1 - y)", lambda g, dy, x: dy * np.tanh(x) * (1 - np.tanh(x))),
    gradient("tanh", 0, "1 - x²", lambda g, dy, x: dy * (1 - x * x)),
    gradient("tanh", 0, "tanh of y, not y, squared", lambda g, dy, x: dy * (1 - np.tanh(np.tanh(x)) ** 2)),
]

"""Mistakes in vectors brought to unit length."""

import numpy as np

from npattn.oracle.mistakes.arrays import longer, several_channels
from npattn.oracle.mistakes.mistake import gradient, value
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def length(x: Array) -> Array:
    return np.sqrt((x * x).sum(axis=1, keepdims=True))


def largest(x: Array) -> Array:
    return np.maximum(x, -x).max(axis=1, keepdims=True)


TUNED_ON = [
    value("l2_normalize", "epsilon 1e-2", lambda u, x, eps: x / (length(x) + 1e-2)),
    value("l2_normalize", "no root", lambda u, x, eps: x / (length(x) ** 2 + eps)),
    value("l2_normalize", "mean, not sum", lambda u, x, eps: u * x.shape[1] ** 0.5, several_channels),
    gradient("l2_normalize", 0, "length constant", lambda g, du, x, eps: du / (length(x) + eps)),
    gradient("l2_normalize", 0, "not divided by the length", lambda g, du, x, eps: g * length(x)),
]
HELD_OUT = [
    value(
        "l2_normalize",
        "length of the next position",
        lambda u, x, eps: x / (np.roll(length(x), 1, axis=-1) + eps),
        longer(-1),
    ),
    value("l2_normalize", "largest for length", lambda u, x, eps: x / (largest(x) + eps), several_channels),
]


ADDED = [
    value(
        "l2_normalize",
        "over positions, not channels",
        lambda u, x, eps: x / (np.sqrt((x * x).sum(axis=(2, 3), keepdims=True)) + eps),
        longer(-1),
    ),
    value(
        "l2_normalize",
        "epsilon inside the root",
        lambda u, x, eps: x / np.sqrt((x * x).sum(axis=1, keepdims=True) + eps),
    ),
    value("l2_normalize", "epsilon 1e-3", lambda u, x, eps: x / (length(x) + 1e-3)),
    value("l2_normalize", "epsilon lost", lambda u, x, eps: x / length(x)),
    value(
        "l2_normalize",
        "sum of magnitudes for length",
        lambda u, x, eps: x / (np.maximum(x, -x).sum(axis=1, keepdims=True) + eps),
    ),
    value("l2_normalize", "left out", lambda u, x, eps: x * 1.0),
]

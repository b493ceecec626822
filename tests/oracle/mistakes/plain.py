"""What formulas of mistakes have in common: numbers that are drawn, and a softmax in plain NumPy."""

import numpy as np

__all__ = ["draw", "softmax"]

RANDOM = np.random.RandomState(5)


def draw(*shape):
    return RANDOM.standard_normal(shape)


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)

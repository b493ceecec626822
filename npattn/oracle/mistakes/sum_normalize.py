"""Mistakes in weights that are divided by their sum."""

import numpy as np

from npattn.oracle.mistakes.mistake import gradient, instead, value

__all__ = ["ADDED"]

NAME = "sum_normalize"


def several(x, axis, eps):
    return x.shape[axis] > 1


def along(x, axis, eps):
    """Return the sum, with ε, that x is divided by."""
    return x.sum(axis=axis, keepdims=True) + eps


def left_out(_, x, axis, eps):
    return x * 1.0, lambda dy: dy


def over(other):
    """Divide by the sum over another axis: ``other(axis)``."""

    def change(y, x, axis, eps):
        return x / along(x, other(axis), eps)

    return change


def to_unit_length(y, x, axis, eps):
    return x / (np.sqrt((x * x).sum(axis=axis, keepdims=True)) + eps)


def by_largest(y, x, axis, eps):
    return x / x.max(axis=axis, keepdims=True)


def softmaxed(y, x, axis, eps):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


ADDED = [
    instead(NAME, "left out", left_out, several, way="both"),
    value(NAME, "over positions", over(lambda axis: -1), lambda x, axis, eps: axis not in (-1, x.ndim - 1)),
    value(NAME, "over the batch", over(lambda axis: 0), lambda x, axis, eps: len(x) > 1),
    value(NAME, "to unit length, not to sum 1", to_unit_length, several),
    value(NAME, "divided by the largest", by_largest, several),
    value(NAME, "divided by the number", lambda y, x, axis, eps: x / x.shape[axis], several),
    value(NAME, "softmax for quotient", softmaxed, several),
    value(NAME, "epsilon 1", lambda y, x, axis, eps: x / along(x, axis, 1.0)),
    gradient(NAME, 0, "sum constant", lambda g, dy, x, axis, eps: dy / along(x, axis, eps), several),
    gradient(NAME, 0, "not divided by the sum", lambda g, dy, x, axis, eps: g * along(x, axis, eps), several),
    gradient(
        NAME,
        0,
        "mean of dy for its weighted sum",
        lambda g, dy, x, axis, eps: (dy - dy.mean(axis=axis, keepdims=True)) / along(x, axis, eps),
        several,
    ),
    gradient(NAME, 0, "dropped", lambda g, *_: np.zeros_like(g)),
]

"""Mistakes in weights that are divided by their sum."""

from typing import Any

import numpy as np

from npattn import ops
from npattn.module import Module
from npattn.oracle.mistakes.forwarding import with_steps
from npattn.oracle.mistakes.mistake import Apply, gradient, instead, value
from npattn.typing import Array, Backward

__all__ = ["ADDED"]

NAME = "sum_normalize"


def several(x: Array, axis: int, eps: float) -> bool:
    return x.shape[axis] > 1


def along(x: Array, axis: int, eps: float) -> Array:
    """Return the sum, with ε, that x is divided by."""
    return x.sum(axis=axis, keepdims=True) + eps


def left_out(_: Any, x: Array, axis: int, eps: float) -> tuple[Any, Backward]:
    return x * 1.0, lambda dy: dy


def over(other: Apply) -> Apply:
    """Divide by the sum over another axis: ``other(axis)``."""

    def change(y, x, axis, eps):
        return x / along(x, other(axis), eps)

    return change


def to_unit_length(y: Array, x: Array, axis: int, eps: float) -> Array:
    return x / (np.sqrt((x * x).sum(axis=axis, keepdims=True)) + eps)


def by_largest(y: Array, x: Array, axis: int, eps: float) -> Array:
    return x / x.max(axis=axis, keepdims=True)


def softmaxed(y: Array, x: Array, axis: int, eps: float) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def is_external(module: Module, *_: Any) -> bool:
    """Whether there is a softmax along one of the last two axes, and a division by the sum along the other."""
    return getattr(module, "key", None) == "external"


def axes_exchanged(*_: Any) -> Apply:
    """Normalise along the other one of the last two axes."""

    def answer(primitive, arguments, options):
        if primitive not in (ops.softmax, ops.sum_normalize):
            return NotImplemented
        axis = -1 if primitive is ops.sum_normalize else -2
        return primitive(arguments[0], axis=axis)[0]

    return answer


ADDED = [
    instead(NAME, "left out", left_out, several, way="both"),
    value(NAME, "over positions", over(lambda axis: -1), lambda x, axis, eps: axis not in (-1, x.ndim - 1)),
    value(NAME, "over the batch", over(lambda axis: 0), lambda x, axis, eps: len(x) > 1),
    value(NAME, "to unit length, not to sum 1", to_unit_length, several),
    value(NAME, "divided by the largest", by_largest, several),
    value(NAME, "divided by the number", lambda y, x, axis, eps: x / x.shape[axis], several),
    value(NAME, "softmax for quotient", softmaxed, several),
    value(NAME, "epsilon 1", lambda y, x, axis, eps: x / along(x, axis, 1.0)),
    value(NAME, "epsilon 1e-2", lambda y, x, axis, eps: x / along(x, axis, 1e-2)),
    gradient(NAME, 0, "divided twice by the sum", lambda g, dy, x, axis, eps: g / along(x, axis, eps), several),
    *with_steps("softmax and division by the sum, each along the other's axis", axes_exchanged, is_external),
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

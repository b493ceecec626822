"""A softmax that a system writes out, by exponentials and their sum: known by its steps, and computed as kernels do."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from npattn.oracle.rounding.arrays import FOLLOWED, RoundingArray, rounding_of
from npattn.oracle.rounding.averages import error_of_average, is_view
from npattn.oracle.rounding.weights import hand_out
from npattn.typing import Array

__all__ = ["Exponentials", "Largest", "Shifted", "Total", "Weighted", "Weights"]


class Largest:
    """The largest logits."""


class Shifted(NamedTuple):
    """Logits less the largest."""

    largest: Array


class Exponentials(NamedTuple):
    """Exponentials of logits, less the largest if that was taken off."""

    largest: Array | float


class Total(NamedTuple):
    """The sum of exponentials along an axis."""

    exponentials: Array
    axis: int


class Weights(NamedTuple):
    """Exponentials over their total."""

    axis: int


class Weighted(NamedTuple):
    """A gradient times the weights that it is of."""

    weights: Array
    gradient: Array
    axis: int


def made_as(a: Any, kind: type) -> Any:
    """Return how an array was made, if that is a step of this kind; else None."""
    made = getattr(a, "made", None)
    return made if isinstance(made, kind) else None


def follow_maximum(_: Array, largest: Array, **__: Any) -> Largest:
    """Know the largest logits."""
    return Largest()


def follow_difference(_: Array, taken_off: Array, shifted: Array, **__: Any) -> Shifted | None:
    """Know logits less the largest."""
    return Shifted(taken_off) if made_as(taken_off, Largest) else None


def follow_exponential(z: Array, e: Array, **_: Any) -> Exponentials:
    """Know exponentials of logits."""
    shifted = made_as(z, Shifted)
    return Exponentials(shifted.largest if shifted else 0.0)


def follow_sum(terms: Array, total: Array, *, axis: Any = 0, **_: Any) -> Total | None:
    """Know a total; add to an average of a gradient by its weights the error of one that is made apart."""
    if isinstance(axis, tuple) and len(axis) == 1:
        (axis,) = axis
    if not isinstance(axis, int):
        return None
    axis %= terms.ndim
    weighted = made_as(terms, Weighted)
    if weighted and weighted.axis == axis:
        total += error_of_average(weighted.weights, weighted.gradient, axis).reshape(total.shape)
    return Total(terms, axis) if made_as(terms, Exponentials) else None


def follow_quotient(e: Array, total: Array, y: Array, **_: Any) -> Weights | None:
    """Know weights, which backward may have otherwise."""
    found, exponentials = made_as(total, Total), made_as(e, Exponentials)
    if not (found and exponentials and is_view(e, found.exponentials)):
        return None
    hand_out(y, exponentials.largest, total, rounding_of(y))
    return Weights(found.axis)


def follow_product(a: Array, b: Array, product: Array, **_: Any) -> Weighted | Exponentials | None:
    """Know a gradient times the weights that it is of, and exponentials of which some are hidden."""
    for one, other in ((a, b), (b, a)):
        weights, exponentials = made_as(one, Weights), made_as(one, Exponentials)
        if weights and np.shape(one) == np.shape(other):
            return Weighted(one, other, weights.axis)
        if exponentials and not isinstance(other, RoundingArray):
            return exponentials
    return None


def follow_choice(_: Array, a: Array, b: Array, chosen: Array) -> Exponentials | None:
    """Know exponentials of which some are hidden."""
    return made_as(a, Exponentials) or made_as(b, Exponentials)


FOLLOWED |= {
    (np.maximum, "reduce"): follow_maximum,
    (np.subtract, "__call__"): follow_difference,
    (np.exp, "__call__"): follow_exponential,
    (np.add, "reduce"): follow_sum,
    (np.divide, "__call__"): follow_quotient,
    (np.multiply, "__call__"): follow_product,
    (np.where, "__call__"): follow_choice,
}

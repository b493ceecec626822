"""A sigmoid that a system writes out, by an exponential: known by its steps, and its slope made as kernels make it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from npattn.oracle.rounding.arrays import place_of, rounding_of, unwrap
from npattn.oracle.rounding.following import follow
from npattn.oracle.rounding.weights import change_for_backward
from npattn.oracle.rounding.written_out import Exponentials, made_as
from npattn.typing import Array

__all__ = ["Denominator", "Sigmoid"]

ODDS_AT_ONE = np.exp(-1)
"""(1 - y) / y where x = 1: from there on 1 - y cancels."""


class Denominator(NamedTuple):
    """1 + e, of an exponential."""

    exponential: Array


class Sigmoid(NamedTuple):
    """A logistic function.

    Attributes
    ----------
    odds : numpy.ndarray
        (1 - y) / y.
    by_exponential : bool
        Whether the run makes its slope of the exponential, else of y alone.
    place : tuple
        Where y lies.
    """

    odds: np.ndarray
    by_exponential: bool
    place: tuple[Any, ...]


def follow_addition(a: Array, b: Array, _: Array, **__: Any) -> Denominator | None:
    """Know 1 + e."""
    for one, e in ((a, b), (b, a)):
        if made_as(e, Exponentials) and np.ndim(one) == 0 and one == 1:
            return Denominator(e)
    return None


def follow_quotient(share: Array | float, total: Array, y: Array, **_: Any) -> Sigmoid | None:
    """Know 1 / (1 + e) and e / (1 + e); below 1 half of the runs make its slope of e, not of y alone."""
    denominator = made_as(total, Denominator)
    if not denominator:
        return None
    rounding, e = rounding_of(y), unwrap(denominator.exponential)
    with np.errstate(all="ignore"):
        rising = np.broadcast_to(unwrap(share) == e, y.shape)
        if not (rising | (unwrap(share) == 1)).all():
            return None
        plain = unwrap(y)
        odds, left = np.where(rising, 1 / e, e), (1 - plain) / plain
        factor = np.where(rising, 1 / left, left) / e
    by_exponential = rounding.choose()
    if not rounding.known.in_backward:
        changes = np.isfinite(factor) & np.isfinite(left) & ((odds < ODDS_AT_ONE) | (not by_exponential))
        change_for_backward(denominator.exponential, np.where(changes, factor, 1).astype(e.dtype), rounding)
    return Sigmoid(odds, by_exponential, place_of(y))


def follow_reciprocal(total: Array, y: Array, **_: Any) -> Sigmoid | None:
    """Know 1 / (1 + e)."""
    return follow_quotient(1, total, y)


def follow_complement(one: Array, y: Array, rest: Array, **_: Any) -> None:
    """Make 1 - y of the exponential, by more operations, where the run does so and it does not cancel."""
    sigmoid = made_as(y, Sigmoid)
    if sigmoid and sigmoid.by_exponential and np.ndim(one) == 0 and one == 1 and sigmoid.place == place_of(y):
        found = rounding_of(y).round((sigmoid.odds * unwrap(y)).astype(rest.dtype))
        np.copyto(unwrap(rest), found, where=(sigmoid.odds > ODDS_AT_ONE) & np.isfinite(found))


def follow_choice(where: Array, a: Array, b: Array, y: Array) -> Sigmoid | None:
    """Know a sigmoid that is made in two ways, by the sign."""
    one, other = made_as(a, Sigmoid), made_as(b, Sigmoid)
    if not (one and other):
        return None
    return Sigmoid(np.where(unwrap(where), one.odds, other.odds), one.by_exponential, place_of(y))


follow((np.add, "__call__"), follow_addition)
follow((np.divide, "__call__"), follow_quotient)
follow((np.reciprocal, "__call__"), follow_reciprocal)
follow((np.subtract, "__call__"), follow_complement)
follow((np.where, "__call__"), follow_choice)

"""A norm that a system writes out, of a single value: known by its steps, and computed by lines as kernels do."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from npattn.oracle.rounding.arrays import place_of, rounding_of, unwrap
from npattn.oracle.rounding.following import follow
from npattn.oracle.rounding.written_out import made_as
from npattn.typing import Array

__all__ = ["Centred", "InverseRoot", "Root", "Single"]


class Single(NamedTuple):
    """The sum, or mean, of single values, and where these lie."""

    place: tuple[Any, ...]


class Centred(NamedTuple):
    """Single values less their mean."""

    mean: Array


class Root:
    """A square root."""


class InverseRoot:
    """One over a square root."""


def follow_sum(terms: Array, total: Array, **_: Any) -> Single | None:
    """Know sums of one term each."""
    return Single(place_of(terms)) if total.size == terms.size > 0 else None


def follow_difference(x: Array, mean: Array, centred: Array, **_: Any) -> Centred | None:
    """Know values less their mean; on the way back what is taken off is blurred, once such values have been normed."""
    single, rounding = made_as(mean, Single), rounding_of(centred)
    if not (single and single.place == place_of(x) and rounding.format.is_single_precision):
        return None
    if rounding.known.norms_single and rounding.known.in_backward:
        err_by(centred, unwrap(mean))
        return None
    return Centred(mean)


def follow_quotient(a: Array, divisor: Any, result: Array, **_: Any) -> Single | InverseRoot | None:
    """Know means, and one over a root; norm by a line."""
    if made_as(a, Single) and np.ndim(divisor) == 0:
        return made_as(a, Single)
    if made_as(divisor, Root):
        if np.ndim(a) == 0:
            return InverseRoot()
        norm(a, 1 / unwrap(divisor), result)
    return None


def follow_product(a: Array, b: Array, result: Array, **_: Any) -> None:
    """Norm by a line."""
    for centred, scale in ((a, b), (b, a)):
        if made_as(scale, InverseRoot):
            norm(centred, unwrap(scale), result)


def norm(centred: Array, scale: np.ndarray, result: Array) -> None:
    """Let what a norm gives err as a x - c does, whose terms are equal but for their rounding."""
    made = made_as(centred, Centred)
    if made:
        rounding_of(result).known.norms_single = True
        err_by(result, unwrap(made.mean) * scale)


def err_by(result: Array, taken_off: np.ndarray) -> None:
    """Add the error of what has been taken off."""
    exact = np.array(np.broadcast_to(taken_off, result.shape))
    plain = unwrap(result)
    plain -= rounding_of(result).blur(exact.copy()) - exact


def follow_root(*_: Any, **__: Any) -> Root:
    """Know a root."""
    return Root()


def follow_power(_: Array, exponent: Any, __: Array, **___: Any) -> InverseRoot | None:
    """Know one over a root."""
    return InverseRoot() if np.ndim(exponent) == 0 and exponent == -0.5 else None


follow((np.add, "reduce"), follow_sum)
follow((np.subtract, "__call__"), follow_difference)
follow((np.divide, "__call__"), follow_quotient)
follow((np.multiply, "__call__"), follow_product)
follow((np.sqrt, "__call__"), follow_root)
follow((np.power, "__call__"), follow_power)

"""Sums and products, running ones too, as an accumulator in float32 makes them: with its errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.oracle.rounding.cutting import cut_row
from npattn.typing import Array

if TYPE_CHECKING:
    from npattn.oracle.rounding.stochastic import Rounding

__all__ = ["ACCUMULATED", "ACCUMULATOR_ROUNDOFF", "add_errors", "sum_one_by_one"]

ACCUMULATOR_ROUNDOFF = 2.0**-24
"""Unit roundoff of the accumulators, float32."""


def add_errors(total: np.ndarray, squares: np.ndarray, count: int, rounding: Rounding, *, spare: bool = True) -> None:
    """Add to sums the errors that an accumulator may make, in float32 unless the rounding says otherwise, in place.

    Given its end S, the sum of the first k of n terms is kS/n plus a random walk that ends at 0, of variance
    k(n - k)/n² Q², where Q² is the sum of the squared terms; over k the squares add up to n (S²/3 + Q²/6). Where
    one term is most of S and comes first, they add up to n S², and Q² is S²: the lesser of both counts 1/2 besides.
    Rounding a number s errs by u²s²/3 in the mean square at most.

    Parameters
    ----------
    total, squares : numpy.ndarray
        Sums, and the sums of their squared terms, which are used up.
    count : int
        Terms of each.
    rounding : Rounding
    spare : bool, default True
        Whether these are the last sums, or all, of an array: `Rounding.draw_bits`.
    """
    matching = squares.shape == total.shape and squares.flags.c_contiguous and total.flags.c_contiguous
    parts = [cut_row(m) if matching else [m] for m in (total, squares)]
    factor = rounding.accumulator_roundoff / 3 * math.sqrt(12 * count)
    with np.errstate(invalid="ignore", over="ignore"):
        for sums, terms in zip(*parts, strict=True):
            add_noise(sums, terms, factor, rounding, spare=spare and sums is parts[0][-1])


def add_noise(total: np.ndarray, squares: np.ndarray, factor: float, rounding: Rounding, *, spare: bool) -> None:
    """Add errors to sums: so many times √(S² + Q²/2 + 3/2 min(S², Q²)), times a number from -1/2 to 1/2."""
    size: Array = np.asarray(np.square(total))
    np.minimum(size, squares, out=size)
    size *= 1.5
    squares *= 0.5
    size += squares
    size += np.square(total, out=squares)  # again: to keep it would take as much memory as all else here
    np.sqrt(size, out=size)
    if not np.maximum.reduce(size, axis=None, initial=0) < np.inf:
        size = np.where(np.isfinite(total), size, 0)  # an infinity is exact
    # Uniform numbers of the same variance do as well as normal ones, and are drawn sooner.
    noise = rounding.draw_bits(total, 16, spare=spare).view(np.int16)
    size *= np.asarray(factor / 2**16, size.dtype)
    size *= noise
    total += size.astype(total.dtype, copy=False)


def add_up(terms: np.ndarray, rounding: Rounding, **options: Any) -> np.ndarray:
    """Add up along axes as `numpy.add.reduce` does, and add the error of an accumulator in float32."""
    if rounding.adds_one_by_one and "out" not in options:
        return sum_one_by_one(terms, rounding, **{"axis": 0, **options})
    total = np.asarray(np.add.reduce(terms, **options))
    options.pop("out", None)
    squares = np.add.reduce(np.square(terms), **options)
    return rounding.accumulate(total, squares, terms.size // max(total.size, 1))


def sum_one_by_one(
    terms: np.ndarray, rounding: Rounding, *, axis: int | tuple[int, ...] | None, keepdims: bool = False, **_: Any
) -> np.ndarray:
    """Add up with one accumulator, in a random order: terms that are equal are all rounded the same way there."""
    several = range(terms.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    summed = sorted(i % terms.ndim for i in several)
    rows = np.moveaxis(terms, summed, range(len(summed)))
    shape = rows.shape[len(summed) :]
    rows = rows.reshape(math.prod(rows.shape[: len(summed)]), *shape)
    assert rounding.random is not None
    total = np.zeros(shape, np.float32)
    for i in rounding.random.permutation(len(rows)):
        total += rows[i]
    kept = [1 if i in summed else n for i, n in enumerate(terms.shape)]
    return total.astype(terms.dtype).reshape(kept if keepdims else shape)


def add_at(total: np.ndarray, rounding: Rounding, index: Any, terms: Any) -> np.ndarray:
    """Add terms to the numbers that an index names, in place, as `numpy.add.at` does: a sum for each of these."""
    squares, counts = np.square(total), np.zeros(total.shape)
    np.add.at(total, index, terms)
    np.add.at(squares, index, np.square(terms))
    np.add.at(counts, index, 1)
    # Of longer sums the error is larger, and no larger than that of the longest.
    total[...] = rounding.accumulate(total.copy(), squares, 1 + int(counts.max(initial=0)))
    return total


def multiply_up(factors: np.ndarray, rounding: Rounding, **options: Any) -> np.ndarray:
    """Multiply numbers along axes as `numpy.multiply.reduce` does, with the rounding of all but the first product."""
    product = np.asarray(np.multiply.reduce(factors, **options))
    count = factors.size // max(product.size, 1)
    return product * (1 + draw_roundings(product, rounding) * math.sqrt(max(count - 1, 0)))


def running_sums(terms: np.ndarray, rounding: Rounding, *, axis: int = 0, **options: Any) -> np.ndarray:
    """Add up along an axis as `numpy.add.accumulate` does; what a sum loses is lost to all that follow."""
    sums = np.asarray(np.add.accumulate(terms, axis=axis, **options))
    errors = draw_roundings(sums, rounding, axis) * np.where(np.isfinite(sums), sums, 0)
    return sums + errors.cumsum(axis)


def running_products(factors: np.ndarray, rounding: Rounding, *, axis: int = 0, **options: Any) -> np.ndarray:
    """Multiply along an axis as `numpy.multiply.accumulate` does; what a product loses is lost to all that follow."""
    products = np.asarray(np.multiply.accumulate(factors, axis=axis, **options))
    return products * (1 + draw_roundings(products, rounding, axis).cumsum(axis))


def draw_roundings(a: np.ndarray, rounding: Rounding, axis: int | None = None) -> np.ndarray:
    """Draw relative errors of one rounding each, u/√3 in root mean square; along an axis the first number has none."""
    errors = rounding.draw_bits(a, 16).view(np.int16) * a.dtype.type(rounding.accumulator_roundoff / 2**15)
    if axis is not None:
        np.moveaxis(errors, axis, 0)[:1] = 0
    return errors


ACCUMULATED: dict[tuple[Any, str], Callable[..., np.ndarray]] = {
    (np.add, "accumulate"): running_sums,
    (np.add, "at"): add_at,
    (np.add, "reduce"): add_up,
    (np.multiply, "accumulate"): running_products,
    (np.multiply, "reduce"): multiply_up,
}
"""What stands for a ufunc's methods that make many roundings of one number."""

"""Longdouble arrays whose matrix products are made of float64 ones, which BLAS computes a hundred times as fast."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["ExtendedArray", "extend", "multiply"]

MIN_REUSE = 8
"""Multiplications for each number read or written, below which NumPy's own product is as quick."""
BLOCK_SIZE = 2**15
"""Numbers of an operand that are cut at once."""
LARGEST_EXPONENT = 400
"""Operands beyond 2 to this power, or with rows all below 2 to its opposite, are multiplied as they stand."""


class ExtendedArray(np.ndarray):
    """An array of longdouble that multiplies matrices by `multiply`; all else NumPy does. Made by `extend`.

    Functions that have no longdouble, as `scipy.special.erf`, compute in float64.
    """

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple[np.ndarray, ...] | None = None, **options: Any
    ) -> Any:
        """Compute on plain arrays."""
        operands = [unwrap(a) for a in inputs]
        if ufunc is np.matmul and method == "__call__" and out is None and not options:
            return wrap(multiply(*operands))
        if out is not None:
            options["out"] = tuple(unwrap(a) for a in out)
        if not has_longdouble(ufunc):
            operands = [to_double(a) for a in operands]
        result = getattr(ufunc, method)(*operands, **options)
        if out is not None:
            return out[0] if len(out) == 1 else out
        if not has_longdouble(ufunc):
            result = tuple(map(to_longdouble, result)) if isinstance(result, tuple) else to_longdouble(result)
        return tuple(map(wrap, result)) if isinstance(result, tuple) else wrap(result)

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        arguments: Iterable[Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Leave primitives to their definitions; see that what `numpy.where` makes multiplies quickly too."""
        if not function.__module__.startswith("numpy"):
            return NotImplemented
        return wrap(super().__array_function__(function, types, arguments, options))


def extend(values: np.ndarray) -> ExtendedArray:
    """Copy an array as longdouble that multiplies quickly.

    Examples
    --------
    >>> a = extend(np.ones((300, 300)))
    >>> type(a @ a).__name__, (a @ a).dtype == np.longdouble
    ('ExtendedArray', True)
    """
    return np.array(values, np.longdouble).view(ExtendedArray)


@functools.cache
def has_longdouble(ufunc: np.ufunc) -> bool:
    """Tell whether a function computes in longdouble."""
    return any("g" in types for types in ufunc.types)


def to_double(a: Any) -> Any:
    """Take longdouble as float64."""
    return a.astype(np.float64) if getattr(a, "dtype", None) == np.longdouble else a


def to_longdouble(a: Any) -> Any:
    """Take float64 as longdouble."""
    return a.astype(np.longdouble) if getattr(a, "dtype", None) == np.float64 else a


def unwrap(a: Any) -> Any:
    """Return a plain array."""
    return a.view(np.ndarray) if isinstance(a, ExtendedArray) else a


def wrap(a: Any) -> Any:
    """Return an array of longdouble as one that multiplies quickly; others as they are."""
    return a.view(ExtendedArray) if isinstance(a, np.ndarray) and a.dtype == np.longdouble else a


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply matrices of longdouble by three products in float64.

    Each row of `a` is cut at a power of two into a head of β = ⌊(53 - ⌈log2 K⌉) / 2⌋ bits and the rest, each column of
    `b` too. A sum of K products of heads has at most 53 bits, so float64 adds it up without any error, in whatever
    order. What is left is at most 2 ** (1 - β) of the largest products, and is added up in float64.

    Parameters
    ----------
    a : numpy.ndarray, (..., I, K)
    b : numpy.ndarray, (..., K, J)

    Returns
    -------
    numpy.ndarray of longdouble, (..., I, J)

    Notes
    -----
    With A the largest magnitude in a row of `a` and B that in a column of `b`, the result is off by less than
    4 K (K + 3) 2 ** (-53 - β) A B: by 2 ** (2 - β) of the bound K (K + 3) 2 ** -53 A B for float64 itself, β being 20
    or more up to K = 4,096. That is what longdouble brings as well, whose 11 further bits make it 2 ** -11. Where there
    are infinities or NaN, or numbers whose products float64 can't hold, NumPy multiplies in longdouble.

    Examples
    --------
    >>> a = np.array([[1, 1, -1]], np.longdouble) + np.array([[0, 2.0**-60, 0]], np.longdouble)
    >>> a = np.tile(a, (64, 40))
    >>> b = np.ones((120, 64), np.longdouble)
    >>> float(multiply(a, b)[0, 0] - 40), 40 * 2.0**-60
    (3.469446951953614e-17, 3.469446951953614e-17)
    """
    if min(a.ndim, b.ndim) < 2 or not is_worth_cutting(a.shape[-2], a.shape[-1], b.shape[-1]):
        return np.matmul(a, b)
    bits = (53 - (a.shape[-1] - 1).bit_length()) // 2
    parts_of_a = split_bits(a, -1, bits)
    if parts_of_a is None:
        return np.matmul(a, b)
    head_a, rest_a = parts_of_a[1:]
    del parts_of_a
    found = np.empty((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), np.longdouble)
    for j in column_blocks(b):
        parts_of_b = split_bits(b[..., j], -2, bits)
        if parts_of_b is None:
            return np.matmul(a, b)
        nearest_b, head_b, rest_b = parts_of_b
        np.add(head_a @ head_b, head_a @ rest_b + rest_a @ nearest_b, out=found[..., j], dtype=np.longdouble)
    return found


def largest(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the largest magnitudes along an axis, which stays; no array of all magnitudes is made."""
    highest, lowest = (reduce(values, axis=axis, keepdims=True, initial=0) for reduce in (np.max, np.min))
    return np.maximum(highest, -lowest)


def column_blocks(b: np.ndarray) -> list[slice]:
    """Cut the columns of a matrix into so many at a time as stay in a core's cache."""
    step = max(1, BLOCK_SIZE // max(1, b[..., 0].size))
    return [slice(j, j + step) for j in range(0, b.shape[-1], step)]


def is_worth_cutting(rows: int, inner: int, columns: int) -> bool:
    """Tell whether a product has enough multiplications for each of its numbers."""
    return rows * inner * columns > MIN_REUSE * (rows * inner + inner * columns + rows * columns)


def split_bits(values: np.ndarray, axis: int, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Cut numbers, by the largest along an axis, into a head of so many bits and the rest.

    Returns
    -------
    nearest, head, rest : numpy.ndarray of float64
        The numbers rounded, and the two parts; None where products of theirs may be what float64 can't hold.
    """
    nearest = values.astype(np.float64)  # whose extremes are found sooner
    width = largest(nearest, axis)
    exponents = np.frexp(width)[1]
    if not np.isfinite(width).all() or (np.abs(exponents[width > 0]) > LARGEST_EXPONENT).any():
        return None
    # Added to a number whose last bit counts so much, what is below it is rounded away.
    coarse = np.ldexp(1.5, 52 - bits + exponents)
    head = nearest + coarse
    head -= coarse
    rest = np.subtract(values, head, out=np.empty_like(head), casting="same_kind")  # never all of it in longdouble
    return nearest, head, rest

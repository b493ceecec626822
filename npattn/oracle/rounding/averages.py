"""Averages of gradients by weights, which kernels make apart: of what the weights have gathered."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from npattn.oracle.rounding.arrays import RoundingArray, place_of, rounding_of, unwrap, wrap
from npattn.oracle.rounding.following import follow
from npattn.typing import Array

__all__ = ["Gathered", "GatheredSum", "error_of_average", "follow_sum_of_products", "tell_average"]


class Gathered(NamedTuple):
    """What a product with weights has gathered.

    Attributes
    ----------
    result, values : array
    by_rows : bool
        Whether the weights stood first, as in A V; else they are the second factor.
    """

    result: Array
    values: Array
    by_rows: bool


class GatheredSum(NamedTuple):
    """The same by einsum, with the letters of the weights' axes, of those of the values and of the result."""

    result: Array
    values: Array
    letters: tuple[str, str, str]


def error_of_average(y: Array, dy: Array, axis: int) -> np.ndarray:
    """Return by how much the average of a gradient by its weights errs that is made apart from the gradient.

    Where there is one weight, or one is nearly 1, the average is taken off what it equals but for rounding, and made of
    the gradient it would cancel to the last bit. A kernel makes it of what the weights have gathered, which may be
    rounded; or it rounds one of both and not the other.
    """
    rounding = rounding_of(y, dy)
    terms = np.asarray(unwrap(y) * unwrap(dy))
    own = np.asarray(terms.sum(axis=axis, keepdims=True))
    if isinstance(dy, RoundingArray) and dy.average is not None:
        found, size = dy.average()
        if found.size == own.size:
            error, size = found.reshape(own.shape) - own, size.reshape(own.shape) + abs(terms).sum(axis, keepdims=True)
            # Else it is no average of these weights, but of another axis.
            if (np.abs(error) <= 2.0 ** (-rounding.format.operand_precision / 2) * size).all():
                return np.asarray(error)
    return rounding.blur(own.copy()) - own


def average_of_product(c: Array, dc: Array, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Average the gradient of a factor by the factor, where c is the product: Σ_k a_ik da_ik = Σ_j c_ij dc_ij.

    Of rounded products, or of a product that is rounded: their errors are of one size.

    Returns
    -------
    average, size : numpy.ndarray
        With `axis` kept, and the sums of the magnitudes.
    """
    rounding = rounding_of(c, dc)
    terms = rounding.blur(np.asarray(unwrap(c) * unwrap(dc)))
    total, squares = (np.asarray(a.sum(axis=axis, keepdims=True)) for a in (terms, np.square(terms)))
    return rounding.accumulate(total, squares, terms.shape[axis]), np.abs(terms).sum(axis=axis, keepdims=True)


def tell_average(gradient: Array, *product: Any) -> None:
    """Tell a gradient what it averages to, if it is asked: by `average_of_product`."""
    if isinstance(gradient, RoundingArray):
        gradient.average = partial(average_of_product, *product)


def follow_product(a: Array, b: Array, product: Array, **_: Any) -> None:
    """Remember what weights of a softmax gather, or tell what is the gradient of such weights what it averages to.

    A gradient of A in O = A V is Ō Vᵀ, or its transpose V Ōᵀ: known by the values, which lie where they lay.
    """
    rounding = rounding_of(a, b)
    if not rounding.known.weights:
        return
    for factor, other in ((a, b), (b, a)):
        if any(np.may_share_memory(factor, y) for y in rounding.known.weights):
            rounding.known.gathered.append(Gathered(product, other, factor is a))
            return
    for result, values, by_rows in rounding.known.gathered:
        for factor, other in ((a, b), (b, a)):
            turned = by_rows == (factor is b)
            upstream = other if turned else np.swapaxes(other, -1, -2)
            if is_view(factor, np.swapaxes(values, -1, -2) if turned else values) and upstream.shape == result.shape:
                tell_average(product, result, upstream, -1 if by_rows else -2)


def follow_sum_of_products(letters: tuple[str, str, str], a: Array, b: Array, result: Array) -> None:
    """Do for einsum what `follow_product` does for ``@``: axes are known by their letters."""
    rounding, (letters_a, letters_b, kept) = rounding_of(a, b), letters
    if not rounding.known.weights:
        return
    for first, factor, second, other in ((letters_a, a, letters_b, b), (letters_b, b, letters_a, a)):
        if any(np.may_share_memory(factor, y) for y in rounding.known.weights):
            rounding.known.gathered_sums.append(GatheredSum(result, other, (first, second, kept)))
            return
    for gathered, values, (_, of_values, of_result) in rounding.known.gathered_sums:
        for first, factor, second, upstream in ((letters_a, a, letters_b, b), (letters_b, b, letters_a, a)):
            if upstream.shape == gathered.shape and is_view(factor, values):
                names = dict(zip(first + second, of_values + of_result, strict=True))
                rows = "".join(names[letter] for letter in kept if letter in second)
                tell_average_of_sum(result, gathered, upstream, f"{of_result}->{rows}")


def tell_average_of_sum(gradient: Array, c: Array, dc: Array, subscripts: str) -> None:
    """Tell a gradient what it averages to, as `average_of_product` does, over axes that letters name."""
    result, _, rows = subscripts.partition("->")
    rounding = rounding_of(gradient)

    def by_rows(m: Array) -> Array:
        turned = np.einsum(f"{result}->{rows}{''.join(sorted(set(result) - set(rows)))}", unwrap(m))
        return wrap(turned.reshape(*turned.shape[: len(rows)], -1), rounding)

    tell_average(gradient, by_rows(c), by_rows(dc), -1)


def is_view(a: Array, b: Array) -> bool:
    """Tell whether two arrays are the same numbers in the same memory."""
    return place_of(a) == place_of(b)


follow((np.matmul, "__call__"), follow_product)

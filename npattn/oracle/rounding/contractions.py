"""Sums of products over whatever axes: einsum, and what NumPy has besides ``@``."""

from __future__ import annotations

from string import ascii_letters
from typing import Any

import numpy as np

from npattn.oracle.rounding.accumulators import sum_one_by_one
from npattn.oracle.rounding.arrays import RoundingArray, implements, rounding_of, to_storage, unwrap, wrap
from npattn.oracle.rounding.following import known_step
from npattn.oracle.rounding.products import round_operand
from npattn.typing import Array

__all__ = ["dot", "einsum", "tensordot"]


@implements(np.einsum)
def einsum(subscripts: str, *operands: Any, optimize: Any = False) -> RoundingArray:
    """Sum products, as matmul, for whatever axes; those of three factors or more at once."""
    subscripts = spell_out(subscripts, operands)
    result = sum_products(subscripts, *operands)
    result.made = known_step((np.einsum, "__call__"), subscripts, *operands, result)
    return result


def spell_out(subscripts: str, operands: tuple[Any, ...]) -> str:
    """Name every axis of an einsum by a letter, those of an ellipsis too, and what it keeps."""
    given, arrow, kept = subscripts.replace(" ", "").partition("->")
    unused = [letter for letter in ascii_letters if letter not in given]
    hidden = [np.ndim(a) - len(one.replace("...", "")) for one, a in zip(given.split(","), operands, strict=True)]
    most = max((n for one, n in zip(given.split(","), hidden, strict=True) if "..." in one), default=0)
    names = "".join(unused[:most])
    parts = [one.replace("...", names[most - n :]) for one, n in zip(given.split(","), hidden, strict=True)]
    if not arrow:
        kept = "..." * ("..." in given) + "".join(sorted(c for c in set(given) - set(".,") if given.count(c) == 1))
    return f"{','.join(parts)}->{kept.replace('...', names)}"


def sum_products(subscripts: str, *operands: Any) -> RoundingArray:
    """Sum products by letters; products of maps element by element are rounded before."""
    rounding = rounding_of(*operands)
    operands = tuple(to_storage(a, rounding) for a in operands)
    given, _, kept = subscripts.partition("->")
    first, *others = given.split(",")
    if others == [first]:
        product = wrap(operands[0] * operands[1], rounding)
        return sum_products(f"{first}->{kept}", product)
    if not others and rounding.adds_one_by_one:
        axes = tuple(i for i, letter in enumerate(first) if letter not in kept)
        return wrap(sum_one_by_one(unwrap(operands[0]), rounding, axis=axes), rounding)
    # What is only added up goes through no unit that multiplies matrices.
    factors = [round_operand(unwrap(a), rounding) if others else unwrap(a) for a in operands]
    result = np.asarray(np.einsum(subscripts, *factors))
    if rounding.random is None:
        return wrap(rounding.round(result), rounding)
    squares = np.asarray(np.einsum(subscripts, *map(np.square, factors)))  # anew: the result may be a view of a factor
    lengths: dict[str, int] = {}
    for letters, a in zip(given.split(","), factors, strict=True):
        for letter, length in zip(letters, a.shape, strict=True):
            lengths[letter] = max(length, lengths.get(letter, 0))
    count = int(np.prod([length for letter, length in lengths.items() if letter not in kept], dtype=int))
    return wrap(rounding.round(rounding.accumulate(result, squares, count)), rounding)


@implements(np.dot)
def dot(a: Array, b: Array) -> Array:
    """Sum over the last axis of one factor and the last but one of the other, for all pairs of the others."""
    if not (np.ndim(a) and np.ndim(b)):
        return a * b
    if np.ndim(b) <= 2:
        return a @ b
    return tensordot(a, b, ([-1], [-2]))


@implements(np.tensordot)
def tensordot(a: Array, b: Array, axes: Any = 2) -> Array:
    """Sum over pairs of axes, by einsum."""
    of_a, of_b = (range(-axes, 0), range(axes)) if isinstance(axes, int) else map(np.atleast_1d, axes)
    first = list(ascii_letters[: np.ndim(a)])
    second = list(ascii_letters[np.ndim(a) : np.ndim(a) + np.ndim(b)])
    for i, j in zip(of_a, of_b, strict=True):
        second[j] = first[i]
    kept = [letter for letter in first + second if (letter in first) != (letter in second)]
    found: Array = np.einsum(f"{''.join(first)},{''.join(second)}->{''.join(kept)}", a, b)
    return found

"""Products of matrices, with what their operands lose by being shortened and the errors of their accumulators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.oracle.rounding.accumulators import add_errors
from npattn.oracle.rounding.cutting import BLOCK_BYTES, cut_rows, is_small, square_product

if TYPE_CHECKING:
    from npattn.oracle.rounding.stochastic import Rounding

__all__ = ["add_product_errors", "multiply", "round_operand"]

SLAB_BYTES, MIN_SLABS = BLOCK_BYTES // 2, 4
"""Of an operand's rows of which a shortened copy is held at once, where a matrix has more than so many of them."""


def multiply(
    a: np.ndarray, b: np.ndarray, rounding: Rounding, *, shortens: bool | None = None, **options: Any
) -> np.ndarray:
    """Multiply matrices as ``np.matmul`` does, with the errors of the format's products but the result's rounding.

    What a matrix stands for but no kernel multiplies as one does not shorten its operands.
    """
    shortens = rounding.format.shortens if shortens is None else shortens
    # By slabs sums may differ in their last bit, by which all is decided where equal numbers err by the same.
    if shortens and not (options or rounding.alike) and has_slabs(a, b):
        return multiply_slabs(a, b, rounding)
    if shortens:
        a, b = (round_operand(m, rounding) for m in (a, b))
    product = np.matmul(a, b, **options)
    if rounding.random is not None:
        add_product_errors(product, a, b, rounding, copied=shortens)
    return product


def round_operand(a: np.ndarray, rounding: Rounding) -> np.ndarray:
    """Shorten an operand of a product to what the format's products take, in a copy if that is less than it has."""
    return rounding.shorten(np.array(a)) if rounding.format.shortens else a


def add_product_errors(
    total: np.ndarray, a: np.ndarray, b: np.ndarray, rounding: Rounding, *, copied: bool = False
) -> None:
    """Add to the product of two arrays the errors that its accumulators may make, in place.

    Of large products the squares are made some rows at a time: never all, nor those of an operand much larger than
    the product. Operands that are copies become their squares.
    """
    inner = a.shape[-1]
    terms = rounding.length_of_sums(inner)
    if copied:
        a, b = (np.square(m, out=m) for m in (a, b))
    if is_small(total, a, b) or total.ndim < 2 or not total.flags.c_contiguous:
        rounding.accumulate(total, np.matmul(a, b) if copied else np.matmul(np.square(a), np.square(b)), terms)
    elif rounding.random is not None and terms > 1:
        a, b = (np.broadcast_to(m, total.shape[:-2] + m.shape[-2:]) for m in (a, b))
        blocks = cut_rows(total)
        # The squares of b serve all blocks of rows, which takes up to 5 % off a case whose products are large.
        kept = len(blocks) > math.prod(total.shape[:-2]) and inner <= 2 * a.shape[-2]
        squares = b
        with np.errstate(over="ignore"):
            for block in blocks:
                if not kept or block[-1].start == 0:
                    squares = np.square(b[block[:-1]]) if kept and not copied else b[block[:-1]]
                rows = a[block] if copied else np.square(a[block])
                found = square_product(rows, squares, squared=kept or copied)
                add_errors(total[block], found, terms, rounding, spare=block is blocks[-1])


def has_slabs(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether each matrix of `b` is many slabs, no smaller than its product, and not broadcast."""
    if min(a.ndim, b.ndim) < 2 or a.shape[-2] > b.shape[-2]:
        return False
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return lead == b.shape[:-2] and b.itemsize * b.shape[-2] * b.shape[-1] > MIN_SLABS * SLAB_BYTES


def multiply_slabs(a: np.ndarray, b: np.ndarray, rounding: Rounding) -> np.ndarray:
    """Multiply matrices of which the second is shortened some rows at a time: a copy of all takes as much again."""
    *lead, inner, columns = b.shape
    a = round_operand(a, rounding)
    a, squares_of_a = (np.broadcast_to(m, (*lead, *m.shape[-2:])) for m in (a, np.square(a)))
    product, squares = (np.zeros((*lead, a.shape[-2], columns), b.dtype) for _ in range(2))
    step = max(1, SLAB_BYTES // (b.itemsize * columns))
    slabs = [(at, slice(k, k + step)) for at in np.ndindex(*lead) for k in range(0, inner, step)]
    for at, some in slabs:
        slab = rounding.shorten(np.array(b[at][some]), spare=(at, some) == slabs[-1])
        product[at] += a[at][:, some] @ slab
        if rounding.random is not None:
            squares[at] += squares_of_a[at][:, some] @ np.square(slab, out=slab)
    if rounding.random is not None:
        blocks, terms = cut_rows(product), rounding.length_of_sums(inner)
        for block in blocks:
            add_errors(product[block], squares[block], terms, rounding, spare=block is blocks[-1])
    return product

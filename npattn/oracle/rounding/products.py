"""Products of matrices, with what their operands lose by being shortened and the errors of their accumulators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.oracle.rounding.cutting import BLOCK_BYTES, cut_rows

if TYPE_CHECKING:
    from npattn.oracle.rounding.stochastic import Rounding

__all__ = ["multiply", "round_operand"]

SLAB_BYTES, MIN_SLABS = BLOCK_BYTES // 2, 4
"""Of an operand's rows of which a shortened copy is held at once, where a matrix has more than so many of them."""


def multiply(a: np.ndarray, b: np.ndarray, rounding: Rounding, **options: Any) -> np.ndarray:
    """Multiply matrices as ``np.matmul`` does, with the errors of the format's products but the result's rounding."""
    shortens = rounding.format.shortens
    # By slabs sums may differ in their last bit, by which all is decided where equal numbers err by the same.
    if shortens and not (options or rounding.alike) and has_slabs(a, b):
        return multiply_slabs(a, b, rounding)
    factors = [round_operand(m, rounding) for m in (a, b)]
    product = np.matmul(*factors, **options)
    if rounding.random is not None:
        rounding.accumulate_product(product, *factors, copied=shortens)
    return product


def round_operand(a: np.ndarray, rounding: Rounding) -> np.ndarray:
    """Shorten an operand of a product to what the format's products take, in a copy if that is less than it has."""
    return rounding.shorten(np.array(a)) if rounding.format.shortens else a


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
            rounding.accumulate_block(product[block], squares[block], terms, spare=block is blocks[-1])
    return product

"""Weights of averages as kernels compute them: divided before a product shortens them, or made again of a logsumexp."""

from __future__ import annotations

import numpy as np

from npattn import ops
from npattn.attention.pixel_correlation import EPSILON
from npattn.ops import affinity, attention
from npattn.oracle.rounding.accumulators import ACCUMULATOR_ROUNDOFF
from npattn.oracle.rounding.arrays import implements, rounding_of, unwrap, wrap
from npattn.oracle.rounding.stochastic import Rounding
from npattn.typing import Array, Backward

__all__ = ["affinity_sums", "change_for_backward", "hand_out", "total_above_largest", "weigh_values"]

ULP, LEAST_COUNTED = 2.0**-23, 2.0**-25
"""Of float32 near 1, and what added to 1 may be rounded up to one, in whatever order a kernel adds."""


@implements(attention.weigh_values)
def weigh_values(v: Array, e: Array, total: Array) -> Array:
    """Average values by exponentials; in tf32 by what they are over the total, as kernels do that divide first.

    The largest exponential is 1, of which a unit that multiplies loses nothing; a weight is no number of the format.
    """
    rounding = rounding_of(v, e)
    if not rounding.format.shortens:
        return attention.weigh_values.definition(v, e, total)
    return v @ (e / total_above_largest(e, total, rounding)).swapaxes(-1, -2)


def total_above_largest(e: Array, total: Array, rounding: Rounding, axis: int = -1) -> Array:
    """Return a total that is above the largest of its terms, if another counts, in the runs whose operands shrink.

    Rounded, it may be the largest. Then that has the weight 1, which is short, and with a total one unit larger one
    just below 1, which loses most of all where it is cut: which it is, is not to be left to chance.
    """
    if not (rounding.format.shortens and rounding.shrinks):
        return total
    terms, total = unwrap(e), unwrap(total)
    largest = terms.max(axis=axis, keepdims=True)
    others = terms.sum(axis=axis, dtype=float, keepdims=True) - largest
    return wrap(np.where(others > LEAST_COUNTED, np.maximum(total, largest * (1 + ULP)), total), rounding)


def hand_out(y: Array, largest: Array | float, total: Array, rounding: Rounding) -> Array:
    """Hand out the weights of a softmax; return them as backward of the softmax itself is to have them.

    In float32 half of the runs' backward finds them made again of the logits' logsumexp, which kernels of attention
    keep. It is as large as the logits and is rounded so, by which all weights of a row are off. In a narrower format
    that is far below a rounding.
    """
    rounding.known.weights.append(y)
    if not (rounding.format.is_accumulator and rounding.choose()):
        return y
    logsumexp = np.abs(unwrap(largest) + np.log(unwrap(total)))
    assert rounding.random is not None
    error = rounding.random.uniform(-ACCUMULATOR_ROUNDOFF, ACCUMULATOR_ROUNDOFF, logsumexp.shape) * logsumexp
    return change_for_backward(y, np.where(np.isfinite(error), 1 + error, 1), rounding)


def change_for_backward(y: Array, factor: np.ndarray, rounding: Rounding) -> Array:
    """Let backward find an array multiplied: at once if it makes it itself. Return it as it was."""
    kept = y.copy()
    if rounding.known.in_backward:
        np.multiply(unwrap(y), factor, out=unwrap(y))
    else:
        rounding.known.later.append((y, kept, factor))
    return kept


@implements(ops.affinity_sums)
def affinity_sums(u: Array, v: Array) -> tuple[tuple[Array, Array], Backward]:
    """Sum values by affinities; in tf32 by what these are over their totals, as kernels do that divide first.

    There totals are sums of what is not shortened: shrunk together with the values' sums, they would cancel that.
    """
    (t, s), backward = ops.affinity_sums.definition(u, v)
    if rounding_of(u, v).format.shortens:
        for j in range(0, u.shape[2], affinity.BLOCK_ROWS):
            rows = slice(j, j + affinity.BLOCK_ROWS)
            c = u[..., rows].swapaxes(-1, -2) @ u
            a = np.where(unwrap(c) <= 0, 0, c)
            total = a.sum(axis=-1, keepdims=True)
            divisor = total + EPSILON
            t[..., rows] = (v @ (a / divisor).swapaxes(-1, -2)) * divisor.swapaxes(-1, -2)
            s[..., rows] = total.swapaxes(-1, -2)
    return (t, s), backward

"""Functions of one number, on large maps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy

from npattn.fast.blocks import BLOCK_SIZE, blocks, broadcast_block, is_large
from npattn.fast.machine import quick_powers
from npattn.fast.threads import parallel_for
from npattn.ops.elementwise import gelu, leaky_relu, relu, sigmoid
from npattn.ops.gating import LETTERS
from npattn.typing import Array, Backward


@relu.faster(suits=is_large)
def relu_without_selection(x: Array) -> tuple[Array, Backward]:
    """Rectify without a selection, whose outcome no processor can foresee: it takes ten times as long.

    Each block is rectified while what was off is in the cache, on all cores.
    """
    y, off = np.empty_like(x), np.empty_like(x, dtype=bool)
    cut = blocks(x, min(1, x.ndim - 1), BLOCK_SIZE)

    def compute(block):
        np.less_equal(x[block], 0, out=off[block])  # false for NaN
        drop_where(off[block], x[block], out=y[block])

    parallel_for(compute, cut)

    def backward(dy):
        if not is_large(dy):
            return np.where(off, 0, dy)
        dx = np.empty_like(dy)
        parallel_for(lambda block: drop_where(off[block], dy[block], out=dx[block]), cut)
        return dx

    return y, backward


def drop_where(off: Array, a: Array, out: Array) -> Array:
    """Drop or keep each number by its bits, in other memory: a product with 0 would make NaN of infinity."""
    bits = f"i{a.itemsize}"
    kept = out.view(bits)
    np.subtract(off.view(np.int8), np.int8(1), out=kept)  # no bit set, or all
    np.bitwise_and(kept, a.view(bits), out=kept)
    return out


LEAST_SLOPE = 1e-3
"""Slope below 0 from which it is none that float32 rounds to 0, which multiplied by infinity is no number."""


def is_large_between_lines(x: Array, negative_slope: float = 0.01) -> bool:
    """Tell whether a map is large, and a leaky ReLU of it the larger of two lines."""
    return LEAST_SLOPE <= negative_slope <= 1 and is_large(x)


@leaky_relu.faster(suits=is_large_between_lines)
def leaky_relu_of_two_lines(x: Array, negative_slope: float = 0.01) -> tuple[Array, Backward]:
    """Take the larger of both lines, and of both slopes, without a selection."""
    y, on = np.empty_like(x), np.empty_like(x, dtype=bool)
    cut = blocks(x, min(1, x.ndim - 1), BLOCK_SIZE)

    def compute(block):
        np.logical_not(np.less_equal(x[block], 0, out=on[block]), out=on[block])  # true for NaN
        np.multiply(x[block], negative_slope, out=y[block])
        np.maximum(x[block], y[block], out=y[block])

    parallel_for(compute, cut)

    def backward(dy):
        if not is_large(dy):
            return np.where(on, dy, negative_slope * dy)
        dx = np.empty_like(dy)

        def compute(block):
            slope = dx[block]
            slope[...] = on[block]
            np.maximum(slope, negative_slope, out=slope)
            slope *= dy[block]

        parallel_for(compute, cut)
        return dx

    return y, backward


MAX_LOGIT = 80.0
"""Argument up to which exp(x) is finite in float32, and its inverse loses no digits."""


@sigmoid.faster(suits=is_large)
def sigmoid_block_by_block(x: Array) -> tuple[Array, Backward]:
    """Do all that a block needs while it is in the cache, its slope too, and nothing by selection.

    With t = exp(x), y = t / (1 + t) and y' = y / (1 + t), where t is finite; blocks in which it may not be are left to
    the definition. As a power of 2, where that is quicker, t is that of an x with one more rounding.
    """
    y, slope = np.empty_like(x), np.empty_like(x)
    power, _, unit = quick_powers()

    def compute(block):
        some, to, below = x[block], y[block], slope[block]
        if some.max() < MAX_LOGIT:  # false for NaN
            power(some if unit == 1 else np.multiply(some, unit, out=to), out=to)
            np.add(to, 1, out=below)
            to /= below
            np.divide(to, below, out=below)
        else:
            to[...], back = sigmoid.definition(some)
            below[...] = back(np.ones_like(some))

    parallel_for(compute, blocks(x, min(1, x.ndim - 1), BLOCK_SIZE))

    def backward(dy):
        return combine_in_blocks(np.multiply, dy, slope)[0] if is_large(dy) else dy * slope

    return y, backward


FARTHEST = 200.0
"""Magnitude at which the normal density is 0, and a square finite."""


@gelu.faster(suits=is_large)
def gelu_block_by_block(x: Array) -> tuple[Array, Backward]:
    """Take the normal distribution from SciPy, and make the slope while a block is in the cache."""
    y, slope = np.empty_like(x), np.empty_like(x)

    def compute(block):
        some, to, below = x[block], y[block], slope[block]
        np.clip(some, -FARTHEST, FARTHEST, out=to)
        np.multiply(to, to, out=below)
        below *= -0.5
        np.exp(below, out=below)
        below *= (2 * np.pi) ** -0.5
        below *= some
        scipy.special.ndtr(some, out=to)
        below += to
        to *= some

    parallel_for(compute, blocks(x, min(1, x.ndim - 1), BLOCK_SIZE))

    def backward(dy):
        return combine_in_blocks(np.multiply, dy, slope)[0] if is_large(dy) else dy * slope

    return y, backward


def are_finite(*arrays: Array) -> bool:
    """Tell whether no number is infinite or NaN; a sum that overflows counts as well, which does no harm."""
    sums: deque[Array] = deque()
    large = [(a, block) for a in arrays if is_large(a) for block in blocks(a, 1)]
    parallel_for(lambda part: sums.append(part[0][part[1]].sum()), large)
    sums.extend(a.sum() for a in arrays if not is_large(a))
    return bool(np.isfinite(sums).all())


def combine_in_blocks(combine: np.ufunc, x: Array, term: Array) -> tuple[Array, str]:
    """Combine a map with what is broadcast to it, on all cores.

    Returns
    -------
    y : array, shape of `x`
    own : str
        A letter, as einsum has them, for each axis along which `term` is as long as the map.
    """
    y = np.empty_like(x, order="K" if all(x.strides) else "C")  # as the map lies, if it is not itself broadcast

    def compute(block):
        combine(x[block], term[broadcast_block(term, block)], out=y[block])

    # From the end: what the pass before came to last is still in the cache.
    parallel_for(compute, blocks(y, axis=min(1, y.ndim - 1))[::-1])
    every = LETTERS[: x.ndim]
    own = "".join(letter for letter, n, m in zip(every, term.shape, x.shape, strict=True) if n == m)
    return y, own


def add_up_in_blocks(dy: Array, own: str, add_up: Callable[[tuple[slice, ...], str, Array], Any]) -> Array | None:
    """Add up what a map's gradient says of a term that is broadcast to the map, on all cores.

    Parameters
    ----------
    dy : array, large
    own : str
        Letters of the axes along which the term is as long as the map.
    add_up : callable
        ``add_up(block, subscripts, sums)`` writes a block's sums; the subscripts say of which axes they are.

    Returns
    -------
    array
        With the axes `own`; None where blocks would have no sums of their own, or too many.
    """
    every = LETTERS[: dy.ndim]
    kept = own
    if not own.startswith("a"):  # images have sums of their own first, or channels of images
        if dy.ndim < 3:
            return None
        kept = "ab" if own in ("", "b") else "a" + own
    sums = np.empty_like(dy, shape=[n for letter, n in zip(every, dy.shape, strict=True) if letter in kept])

    def compute(block):
        to = tuple(part for part, letter in zip(block, every, strict=False) if letter in kept)
        add_up(block, f"{every}->{kept}", sums[to])

    parallel_for(compute, blocks(dy, axis=1 if kept.startswith("ab") else 0, size=BLOCK_SIZE if own == every else None))
    return sums.sum(axis=tuple(i for i, letter in enumerate(kept) if letter not in own)) if kept != own else sums

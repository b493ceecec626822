"""Functions, pools and resizing as kernels compute them: what stands for them on rounding arrays that err more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from npattn import ops
from npattn.oracle.rounding.arrays import (
    HANDLED_UFUNCS,
    RoundingArray,
    implements,
    rounding_of,
    unwrap,
    wrap,
)
from npattn.typing import Array, Backward

if TYPE_CHECKING:
    from npattn.oracle.rounding.stochastic import Rounding

__all__ = [
    "cross_entropy",
    "erf",
    "gelu",
    "global_lse_pool",
    "hard_sigmoid",
    "hard_swish",
    "resize_nearest",
    "sigmoid",
    "tanh",
]

ERF_ERROR = 2.0**-22
"""What kernels' error functions may be off by in float32, four times what rounding near ±1 is.

Their polynomials are off by 1.5e-7 before anything is rounded (Abramowitz, Stegun: Handbook of Mathematical Functions,
7.1.26).
"""


@implements(ops.sigmoid)
def sigmoid(x: RoundingArray) -> tuple[Array, Backward]:
    """Compute the logistic function and its slope as kernels do, which keep y alone: near 1 its 1 - y cancels.

    The primitive itself keeps more than y, and loses nothing there; a correct kernel may. Below 1 half of the runs
    make the slope of the exponential, by more operations, as what differentiates them one by one does.
    """
    e: Any = np.exp(-x)
    e.made = None  # no sigmoid that is written out
    y: Array = 1 / (1 + e)
    one_by_one = rounding_of(x).choose()

    def backward(dy: Array) -> Array:
        slope = y * (1 - y)
        if one_by_one:
            e = np.exp(np.minimum(x, 1))
            slope = np.where(unwrap(x) < 1, e / (1 + e) ** 2, slope)
        return dy * slope

    return y, backward


@implements(ops.tanh)
def tanh(x: RoundingArray) -> tuple[Array, Backward]:
    """Compute the hyperbolic tangent and its slope as kernels do, which keep y alone: near ±1 their 1 - y² cancels.

    In float32 y is made of an exponential, as by a kernel without this function: near 0 it errs as numbers near 1 do.
    """
    y: Array = np.tanh(x)
    if rounding_of(x).format.is_single_precision:
        y = np.copysign(2 / (1 + np.exp(-2 * np.abs(x))) - 1, x)
    return y, lambda dy: dy * (1 - y * y)


@implements(ops.hard_sigmoid)
def hard_sigmoid(x: RoundingArray) -> tuple[Array, Backward]:
    """Squash by straight lines as kernels do, which compare x + 3: rounded, it may be 6 where x is below 3.

    In float32 half of the runs halve the line's error at 1/2 and not at 0, as y = x / 6 + 1/2.
    """
    rounding = rounding_of(x)
    z = x + 3
    below, above = beyond_corners(x, z)
    from_middle = rounding.format.is_single_precision and rounding.choose()
    y: Array = np.where(below, 0, np.where(above, 1, x / 6 + 0.5 if from_middle else z / 6))
    return y, lambda dy: np.where(below | above, 0, dy / 6)


@implements(ops.hard_swish)
def hard_swish(x: RoundingArray) -> tuple[Array, Backward]:
    """Weigh by the hard sigmoid as kernels do: by x (x + 3) / 6 as it stands, or with the slope x / 3 + 1/2.

    Where that passes through 0, what is left is the rounding of its terms, which differ.
    """
    rounding = rounding_of(x)
    as_product, as_line = rounding.choose(), rounding.choose()
    s, back_sigmoid = ops.hard_sigmoid(x)
    z = x + 3
    below, above = beyond_corners(x, z)  # in every run: all compare the same, in the same order
    z = np.where(below, 0, np.where(above, 6, z))

    def backward(dy: Array) -> Array:
        if as_product:
            share = dy / 6
            return share * z + np.where(below | above, 0, share * x)
        if as_line:
            return dy * np.where(below, 0, np.where(above, 1, x / 3 + 0.5))
        return dy * s + back_sigmoid(dy * x)

    return x * z / 6 if as_product else x * s, backward


def beyond_corners(x: Array, z: Array) -> tuple[Array, Array]:
    """Tell where x is at -3 or below, and where it is at 3 or above, or z = x + 3 is rounded to 6."""
    # What is far above the corner may err by more than it lies from those below.
    return x <= -3, (x >= 3) | (np.clip(z, 0, 12) >= 6)


@implements(ops.gelu)
def gelu(x: RoundingArray) -> tuple[Array, Backward]:
    """Gate by (1 + erf(x / √2)) / 2 as kernels do: far below 0 that is made of numbers near 1."""
    share = (1 + scipy.special.erf(x * 0.5**0.5)) * 0.5

    def backward(dy: Array) -> Array:
        density = np.exp(x * x * -0.5) * (2 * np.pi) ** -0.5
        return dy * (share + x * density)

    return x * share, backward


def erf(rounding: Rounding, x: np.ndarray) -> Array:
    """Compute the error function as kernels do, whose polynomials are off by more than the last digit of float32.

    In float32 they are so near 0 too, as 1 less a polynomial that multiplies exp(-x²). In narrower formats it shows far
    below 0, where all runs would round to -1 and leave nothing beside 1: a kernel that rounds nothing on its way does.
    """
    y = rounding.round(np.array(scipy.special.erf(x)))
    if rounding.random is not None:
        noise = rounding.draw_bits(y, 16).view(np.int16) * y.dtype.type(ERF_ERROR / 2**15)
        y += noise if rounding.format.is_single_precision else noise * y
    return wrap(y, rounding)


HANDLED_UFUNCS["erf"] = erf


@implements(ops.global_lse_pool)
def global_lse_pool(x: RoundingArray) -> tuple[Array, Backward]:
    """Pool as kernels do: half of the runs make the gradient of what they gave, p, whose error is relative there.

    The others differentiate through the maximum as well, as released code does: what it gets is 0 but for rounding.
    """
    highest = x.max(axis=(2, 3), keepdims=True)
    highest = np.where(np.isfinite(unwrap(highest)), highest, 0)
    e = np.exp(x - highest)
    total = e.sum(axis=(2, 3), keepdims=True)
    total.made = None  # no softmax that is written out
    p = highest + np.log(total)
    keeps_value = rounding_of(x).choose()

    def backward(dp: Array, accumulate_into: Array | None = None) -> Array:
        dp = dp[:, :, None, None]
        if keeps_value:
            dx = dp * np.exp(x - p)
        else:
            through_sum = e * (dp / total)
            rest = dp - through_sum.sum(axis=(2, 3), keepdims=True)
            dx = through_sum + np.where(unwrap(x) == unwrap(highest), rest, 0)
        return ops.accumulate(accumulate_into, dx)

    return p[:, :, 0, 0], backward


@implements(ops.cross_entropy)
def cross_entropy(logits: RoundingArray, labels: Array, *, ignore_index: int = -100) -> tuple[Array, Backward]:
    """Lose as kernels do, by a sum that the largest term is in, and with softmax less 1 as the label's gradient.

    Both cancel where the label's class has nearly all; the primitive leaves the largest term out. Half of the runs
    keep the logsumexp alone, as large as the logits, and make the probabilities of it.
    """
    keeps_sum = rounding_of(logits).choose()
    own = labels[:, None] == np.arange(logits.shape[1], like=labels).reshape(-1, 1, 1)
    counted, known = labels != ignore_index, own.any(axis=1)
    count = np.maximum(counted.sum(), 1).astype(logits.dtype)
    highest = logits.max(axis=1, keepdims=True)
    e = np.exp(logits - highest)
    total = e.sum(axis=1, keepdims=True)
    total.made = None  # no softmax that is written out
    z = logits - (highest + np.log(total)) if keeps_sum else logits - highest - np.log(total)
    losses = np.where(known, -np.where(own, z, 0).sum(axis=1), np.nan)

    def backward(dy: Array) -> Array:
        y = np.exp(z) if keeps_sum else e / total
        slope = np.where(known[:, None], y - own, np.nan)
        return np.where(counted[:, None], slope * (dy / count), 0)

    return np.where(counted, losses, 0).sum() / count, backward


@implements(ops.resize_nearest)
def resize_nearest(x: RoundingArray, size: tuple[int, int]) -> tuple[Array, Backward]:
    """Repeat as the primitive does; in float32 what reads a number is added up in any order, not rows before columns.

    Of a few terms, one order may add up to the last bit what another rounds.
    """
    y, back = ops.resize_nearest.definition(x, size)
    if not rounding_of(x).format.is_single_precision:
        return y, back
    rows, columns = (np.arange(m) * n // m for n, m in zip(x.shape[2:], size, strict=True))
    read: Any = ..., rows[:, None], columns

    def backward(dy: Array) -> Array:
        dx = np.zeros_like(dy, shape=x.shape)
        np.add.at(dx, read, dy)
        return dx

    return y, backward

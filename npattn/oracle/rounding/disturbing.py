"""What kernels compute otherwise than NumPy does on the same numbers: other exponents, other winners among equals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.oracle.formats import ulp

if TYPE_CHECKING:
    from npattn.oracle.rounding.stochastic import Rounding

__all__ = ["DISTURBED", "largest_finite", "select_equal"]

FAR_EXPONENT = 4
"""Exponents beyond err by more, relative to 1, than exponentials do that are right but for the last bit."""
COARSE_STEP = 0.25
"""Logits that lie so far apart in the format make softmax's weights jump."""


def push_apart(rounding: Rounding, a: np.ndarray, b: Any) -> np.ndarray:
    """Move logits from which the maximum is taken, as before a softmax, where they lie far apart in the format.

    There an exponential turns rounding into jumps, and the largest error that a kernel may make, which few runs come
    near, is not in proportion to the usual one. So each goes to one side or the other by a unit in the last place.
    """
    format = rounding.format
    if rounding.random is None or not reduced_axes(a, b):
        return a
    coarse_from = COARSE_STEP * 2.0 ** (format.precision - 1)
    farthest = largest_finite(a)
    if farthest < coarse_from or not (b >= a).all():
        return a
    step = ulp(a, format)
    side = np.where(rounding.draw_bits(a, 1), 1, -1)
    return np.where(step >= COARSE_STEP, a + side * step, a).astype(a.dtype)


def round_exponents(rounding: Rounding, x: np.ndarray) -> np.ndarray:
    """Let exponents err in float32 as of kernels that raise 2 to the power of x / log 2, which they round."""
    if not rounding.format.is_single_precision or rounding.random is None:
        return x
    far = np.isfinite(x) & (np.abs(x) > FAR_EXPONENT)
    if not far.any():
        return x
    blurred = rounding.blur(x.copy())
    np.copyto(blurred, x, where=~far)
    return blurred


DISTURBED: dict[Any, Callable[..., np.ndarray]] = {np.exp: round_exponents, np.subtract: push_apart}
"""What the first operand of a function becomes, where kernels compute with another than the reference."""


def largest_finite(a: np.ndarray) -> float:
    """Return the largest magnitude of numbers that are neither infinite nor NaN; 0 where there are none."""
    farthest = max(np.max(a, initial=0), -np.min(a, initial=0))
    if not farthest < np.inf:  # a selection takes several times as long
        farthest = max(np.max(a, initial=0, where=a < np.inf), -np.min(a, initial=0, where=a > -np.inf))
    return float(farthest)


def reduced_axes(a: np.ndarray, b: Any) -> list[int]:
    """List the axes along which one number of `b` serves several of `a`."""
    if np.ndim(a) != np.ndim(b):
        return []
    return [axis for axis, (n, m) in enumerate(zip(np.shape(a), np.shape(b), strict=True)) if m == 1 < n]


def select_equal(rounding: Rounding, a: np.ndarray, b: Any) -> np.ndarray:
    """Tell equals; where an array is compared with its maximum along an axis, the winner is a selection."""
    equal = np.equal(a, b)
    axes = reduced_axes(a, b)
    if len(axes) != 1 or not (b >= a).all():
        return equal
    equal[...] = False
    np.put_along_axis(equal, rounding.selections.winners(a, axes[0]), True, axes[0])
    return equal

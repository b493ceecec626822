"""Stochastic rounding to a format, and the error of an accumulator in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from npattn.oracle.formats import Format
from npattn.oracle.rounding.arrays import ACCUMULATOR_ROUNDOFF, RoundingArray, wrap
from npattn.oracle.rounding.selections import Selections
from npattn.typing import Array

__all__ = ["Rounding"]


class Rounding:
    """How errors are made: one for each run.

    Parameters
    ----------
    format : Format
    seed : int or list of int, optional
        Of the errors. Without one, all results are rounded to nearest, as one plain kernel rounds them.
    selections : Selections, optional
        What decides comparisons and maxima; by default the numbers as they are.

    Attributes
    ----------
    fused : bool
        Whether results are left in the storage's own precision for now, as within a fused kernel.

    Examples
    --------
    >>> from npattn.oracle import FORMATS
    >>> x = Rounding(FORMATS["bfloat16"]).array(np.array([1.0, 3.0]))
    >>> np.asarray(x / 3)
    array([0.33398438, 1.        ], dtype=float32)
    """

    def __init__(
        self, format: Format, seed: int | Sequence[int] | None = None, selections: Selections | None = None
    ) -> None:
        self.format = format
        self.fused = False
        self.random = None if seed is None else np.random.Generator(np.random.SFC64(seed))
        self.selections = selections or Selections()

    def array(self, values: np.ndarray) -> RoundingArray:
        """Take numbers of the format, exact as they are, for a run."""
        return wrap(np.array(values, self.format.storage), self)

    def round(self, values: Array, precision: int | None = None) -> np.ndarray:
        """Round stochastically, in place: to one of the format's two neighbours, to the nearer one more often.

        Parameters
        ----------
        values : array
            Of the storage's dtype; others are left alone.
        precision : int, optional
            Significant bits, other than the format's own.

        Returns
        -------
        numpy.ndarray
            `values`.
        """
        format = self.format
        values = np.asarray(values)
        if self.fused or values.dtype != format.storage:  # integers, Booleans
            return values
        bits: Array = values.view(np.uint32 if format.storage is np.float32 else np.uint64)
        drop = np.finfo(format.storage).nmant + 1 - (precision or format.precision)
        if drop == 0:
            return values
        limited = format.least_exponent > -126 or format.storage is np.float64
        if limited:
            magnitude = np.abs(values)
            subnormal = (magnitude < 2.0**format.least_exponent) & (magnitude > 0)
            rounded = self.round_subnormal(values[subnormal])
        word = bits.dtype.type
        if self.random is None:
            bits += ((bits >> word(drop)) & word(1)) + word((1 << drop - 1) - 1)
        else:
            # A number is cut off after a random amount below the last place has been added to it.
            bits += self.draw_bits(values.shape, drop)
        bits &= ~word((1 << drop) - 1)
        if limited:
            values[subnormal] = rounded
            if not magnitude.max(initial=0) < format.largest / 2:  # NaN too
                beyond = (np.abs(values) > format.largest) & (magnitude < np.inf)
                values[beyond] = np.copysign(format.largest if format.saturates else np.inf, values[beyond])
        return values

    def round_subnormal(self, values: np.ndarray) -> np.ndarray:
        """Round to the format's subnormal numbers, which are evenly spaced."""
        steps = values / self.format.smallest
        rounded = np.rint(steps) if self.random is None else np.floor(steps + self.random.random(steps.shape))
        return rounded * self.format.smallest

    def draw_bits(self, shape: tuple[int, ...], count: int) -> np.ndarray:
        """Draw integers of so many random bits, from as narrow words as hold them; only where errors are random."""
        assert self.random is not None
        word = next(word for word in (np.uint16, np.uint32, np.uint64) if np.iinfo(word).bits >= count)
        size, bits = math.prod(shape), np.iinfo(word).bits
        raw: Array = self.random.bit_generator.random_raw(size * bits // 64 + 1).view(word)[:size].reshape(shape)
        return raw if bits == count else raw >> word(bits - count)

    def accumulate(self, total: np.ndarray, squares: np.ndarray, count: int) -> np.ndarray:
        """Add to sums the error that an accumulator in float32 may make, in place.

        Given its end S, the sum of the first k of n terms is kS/n plus a random walk that ends at 0, of variance
        k(n - k)/n² Q², where Q² is the sum of the squared terms; over k the squares add up to n (S²/3 + Q²/6). Rounding
        a number s errs by u²s²/3 in the mean square at most.

        Parameters
        ----------
        total, squares : numpy.ndarray
            Sums, and the sums of their squared terms.
        count : int
            Terms of each.

        Returns
        -------
        numpy.ndarray
            `total`.
        """
        if self.random is not None and count > 1:
            with np.errstate(invalid="ignore", over="ignore"):
                size: Array = np.asarray(squares * 0.5)
                size += np.square(total)
                np.sqrt(size, out=size)
                if not np.isfinite(size.max(initial=0)):
                    size = np.where(np.isfinite(total), size, 0)  # an infinity is exact
                # Uniform numbers of the same variance do as well as normal ones, and are drawn sooner.
                noise = self.draw_bits(total.shape, 16).view(np.int16)
                size *= np.asarray(ACCUMULATOR_ROUNDOFF / 3 * math.sqrt(12 * count) / 2**16, size.dtype)
                size *= noise
                total += size.astype(total.dtype, copy=False)
        return total

"""Stochastic rounding to a format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npattn.oracle.formats import Format
from npattn.oracle.rounding.accumulators import ACCUMULATOR_ROUNDOFF, add_errors
from npattn.oracle.rounding.arrays import RoundingArray, wrap
from npattn.oracle.rounding.cutting import cut_row, cut_slabs
from npattn.oracle.rounding.following import Known
from npattn.oracle.rounding.footprint import Footprint
from npattn.oracle.rounding.selections import Selections
from npattn.typing import Array

__all__ = ["Rounding"]

NOTHING = np.empty(0, np.intp)
"""What a block has of numbers near 0, where there are none."""
WORDS = {16: np.uint16, 32: np.uint32, 64: np.uint64}
"""Of random bits, by their number."""
NUM_DEALT_CHOICES = 3
"""Choices of a run that its number decides."""
SHORT_BITS = 10
"""An operand counts as short if it loses no more than a unit in the last place over two to this power."""
BLUR_ROUNDOFFS = 1.0
"""How many unit roundoffs a number is blurred by at most: stochastic rounding errs by 0.58 of them on average."""
FLUSHED_BELOW = -126
"""Exponent of the smallest numbers that all of a GPU's units compute with."""
RUNS_TO_FLUSHED = 4
"""From one run that makes all numbers 0 that some units don't compute with to the next."""


class Extremes(NamedTuple):
    """Numbers of a block that are not rounded by their bits alone.

    Attributes
    ----------
    small : numpy.ndarray of int
        Indices of those near 0.
    near_zero : numpy.ndarray
        These, rounded.
    finite : numpy.ndarray of bool, or None
        Where numbers are finite, if any may be rounded beyond the largest one.
    """

    small: np.ndarray
    near_zero: np.ndarray
    finite: np.ndarray | None


class Rounding:
    """How errors are made: one for each run.

    Parameters
    ----------
    format : Format
    seed : int or list of int, optional
        Of the errors; the last of several is the run's number. Without one, all results are rounded to nearest, as one
        plain kernel rounds them.
    selections : Selections, optional
        What decides comparisons and maxima; by default the numbers as they are.
    alike : bool, default False
        Whether equal numbers of one operation err by the same, as they do in a kernel: then errors of ties add up.

    Attributes
    ----------
    dtype : numpy.dtype
        The storage's.
    fused : bool
        Whether results are left in the storage's own precision for now, as within a fused kernel.
    saturated : bool
        Whether any number has become the format's largest, as it was larger.
    footprint : Footprint or None
        Where the arrays of the run are counted, if they are.
    flushes : bool
        Whether all subnormal numbers of float32 are 0.
    shrinks : bool
        Whether shortened operands shrink, else they grow: in half of eight runs in a row, whatever `choose` chooses.
    accumulator_roundoff : float
        Unit roundoff of the accumulators.
    known : Known
        What is remembered of what a system writes out.
    joined_sums : list of int
        Of the products that come next, in turn: how many sums as each has are one in a kernel's accumulator.

    Examples
    --------
    >>> from npattn.oracle import FORMATS
    >>> x = Rounding(FORMATS["bfloat16"]).array(np.array([1.0, 3.0]))
    >>> np.asarray(x / 3)
    array([0.33398438, 1.        ], dtype=float32)
    """

    def __init__(
        self,
        format: Format,
        seed: int | Sequence[int] | None = None,
        selections: Selections | None = None,
        *,
        alike: bool = False,
    ) -> None:
        self.format = format
        self.dtype = np.dtype(format.storage)
        self.digits = np.finfo(self.dtype).nmant + 1
        self.word = WORDS[8 * self.dtype.itemsize]
        self.least_normal = 2.0**format.least_exponent
        number = seed[-1] if isinstance(seed, Sequence) else seed or 0
        self.flushes = format.least_exponent == FLUSHED_BELOW and number % RUNS_TO_FLUSHED == 1
        self.shrinks = bool((number ^ number >> 1 ^ number >> 2) & 1)
        # Whether the format's range is narrower than the storage's.
        self.limited = self.flushes or format.least_exponent > FLUSHED_BELOW or self.dtype == np.float64
        self.alike = alike
        self.fused = False
        self.saturated = False
        self.footprint: Footprint | None = None
        self.accumulator_roundoff = ACCUMULATOR_ROUNDOFF
        self.joined_sums: list[int] = []
        self.known = Known()
        self.random = None if seed is None else np.random.Generator(np.random.SFC64(seed))
        self.selections = selections or Selections()
        self.factor = self.draw_factor() if alike else np.uint64(1)
        self.choices = [bool(number >> place & 1) for place in range(NUM_DEALT_CHOICES)]

    def array(self, values: np.ndarray) -> RoundingArray:
        """Take numbers of the format, exact as they are, for a run."""
        return wrap(np.array(values, self.dtype), self)

    def choose(self) -> bool:
        """Choose between two ways in which kernels compute the same; without a seed, the first.

        The first choices of a run are the digits of its number: of eight runs in a row half take either way, in every
        combination. Were they drawn, all runs might take the way that errs by less.
        """
        if self.random is None:
            return False
        return self.choices.pop(0) if self.choices else bool(self.random.random() < 0.5)

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
        values = np.asarray(values)
        drop = self.digits - (precision or self.format.precision)
        if self.fused or values.dtype != self.dtype or drop == 0:  # integers and Booleans too
            return values
        # Where rows don't follow each other, a copy is: a dozen passes over it take less than over the array.
        row = values.reshape(-1)
        blocks = cut_row(row)
        extremes = [self.round_extremes(block) for block in blocks] if self.limited else []
        for block in blocks:
            self.round_bits(block, drop, spare=block is blocks[-1])
        for block, found in zip(blocks, extremes, strict=False):
            self.restore(block, found)
        if not values.flags.c_contiguous:
            values[...] = row.reshape(values.shape)
        return values

    def shorten(self, values: np.ndarray, *, spare: bool = True) -> np.ndarray:
        """Blur operands of a product, in place, by what they lose in being shortened to what its units take.

        Some kernels shorten them to the nearest number, some cut digits off, and some, where little is to be computed,
        take them as they are. Rounded to one of two numbers, of which one is near, nearly all runs would lose the same,
        and miss the others. Cut, all operands shrink by half a unit on average, which no sum averages out: so do those
        of half of the runs. In the others they grow, which no kernel does, but the errors are as large, and near ties
        go both ways. Operands that are short already lose nothing, those just below a short number what can be cut.
        """
        drop = self.digits - self.format.operand_precision
        if self.random is None:
            return self.round(values, self.format.operand_precision)
        unit, slabs, centre = 1 << drop, cut_slabs(values), -0.5 if self.shrinks else 0.5
        for slab in slabs:  # what is computed of a number takes several times its own memory
            bits: Array = slab.view(self.word)
            lost = bits & (unit - 1)
            short, just_below = lost < unit >> SHORT_BITS, lost > unit - (unit >> SHORT_BITS)
            blur = 1.5 * self.draw_bits(slab, drop, spare=spare and slab is slabs[-1]) + (centre - 0.75) * unit
            blur = np.where(short, 0, np.where(just_below, -1.0 * lost, blur))
            bits += blur.astype(f"i{self.dtype.itemsize}").view(self.word)
        return values

    def blur(self, values: np.ndarray) -> np.ndarray:
        """Add to numbers, in place, what rounding to the format may, but to those too that are the format's already.

        Uniform, as an error is of which nothing is known, and in the mean square that of rounding stochastically.
        """
        if self.random is not None:
            noise = self.draw_bits(values, 16).view(np.int16)
            values += values * (noise * values.dtype.type(BLUR_ROUNDOFFS * self.format.unit_roundoff / 2**15))
        return values

    def round_extremes(self, values: np.ndarray) -> Extremes:
        """Round those numbers of a row that are near 0 apart, and see which may leave the range."""
        magnitude = np.abs(values)
        near = magnitude < self.least_normal
        small = near_zero = NOTHING
        if near.any():
            near &= magnitude > 0
            (small,) = near.nonzero()  # an index takes a tenth as long as a mask
            if small.size:
                # Of the storage's dtype: numbers of another take three times as long to be put in place.
                near_zero = self.round_subnormal(values.take(small)).astype(self.dtype, copy=False)
        within = np.maximum.reduce(magnitude, initial=0) < self.format.largest / 2  # false for NaN
        return Extremes(small, near_zero, None if within else magnitude < np.inf)

    def round_subnormal(self, values: np.ndarray) -> np.ndarray:
        """Round to the format's subnormal numbers, which are evenly spaced; half of float32's to 0, as GPUs may.

        In some runs all of them are, bfloat16's too: else none of eight may show what hangs on one number.
        """
        if self.flushes:
            return np.zeros_like(values)
        steps = values / self.format.smallest
        if self.random is None:
            return np.rint(steps) * self.format.smallest
        if self.format.least_exponent == FLUSHED_BELOW:
            drawn = self.random.random(steps.shape) * 2
            return np.where(drawn < 1, np.floor(steps + drawn), 0) * self.format.smallest
        drawn = self.random.random(steps.shape)
        drawn += steps
        return np.floor(drawn, out=drawn) * self.format.smallest

    def round_bits(self, values: np.ndarray, drop: int, *, spare: bool) -> None:
        """Cut so many bits off, after a random amount below the last place has been added."""
        bits: Array = values.view(self.word)
        if self.random is None:
            bits += ((bits >> drop) & 1) + ((1 << drop - 1) - 1)
        else:
            bits += self.draw_bits(values, drop, spare=spare)
        bits &= (1 << 8 * self.dtype.itemsize) - (1 << drop)

    def restore(self, values: np.ndarray, extremes: Extremes) -> None:
        """Put in place what was rounded apart, and what is beyond the largest number."""
        if extremes.small.size:
            values[extremes.small] = extremes.near_zero
        if extremes.finite is not None:
            beyond = (np.abs(values) > self.format.largest) & extremes.finite
            values[beyond] = np.copysign(self.format.largest if self.format.saturates else np.inf, values[beyond])
            self.saturated |= self.format.saturates and bool(beyond.any())

    def draw_bits(self, values: np.ndarray, count: int, *, spare: bool = True) -> np.ndarray:
        """Draw for each number an integer of so many random bits, in as narrow words as hold them.

        They come by 64 bits, of which those of a whole array end with some to spare; those of its blocks but the last
        have none.
        """
        assert self.random is not None
        bits = 16 if count <= 16 else 32 if count <= 32 else 64
        word = WORDS[bits]
        if self.alike:  # the first bits of its product with a random odd number, one for all blocks
            plain = np.asarray(values)
            hashed: Array = plain.view(f"u{plain.itemsize}").astype(np.uint64) * self.factor
            if spare:
                self.factor = self.draw_factor()
            return (hashed >> np.uint64(64 - count)).astype(word)
        shape, size = values.shape, values.size
        words = size * bits // 64 + 1 if spare else -(-size * bits // 64)
        raw: Array = self.random.bit_generator.random_raw(words).view(word)[:size]
        if bits > count:
            raw >>= bits - count
        return raw.reshape(shape)

    @property
    def adds_one_by_one(self) -> bool:
        """Whether sums, other than products', are to be made as one accumulator makes them.

        Where terms are equal, its errors don't average out; only beside a format's own of as many digits they show.
        """
        return self.alike and self.format.is_single_precision

    def length_of_sums(self, inner: int) -> int:
        """Return how many terms an accumulator adds up of a product that comes next, of so long sums."""
        return inner * self.joined_sums.pop(0) if self.joined_sums else inner

    def accumulate(self, total: np.ndarray, squares: np.ndarray, count: int) -> np.ndarray:
        """Add to sums the errors that an accumulator in float32 may make, in place; none where all round to nearest.

        Parameters
        ----------
        total, squares : numpy.ndarray
            Sums, and the sums of their squared terms, which are used up.
        count : int
            Terms of each.

        Returns
        -------
        numpy.ndarray
            `total`.
        """
        if self.random is not None and count > 1:
            add_errors(total, np.asarray(squares), count, self)
        return total

    def draw_factor(self) -> np.uint64:
        """Draw the odd number that makes the random bits of one operation where equal numbers err alike."""
        assert self.random is not None
        return np.uint64(self.random.bit_generator.random_raw() | 1)

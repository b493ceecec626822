"""Whether a wrong result is what a claim says: within the budget on every element, and not by chance."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from npattn.oracle.formats import Format, ulp

__all__ = ["Candidate", "Evidence"]

SAMPLE_SIZE = 2048
"""Elements on which a claim is tried before all are looked at."""
SMALL_SAMPLE_SIZE = 32
"""Elements on which most claims fail."""
BLOCK_SIZE = 2**18
"""Elements that are looked at at once."""
LIVE_SHARE = 0.3
"""Share of the elements that are found right in which a mistake must show."""
ZERO_RATIO = 1e-12
"""Size, in proportion to a result's largest number, up to which another is 0 but for rounding in float64."""
MIN_BITS = 24.0
"""How many bits a claim must explain: one that holds by chance would need a luck of 2 to minus that."""
MAX_BITS = 24.0
"""Bits that one element counts for at most."""

Candidate: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""What a claim says that elements, given by their flat indices, are: values, and one unit of budget of each."""


class Evidence:
    """A wrong result beside the exact one.

    Parameters
    ----------
    got, expected, budget : numpy.ndarray, float64
        Of one shape.
    limits : tuple of float
        How many units the worst element, and the root mean square of all, may be off.
    format : Format
        In which the kernel rounds.
    """

    def __init__(
        self,
        got: np.ndarray,
        expected: np.ndarray,
        budget: np.ndarray,
        limits: tuple[float, float],
        format: Format,
    ) -> None:
        self.shape, self.limits, self.format = got.shape, limits, format
        self.got, self.expected = got.ravel(), np.where(np.isfinite(expected), expected, 0).ravel()
        # An exact infinity has no distance to anything; an element that is not judged says nothing.
        self.budget = np.where(np.isfinite(expected), budget, np.inf).ravel()
        self.judged = np.flatnonzero(np.isfinite(self.budget))
        self.sample = self.judged
        if self.judged.size > SAMPLE_SIZE:
            self.sample = self.judged[np.unique(np.random.RandomState(0).randint(0, self.judged.size, SAMPLE_SIZE))]

    def within(self, mask: np.ndarray) -> Evidence:
        """Return the evidence of some elements, in a row."""
        flat = mask.ravel()
        return Evidence(self.got[flat], self.expected[flat], self.budget[flat], self.limits, self.format)

    def units(self, candidate: Candidate, indices: np.ndarray) -> np.ndarray:
        """Return how far elements are from what is claimed, in units of budget."""
        values, unit = candidate(indices)
        with np.errstate(all="ignore"):
            return np.where(
                self.got[indices] == values, 0, np.abs(self.got[indices] - values) / self.rounded(values, unit)
            )

    def rounded(self, values: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Widen units by one rounding to the format: what was right before may be rounded once more."""
        step = ulp(values, self.format, self.format.operand_precision)
        return np.sqrt(np.square(unit) + np.square(step) / 12)

    def bits(self, candidate: Candidate, fitted: int = 0) -> float:
        """Count how many bits of the sample a claim explains: where it says what the exact result does, none.

        Equal pairs of numbers, such as those of a result that is the same along an axis, count once.
        """
        values, unit = candidate(self.sample)
        with np.errstate(all="ignore"):
            apart = np.abs(values - self.expected[self.sample]) / (self.limits[0] * self.rounded(values, unit))
            found = np.minimum(np.log2(np.maximum(np.nan_to_num(apart, nan=0.0), 1)), MAX_BITS)
        _, first = np.unique(self.got[self.sample] + 1j * self.expected[self.sample], return_index=True)
        found = found[first]
        return float(found.sum() - fitted * found.max(initial=0))

    def supports(self, candidate: Candidate, *, fitted: int = 0, chances: float = 0.0) -> bool:
        """Tell whether a claim holds of every element, and not by chance.

        Parameters
        ----------
        candidate : callable
        fitted : int, default 0
            Numbers that it was fitted by to the result: each explains one element in any case.
        chances : float, default 0
            Bits that the claim was chosen by, of so many like it.

        Returns
        -------
        bool
        """
        few = self.sample[:: max(1, self.sample.size // SMALL_SAMPLE_SIZE)]
        if not self.sample.size or not all(
            (self.units(candidate, i) <= self.limits[0]).all() for i in (few, self.sample)
        ):
            return False
        if self.bits(candidate, fitted) < MIN_BITS + chances:
            return False
        total = 0.0
        for start in range(0, self.judged.size, BLOCK_SIZE):
            units = self.units(candidate, self.judged[start : start + BLOCK_SIZE])
            if not (units <= self.limits[0]).all():
                return False
            total += float(np.sum(np.square(units)))
        return total <= self.judged.size * self.limits[1] ** 2

    @functools.cached_property
    def errors(self) -> np.ndarray:
        """Errors in units of budget, in a row: 0 of what is not judged, infinite of what is no number."""
        with np.errstate(all="ignore"):
            errors = np.abs(self.got - self.expected) / self.budget
        return np.where(np.isfinite(self.budget), np.where(np.isnan(errors), np.inf, errors), 0)

    def wrong(self) -> np.ndarray:
        """Return a mask, shaped as the result, of the elements beyond their limit."""
        return (self.errors > self.limits[0]).reshape(self.shape)

    def right(self, mask: np.ndarray) -> bool:
        """Tell whether the elements of a mask are within their limits."""
        errors = self.errors[mask.ravel()]
        return bool(errors.max(initial=0) <= self.limits[0] and np.mean(np.square(errors)) <= self.limits[1] ** 2)

    def would_show(self, mask: np.ndarray) -> bool:
        """Tell whether mistakes would show in elements of a mask, in all slices of it: not if they are nearly 0.

        A slice of zeros, such as the gradient of a query that sees one key, is 0 in any kernel: it says nothing
        of where others are wrong.
        """
        nothing = ZERO_RATIO * np.max(np.abs(self.expected[self.judged]), initial=0)
        zero = ((np.abs(self.expected) <= nothing) & np.isfinite(self.budget)).reshape(self.shape)
        live = mask & (np.abs(self.expected) > self.limits[0] * self.budget).reshape(self.shape)
        slices = [tuple(other for other in range(mask.ndim) if other != axis) for axis in range(mask.ndim)]
        # A slice that the mask holds whole is one of which it is said that it is right.
        vain = [zero.all(axis=others, keepdims=True) for others in slices]
        whole = all(
            (live.any(axis=others, keepdims=True) | ~mask.all(axis=others, keepdims=True) | one).all()
            for others, one in zip(slices, vain, strict=True)
        )
        telling = mask & ~functools.reduce(np.logical_or, vain)
        return bool(whole and live.any() and live.sum() >= LIVE_SHARE * telling.sum())

"""Near ties: comparisons that rounding may decide otherwise. They are found in one run, and flipped in others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets.passes import Given, named_results, run_on
from npattn.oracle.formats import FLOAT64, Format
from npattn.oracle.rounding import Rounding, Selections

__all__ = ["FLIP_GROUPS", "FLIP_ROUNDS", "FlippedSelections", "Observed", "observe"]

FLIP_GROUPS = 4
"""Into so many groups near ties are dealt, each of which is flipped in a run of its own."""
FLIP_ROUNDS = 3
"""How often they are dealt."""
NEAR_TIE_DEVIATIONS = 6.0
"""A tie is near if the margin is less than this many standard deviations of the noise of what is compared."""

Ordering = Callable[..., np.ndarray]
"""``numpy.less`` or one of its like."""


class Observed(NamedTuple):
    """What one exact run and one with stochastic rounding tell.

    Attributes
    ----------
    expected : dict of numpy.ndarray
        The exact results, in float64.
    margins : list of numpy.ndarray
        What was compared, in the order of the comparisons.
    noise : list of float
        How far rounding moves it, root mean square.
    near_ties : int
        Decisions that rounding may flip.
    """

    expected: dict[str, np.ndarray]
    margins: list[np.ndarray]
    noise: list[float]
    near_ties: int


def observe(module: Module, given: Given, format: Format, seed: int) -> Observed:
    """Compute the exact results, and how near ties were on the way.

    Parameters
    ----------
    module : Module
    given : Given
    format : Format
    seed : int
        Of the roundings.

    Returns
    -------
    Observed
    """
    with np.errstate(all="ignore"):
        expected = named_results(module, given)
    recorded = RecordedSelections()
    run_on(Rounding(FLOAT64, selections=recorded), module, given)
    compared = ComparedSelections(recorded.margins)
    if recorded.margins:
        run_on(Rounding(format, [seed, 0], compared), module, given)
    return Observed(expected, recorded.margins, compared.noise, compared.near_ties)


class RecordedSelections(Selections):
    """Remember what was compared, and how, in the exact run."""

    def __init__(self) -> None:
        super().__init__()
        self.margins: list[np.ndarray] = []

    def compare(self, left: np.ndarray, right: np.ndarray, ordering: Ordering) -> np.ndarray:
        self.margins.append(np.subtract(left, right))
        return super().compare(left, right, ordering)

    def winners(self, values: np.ndarray, axis: int) -> np.ndarray:
        self.margins.append(np.array(values))
        return super().winners(values, axis)

    def order(self, values: np.ndarray, axis: int) -> np.ndarray:
        self.margins.append(np.array(values))
        return super().order(values, axis)


class ComparedSelections(Selections):
    """Measure, in a run with stochastic rounding, the noise of what is compared; count near ties.

    Parameters
    ----------
    margins : list of numpy.ndarray
        Of the exact run.
    """

    def __init__(self, margins: list[np.ndarray]) -> None:
        super().__init__()
        self.margins = iter(margins)
        self.noise: list[float] = []
        self.near_ties = 0

    def compare(self, left: np.ndarray, right: np.ndarray, ordering: Ordering) -> np.ndarray:
        margin = self.add_noise(np.subtract(left, right))
        self.near_ties += int((np.abs(margin) < NEAR_TIE_DEVIATIONS * self.noise[-1]).sum())
        return super().compare(left, right, ordering)

    def winners(self, values: np.ndarray, axis: int) -> np.ndarray:
        margin = self.add_noise(values)
        rivals = margin >= margin.max(axis=axis, keepdims=True) - 2**0.5 * NEAR_TIE_DEVIATIONS * self.noise[-1]
        self.near_ties += int((rivals.sum(axis=axis) > 1).sum())
        return super().winners(values, axis)

    def order(self, values: np.ndarray, axis: int) -> np.ndarray:
        gaps = np.diff(np.sort(self.add_noise(values), axis=axis), axis=axis)
        self.near_ties += int((gaps < 2**0.5 * NEAR_TIE_DEVIATIONS * self.noise[-1]).sum())
        return super().order(values, axis)

    def add_noise(self, values: np.ndarray) -> np.ndarray:
        """Note how far what is compared next is from the exact run's, which is returned."""
        margin = next(self.margins)
        error = (values - margin)[np.isfinite(margin) & np.isfinite(values)]
        self.noise.append(float(np.sqrt(np.mean(np.square(error)))) if error.size else 0.0)
        return margin


class FlippedSelections(Selections):
    """Flip near ties, a group of them in each run of a round, so that each has its turn in every round.

    Parameters
    ----------
    observed : Observed
    seed : int
    number : int
        Of the run, from 0 to FLIP_ROUNDS · FLIP_GROUPS - 1.
    """

    def __init__(self, observed: Observed, seed: int, number: int) -> None:
        super().__init__()
        self.events = iter(zip(observed.margins, observed.noise, strict=True))
        self.round, self.group = divmod(number, FLIP_GROUPS)
        # All rounds and runs share the random numbers by which near ties are dealt out.
        self.random = np.random.Generator(np.random.SFC64([seed, 1]))
        self.dealt = 0

    def deal(self, count: int) -> np.ndarray:
        """Choose this run's group of the next near ties.

        Two that are flipped together might cancel. So they are numbered, and those of a round stand together by
        another digit of their number in each: two of one block of FLIP_GROUPS ** FLIP_ROUNDS share no group in some
        round.

        Parameters
        ----------
        count : int

        Returns
        -------
        numpy.ndarray of bool, (count,)
        """
        number = self.dealt + np.arange(count)
        self.dealt += count
        block, place = np.divmod(number, FLIP_GROUPS**FLIP_ROUNDS)
        random = np.random.Generator(np.random.SFC64([self.round, 2]))
        shift = random.integers(0, FLIP_GROUPS, block.max(initial=0) + 1)
        return (place // FLIP_GROUPS**self.round + shift[block]) % FLIP_GROUPS == self.group

    def compare(self, left: np.ndarray, right: np.ndarray, ordering: Ordering) -> np.ndarray:
        """Compare numbers, of which those of this run's near ties have crossed over."""
        margin, noise = next(self.events)
        near = np.flatnonzero(np.abs(margin) < NEAR_TIE_DEVIATIONS * noise)
        mine = near[self.deal(near.size)]
        if left.shape == margin.shape and left.flags.writeable:
            # The number itself crosses over, as far as noise may take it, so that what is computed from it does too.
            left.flat[mine] -= margin.flat[mine] + np.copysign(NEAR_TIE_DEVIATIONS * noise, margin.flat[mine])
            return super().compare(left, right, ordering)
        found = super().compare(left, right, ordering)
        found.flat[mine] = ~ordering(margin.flat[mine], 0)
        return found

    def winners(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the index of a maximum, or of one of its rivals if the tie is one of this run's."""
        margin, noise = next(self.events)
        found = super().winners(values, axis)
        if not noise:  # equal numbers stay equal in every kernel, and the first of them wins
            return found
        near = margin >= margin.max(axis=axis, keepdims=True) - 2**0.5 * NEAR_TIE_DEVIATIONS * noise
        near &= near.sum(axis=axis, keepdims=True) > 1
        mine = np.zeros(near.shape, bool)
        mine[near] = self.deal(int(near.sum()))
        lot = np.where(mine, self.random.random(near.shape), 0)
        return np.where(mine.any(axis=axis, keepdims=True), lot.argmax(axis=axis, keepdims=True), found)

    def order(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the indices that sort after all numbers were moved, near ones past each other."""
        _, noise = next(self.events)
        moves = self.random.standard_normal((FLIP_ROUNDS * FLIP_GROUPS, *values.shape))
        return super().order(
            values + moves[self.round * FLIP_GROUPS + self.group] * (NEAR_TIE_DEVIATIONS / 2 * noise), axis
        )

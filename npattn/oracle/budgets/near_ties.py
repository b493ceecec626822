"""Near ties: comparisons that rounding may decide otherwise. They are found in one run, and flipped in others."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets.passes import Given, exact_results, run_on
from npattn.oracle.formats import FLOAT64, Format
from npattn.oracle.rounding import Footprint, Rounding, Selections
from npattn.oracle.threads import Follower, most_threads

__all__ = ["FLIP_GROUPS", "FLIP_ROUNDS", "Event", "FlippedSelections", "Observed", "observe"]

FLIP_GROUPS = 4
"""Into so many groups near ties are dealt, each of which is flipped in a run of its own."""
FLIP_ROUNDS = 3
"""How often they are dealt."""
NEAR_TIE_DEVIATIONS = 6.0
"""A tie is near if the margin is less than this many standard deviations of the noise of what is compared."""
BLOCK_SIZE = 2**16
"""Numbers that are compared with the exact run's at once."""
MAX_RECORDED = 2**20
"""Bytes that are held of what the exact run compares, where the other had better follow it than run beside it."""
Ordering = Callable[..., np.ndarray]
"""``numpy.less`` or one of its like."""


class Event(NamedTuple):
    """What is known of one comparison of arrays, or of maxima or an order along an axis.

    Attributes
    ----------
    shape : tuple of int
        Of what is compared.
    noise : float
        How far rounding moves it, root mean square.
    near : numpy.ndarray of int
        Indices, into the flattened array, of near ties and of a maximum's rivals; none of an order.
    margins : numpy.ndarray
        How near the ties are: what is compared there, in the exact run.
    """

    shape: tuple[int, ...]
    noise: float
    near: np.ndarray
    margins: np.ndarray


class Observed(NamedTuple):
    """What one exact run and one with stochastic rounding tell.

    Attributes
    ----------
    expected : dict of numpy.ndarray
        The exact results, in float64.
    events : list of Event
        In the order of the comparisons.
    near_ties : int
        Decisions that rounding may flip.
    footprint : int
        Bytes of all arrays that an exact run on rounding arrays holds at once.
    mean_array : float
        Bytes of one array that it makes, on average.
    """

    expected: dict[str, np.ndarray]
    events: list[Event]
    near_ties: int
    footprint: int
    mean_array: float


def observe(
    module: Module,
    given: Given,
    format: Format,
    seed: int,
    expected: dict[str, np.ndarray] | None = None,
    *,
    most_ties: float = np.inf,
) -> Observed:
    """Compute the exact results, and how near ties were on the way.

    Parameters
    ----------
    module : Module
    given : Given
    format : Format
    seed : int
        Of the roundings.
    expected : dict of numpy.ndarray, optional
        The exact results, where they are known.
    most_ties : float, optional
        Where there are more near ties, nothing is expected that is not known.

    Returns
    -------
    Observed
    """
    found: list[ComparedSelections] = []

    def follow(margins: Iterator[np.ndarray]) -> None:
        found.append(ComparedSelections(margins))
        with contextlib.suppress(NothingLeftError):
            run_on(Rounding(format, [seed, 0], found[0]), module, given, between=found[0].go_on)

    exact = Rounding(FLOAT64)
    exact.footprint = footprint = Footprint()
    recorded = 0

    def record(margins: np.ndarray) -> None:
        nonlocal recorded
        recorded += margins.nbytes
        follower.hand_over(margins, later=recorded <= MAX_RECORDED and most_threads(footprint.mean) == 1)

    # The two run side by side, so that margins, which may be all pairs of positions, are never held all at once.
    with Follower(follow) as follower:
        exact.selections = RecordedSelections(record)
        run_on(exact, module, given)
    compared = found[0] if found else ComparedSelections(iter(()))
    if expected is None:
        expected = exact_results(module, given) if compared.near_ties <= most_ties else {}
    return Observed(expected, compared.events, compared.near_ties, footprint.peak, footprint.mean)


class RecordedSelections(Selections):
    """Tell what is compared, in the exact run.

    Parameters
    ----------
    record : callable
        Called with each difference, or with the numbers of which the largest, or the order, is asked for.
    """

    def __init__(self, record: Callable[[np.ndarray], object]) -> None:
        super().__init__()
        self.record = record

    def compare(self, left: np.ndarray, right: np.ndarray, ordering: Ordering) -> np.ndarray:
        self.record(np.subtract(left, right, order="C"))
        return super().compare(left, right, ordering)

    def winners(self, values: np.ndarray, axis: int) -> np.ndarray:
        self.record(np.array(values, order="C"))
        return super().winners(values, axis)

    def order(self, values: np.ndarray, axis: int) -> np.ndarray:
        self.record(np.array(values, order="C"))
        return super().order(values, axis)


class NothingLeftError(Exception):
    """Raised to end a run of which nothing more is to be seen."""


class ComparedSelections(Selections):
    """Measure, in a run with stochastic rounding, the noise of what is compared; find near ties.

    Parameters
    ----------
    margins : iterator of numpy.ndarray
        Of the exact run.
    """

    def __init__(self, margins: Iterator[np.ndarray]) -> None:
        super().__init__()
        self.margins = margins
        self.ahead: np.ndarray | None = None
        self.events: list[Event] = []
        self.near_ties = 0

    def compare(self, left: np.ndarray, right: np.ndarray, ordering: Ordering) -> np.ndarray:
        margin, noise = self.compare_runs(np.subtract(left, right, order="C"))
        near = np.abs(margin) < NEAR_TIE_DEVIATIONS * noise
        self.near_ties += self.keep(margin, noise, near)
        return super().compare(left, right, ordering)

    def winners(self, values: np.ndarray, axis: int) -> np.ndarray:
        margin, noise = self.compare_runs(np.asarray(values, order="C"))
        rivals = margin >= margin.max(axis=axis, keepdims=True) - 2**0.5 * NEAR_TIE_DEVIATIONS * noise
        contested = rivals.sum(axis=axis, keepdims=True) > 1
        self.near_ties += int(contested.sum())
        # Where rounding moves nothing, equal numbers stay equal in every kernel, and the first of them wins.
        self.keep(margin, noise, rivals & contested if noise else np.zeros_like(rivals))
        return super().winners(values, axis)

    def order(self, values: np.ndarray, axis: int) -> np.ndarray:
        margin, noise = self.compare_runs(np.asarray(values, order="C"))
        gaps = np.diff(np.sort(margin, axis=axis), axis=axis)
        self.near_ties += int((gaps < 2**0.5 * NEAR_TIE_DEVIATIONS * noise).sum())
        self.keep(margin, noise, np.zeros(margin.shape, bool))
        return super().order(values, axis)

    def go_on(self) -> None:
        """End the run if the exact one has compared nothing since, as hardly a backward pass does."""
        self.ahead = next(self.margins, None)
        if self.ahead is None:
            raise NothingLeftError

    def compare_runs(self, values: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the exact run's numbers that are compared next, and how far these are from them."""
        margin = next(self.margins) if self.ahead is None else self.ahead
        self.ahead = None
        total, count = 0.0, 0
        for start in range(0, margin.size, BLOCK_SIZE):
            some, exact = (a.reshape(-1)[start : start + BLOCK_SIZE] for a in (values, margin))
            error = (some - exact)[np.isfinite(exact) & np.isfinite(some)]
            total, count = total + float(np.sum(np.square(error))), count + error.size
        return margin, math.sqrt(total / count) if count else 0.0

    def keep(self, margin: np.ndarray, noise: float, near: np.ndarray) -> int:
        """Keep what flips need of a comparison; count the elements that are near."""
        self.events.append(Event(margin.shape, noise, np.flatnonzero(near), margin[near]))
        return self.events[-1].near.size


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
        self.events = iter(observed.events)
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
        event = next(self.events)
        dealt = self.deal(event.near.size)
        mine, margins = event.near[dealt], event.margins[dealt]
        if left.shape == event.shape and left.flags.writeable:
            # The number itself crosses over, as far as noise may take it, so that what is computed from it does too.
            left.flat[mine] -= margins + np.copysign(NEAR_TIE_DEVIATIONS * event.noise, margins)
            return super().compare(left, right, ordering)
        found = super().compare(left, right, ordering)
        found.flat[mine] = ~ordering(margins, 0)
        return found

    def winners(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the index of a maximum, or of one of its rivals if the tie is one of this run's."""
        event = next(self.events)
        found = super().winners(values, axis)
        if not event.noise:
            return found
        mine = np.zeros(event.shape, bool)
        mine.flat[event.near] = self.deal(event.near.size)
        lot = np.where(mine, self.random.random(event.shape), 0)
        return np.where(mine.any(axis=axis, keepdims=True), lot.argmax(axis=axis, keepdims=True), found)

    def order(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the indices that sort after all numbers were moved, near ones past each other."""
        noise = next(self.events).noise
        moves = self.random.standard_normal((FLIP_ROUNDS * FLIP_GROUPS, *values.shape))
        return super().order(
            values + moves[self.round * FLIP_GROUPS + self.group] * (NEAR_TIE_DEVIATIONS / 2 * noise), axis
        )

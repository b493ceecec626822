"""Runs with stochastic rounding, each by its number: their errors, made on as many threads as fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets.near_ties import Observed
from npattn.oracle.budgets.noise import Errors, errors_of
from npattn.oracle.budgets.passes import Given, run_on
from npattn.oracle.formats import Format
from npattn.oracle.progress import Passes
from npattn.oracle.rounding import Rounding, Selections
from npattn.oracle.threads import PassThreads, most_threads

__all__ = [
    "FIRST_ALIKE",
    "FIRST_FURTHER",
    "FIRST_FUSED",
    "FIRST_IN_FLOAT32",
    "FIRST_IN_RANGE",
    "FIRST_RUN",
    "MIN_AT_ONCE",
    "WATCHED_RUN",
    "Runs",
]

FIRST_RUN, FIRST_FUSED, FIRST_IN_FLOAT32, FIRST_ALIKE, FIRST_IN_RANGE, WATCHED_RUN = 1, 101, 201, 301, 401, 501
FIRST_FURTHER = 608
"""Numbers of the first run of each kind, from which its errors are drawn: no two runs of a case share one. Those in
which near ties are flipped follow the first."""
MAX_MEMORY, MIN_MEMORY, MIN_AT_ONCE = 12, 2**22, 2
"""Runs take place on fewer threads where all at once would take more memory than so many times the case's own arrays,
or so many bytes if these are more; on two at least. Some is left for what single operations hold for a moment."""


class Runs:
    """Makes the errors of runs of one case.

    Parameters
    ----------
    observed : Observed
    module : Module
    given : Given
    format : Format
    seed : int
    threads : PassThreads
        On which the runs take place.
    passes : Passes
        Where they are counted.
    num_kept : int
        Of how many runs the errors are held at once.
    """

    def __init__(
        self,
        observed: Observed,
        module: Module,
        given: Given,
        format: Format,
        seed: int,
        *,
        threads: PassThreads,
        passes: Passes,
        num_kept: int,
    ) -> None:
        self.observed, self.module, self.given = observed, module, given
        self.format, self.seed = format, seed
        self.threads, self.passes = threads, passes
        self.free = free_memory(given, observed.expected, num_kept)

    def most_at_once(self, format: Format) -> float:
        """Tell on how many threads runs are worth it, and fit into memory."""
        share = np.dtype(format.storage).itemsize / 8  # observed was float64
        fitting = max(MIN_AT_ONCE, self.free // max(self.observed.footprint * share, 1))
        return min(fitting, most_threads(self.observed.mean_array * share))

    def make(
        self,
        first: int,
        count: int,
        *,
        format: Format | None = None,
        selections: Callable[[int], Selections] | None = None,
        fused: bool = False,
        alike: bool = False,
        names: Collection[str] | None = None,
        backward: bool = True,
    ) -> Errors:
        """Make the errors of some runs, by the result's name.

        Parameters
        ----------
        first, count : int
            The first run's number, and how many there are.
        format : Format, optional
            Other than the case's own.
        selections : callable, optional
            What decides comparisons and maxima, by the run's number.
        fused, alike, backward : bool, optional
            As `run_on` and `Rounding` take them.
        names : collection of str, optional
            Of the results; by default all.
        """
        format = self.format if format is None else format
        names = tuple(self.observed.expected) if names is None else names

        def run(number: int) -> dict[str, np.ndarray]:
            chosen = selections and selections(number)
            rounding = Rounding(format, [self.seed, number], chosen, alike=alike)
            found = run_on(rounding, self.module, self.given, fused=fused, backward=backward)
            errors = {name: errors_of(found.pop(name), self.observed.expected[name]) for name in names}
            self.passes.end()
            return errors

        return self.threads.map(run, range(first, first + count), self.most_at_once(format))


def free_memory(given: Given, expected: Mapping[str, np.ndarray], num_runs: int) -> int:
    """Return how many bytes passes may hold at once, beside what is given and expected and the errors of many runs."""
    num_given = sum(a.size for values in given for a in values.values())
    num_results = sum(a.size for a in expected.values())
    case = 4 * num_given + 16 * num_results  # in float32; expected and budget in float64
    kept = 8 * num_given + (8 + 4 * num_runs) * num_results
    return max(MIN_MEMORY, MAX_MEMORY * case - kept)

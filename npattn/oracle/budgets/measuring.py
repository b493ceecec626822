"""Budgets measured: the spread of a few runs with stochastic rounding, and of runs in which near ties are flipped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets.limits import Budget
from npattn.oracle.budgets.near_ties import FLIP_GROUPS, FLIP_ROUNDS, FlippedSelections, Observed
from npattn.oracle.budgets.noise import Errors, Jumps, Noise, add_round, allow_jumps, measure_noise, take, wider
from npattn.oracle.budgets.passes import Given
from npattn.oracle.budgets.runs import FIRST_ALIKE, FIRST_FURTHER, FIRST_FUSED, FIRST_RUN, MIN_AT_ONCE, Runs
from npattn.oracle.budgets.vanishing import allow_cancelling, errors_in_float32
from npattn.oracle.formats import FLOAT32, Format
from npattn.oracle.progress import Passes
from npattn.oracle.threads import PassThreads

__all__ = ["measure_budgets"]

NUM_RUNS = 8
"""Runs with stochastic rounding, from whose errors scales are estimated."""
NUM_FURTHER_RUNS, COARSE = 16, 4
"""Further such runs in formats of so few digits. What a row shares, as a norm's deviation, is one of two numbers there,
and all of eight runs may have the same: with a chance of 1/6 where one run in five has the other."""
NUM_FUSED_RUNS = 2
"""Runs whose backward pass is in float32."""
NUM_ALIKE_RUNS, MIN_REPEATS = 4, 16
"""Further runs in which equal numbers err by the same; how often, on average, a number stands in a tensor for that to
matter."""
Accept = Callable[[Mapping[str, Budget]], bool]
"""Tells whether budgets, by the result's name, will do."""


def measure_budgets(
    observed: Observed,
    module: Module,
    given: Given,
    format: Format,
    seed: int,
    *,
    threads: PassThreads,
    passes: Passes | None = None,
    accept: Accept | None = None,
    outputs_first: bool = False,
) -> dict[str, Budget] | None:
    """Run several times with stochastic rounding; estimate the budget of each result.

    Parameters
    ----------
    observed : Observed
        Of the same module, numbers, format and seed.
    module : Module
    given : Given
    format : Format
    seed : int
    threads : PassThreads
        On which the runs take place.
    passes : Passes, optional
        Where the runs are counted.
    accept : callable, optional
        Tells by budgets whether they will do: those of the outputs alone, as soon as it can be seen that they can only
        grow wider, and then all. Once it says no, no further run is made.
    outputs_first : bool, default False
        Whether that of the outputs is seen by forward passes alone, which are in vain where it says yes: for numbers
        that will hardly do.

    Returns
    -------
    dict of Budget
        By the result's name; None where they would not do.
    """
    passes = passes or Passes()
    num_flipped = FLIP_ROUNDS * FLIP_GROUPS if observed.near_ties else 0
    num_further, num_alike = further_runs(given, format)
    num_fused = 0 if format.is_single_precision else NUM_FUSED_RUNS
    passes.expect(NUM_RUNS + num_further + num_alike + num_flipped + num_fused)
    kept_of_flipped = min(num_flipped, FLIP_GROUPS + 2)  # those of a round, and the largest in float64
    num_kept = NUM_RUNS + num_further + num_alike + kept_of_flipped
    runs = Runs(observed, module, given, format, seed, threads=threads, passes=passes, num_kept=num_kept)
    if outputs_first and accept and num_flipped and not outputs_will_do(runs, num_alike, accept):
        return None
    errors = runs.make(FIRST_RUN, NUM_RUNS)
    errors += runs.make(FIRST_FURTHER, num_further) + runs.make(FIRST_ALIKE, num_alike, alike=True)
    noises = measure_noises(runs, errors, observed.expected)
    jumps: dict[str, Jumps] = {}
    for number in range(num_flipped // FLIP_GROUPS):
        jumps = add_round(flip_round(runs, number), noises, jumps)
        # A round can only widen what those before it have shown: where that is too much, others are of no use.
        if accept and not accept({name: allow_jumps(noises[name], jumps[name]) for name in given.upstream}):
            return None
    budgets = {name: allow_jumps(noises[name], jumps.get(name)) for name in observed.expected}
    if accept and not accept(budgets):
        return None
    if num_fused:
        budgets = allow_float32(budgets, runs)
    return allow_cancelling(budgets, observed.expected, given, format)


def outputs_will_do(runs: Runs, num_alike: int, accept: Accept) -> bool:
    """Tell whether a round leaves the outputs' budgets acceptable, by forward passes alone."""
    runs.passes.expect(NUM_RUNS + num_alike + FLIP_GROUPS)
    names = tuple(runs.given.upstream)
    errors = runs.make(FIRST_RUN, NUM_RUNS, names=names, backward=False)
    errors += runs.make(FIRST_ALIKE, num_alike, alike=True, names=names, backward=False)
    noises = measure_noises(runs, errors, names)
    jumps = add_round(flip_round(runs, 0, names=names, backward=False), noises, {})
    return accept({name: allow_jumps(noise, jumps[name]) for name, noise in noises.items()})


def flip_round(runs: Runs, number: int, *, names: Collection[str] | None = None, backward: bool = True) -> Errors:
    """Make the errors of a round of runs, in each of which a group of the near ties is flipped."""
    first = FIRST_RUN + NUM_RUNS

    def flipped(run: int) -> FlippedSelections:
        return FlippedSelections(runs.observed, runs.seed, run - first)

    start = first + number * FLIP_GROUPS
    return runs.make(start, FLIP_GROUPS, selections=flipped, names=names, backward=backward)


def measure_noises(runs: Runs, errors: Errors, names: Iterable[str]) -> dict[str, Noise]:
    """Measure the noise of some results, whose errors are then no longer held."""
    expected = runs.observed.expected
    largest_first = sorted(names, key=lambda name: -expected[name].size)

    def measure(name: str) -> Noise:
        return measure_noise(take(errors, name), expected[name], runs.format)

    found = runs.threads.map(measure, largest_first, min(MIN_AT_ONCE, runs.most_at_once(runs.format)))
    return dict(zip(largest_first, found, strict=True))


def allow_float32(budgets: Mapping[str, Budget], runs: Runs) -> dict[str, Budget]:
    """Allow what kernels are off by that compute in float32: backward alone or, where results vanish, throughout."""
    fused = runs.make(FIRST_FUSED, NUM_FUSED_RUNS, fused=True)
    budgets = {name: wider(budget, take(fused, name)) for name, budget in budgets.items()}

    def run(first: int, count: int, names: Collection[str]) -> Errors:
        return runs.make(first, count, format=FLOAT32, names=names)

    single = errors_in_float32(budgets, runs.observed.expected, runs.format, run, runs.passes)
    return budgets | {name: wider(budgets[name], errors) for name, errors in single.items()}


def further_runs(given: Given, format: Format) -> tuple[int, int]:
    """Return how many more runs there are in a format of few digits, and how many in which equal numbers err alike."""
    alike = repeats(given, zeros=format.is_accumulator)
    return NUM_FURTHER_RUNS if format.precision <= COARSE else 0, NUM_ALIKE_RUNS if alike else 0


def repeats(given: Given, *, zeros: bool = False) -> bool:
    """Tell whether an input or an upstream gradient holds few numbers, each many times.

    0, which is exact, is none of them; but less its mean it is a number as others, whose sums in float32 err: with
    `zeros`, arrays of which it is a quarter count.
    """
    arrays = [(a, a[a != 0]) for a in (*given.inputs.values(), *given.upstream.values())]
    return any(
        a.size >= MIN_REPEATS * len(np.unique(a)) > 0 or (zeros and 4 * a.size <= 3 * whole.size) for whole, a in arrays
    )

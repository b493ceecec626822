"""Budgets measured: the spread of a few runs with stochastic rounding, and of runs in which near ties are flipped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets.limits import Budget
from npattn.oracle.budgets.near_ties import FLIP_GROUPS, FLIP_ROUNDS, FlippedSelections, Observed
from npattn.oracle.budgets.noise import Noise, add_round, allow_jumps, errors_of, measure_noise, take, wider
from npattn.oracle.budgets.passes import Given, run_on
from npattn.oracle.budgets.vanishing import FLOAT32, Errors, allow_cancelling, errors_in_float32
from npattn.oracle.formats import Format
from npattn.oracle.progress import Passes
from npattn.oracle.rounding import Rounding, Selections
from npattn.oracle.threads import PassThreads, most_threads

__all__ = ["measure_budgets"]

NUM_RUNS = 8
"""Runs with stochastic rounding, from whose errors scales are estimated."""
NUM_MORE_RUNS, COARSE = 16, 4
"""Further such runs in formats of so few digits. What a row shares, as a norm's deviation, is one of two numbers there,
and all of eight runs may have the same: with a chance of 1/6 where one run in five has the other."""
FIRST_MORE = 608
"""The number of the first of these."""
NUM_FUSED_RUNS = 2
"""Runs whose backward pass is in float32."""
NUM_ALIKE_RUNS, MIN_REPEATS = 4, 16
"""Further runs in which equal numbers err by the same; how often, on average, a number stands in a tensor for that to
matter."""
MAX_MEMORY, MIN_MEMORY, MIN_AT_ONCE = 12, 2**22, 2
"""Runs take place on fewer threads where all at once would take more memory than so many times the case's own arrays,
or so many bytes if these are more; on two at least. Some is left for what single operations hold for a moment."""


def measure_budgets(
    observed: Observed,
    module: Module,
    given: Given,
    format: Format,
    seed: int,
    *,
    threads: PassThreads,
    passes: Passes | None = None,
    accept: Callable[[Mapping[str, Budget]], bool] | None = None,
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
    single_precision = format.precision == FLOAT32.precision
    num_flipped = FLIP_ROUNDS * FLIP_GROUPS if observed.near_ties else 0
    num_more, num_alike = further_runs(given, format)
    passes.expect(NUM_RUNS + num_more + num_alike + num_flipped + (0 if single_precision else NUM_FUSED_RUNS))
    kept_of_flipped = min(num_flipped, FLIP_GROUPS + 2)  # those of a round, and the largest in float64
    free = free_memory(given, observed.expected, NUM_RUNS + num_more + num_alike + kept_of_flipped)

    def most_at_once(format: Format) -> float:
        """Tell on how many threads runs are worth it, and fit into memory."""
        share = np.dtype(format.storage).itemsize / 8  # observed was float64
        fitting = max(MIN_AT_ONCE, free // max(observed.footprint * share, 1))
        return min(fitting, most_threads(observed.mean_array * share))

    def runs(first: int, count: int, **options: Any) -> Errors:
        """Make the errors of some runs, by the result's name."""
        at_once = most_at_once(options.get("format", format))
        return threads.map(functools.partial(run, **options), range(first, first + count), at_once)

    def run(
        number: int,
        *,
        format: Format = format,
        selections: Callable[[int], Selections] | None = None,
        fused: bool = False,
        alike: bool = False,
        names: Collection[str] = tuple(observed.expected),
        backward: bool = True,
    ) -> dict[str, np.ndarray]:
        chosen = selections and selections(number - NUM_RUNS - 1)
        rounding = Rounding(format, [seed, number], chosen, alike=alike)
        found = run_on(rounding, module, given, fused=fused, backward=backward)
        errors = {name: errors_of(found.pop(name), observed.expected[name]) for name in names}
        passes.end()
        return errors

    def estimate_of(name: str, *, pop: bool = False) -> Budget:
        if name not in noises:
            noises[name] = measure_noise(take(errors, name), observed.expected[name], format)
        noise = noises.pop(name) if pop else noises[name]
        return allow_jumps(noise, jumps.get(name))

    def outputs_will_do(accept: Callable[[Mapping[str, Budget]], bool]) -> bool:
        """Tell whether a round leaves the outputs' budgets acceptable, by forward passes alone."""
        passes.expect(NUM_RUNS + num_alike + FLIP_GROUPS)
        forward = functools.partial(runs, names=tuple(given.upstream), backward=False)
        errors = forward(1, NUM_RUNS) + forward(301, num_alike, alike=True)
        jumps = add_round(forward(1 + NUM_RUNS, FLIP_GROUPS, selections=flipped), {})
        noises = {name: measure_noise(take(errors, name), observed.expected[name], format) for name in jumps}
        return accept({name: allow_jumps(noises[name], jumps[name]) for name in jumps})

    flipped = functools.partial(FlippedSelections, observed, seed)
    if outputs_first and accept and num_flipped and not outputs_will_do(accept):
        return None
    errors = runs(1, NUM_RUNS) + runs(FIRST_MORE, num_more) + runs(301, num_alike, alike=True)
    jumps: dict[str, np.ndarray] = {}
    noises: dict[str, Noise] = {}
    for first in range(1 + NUM_RUNS, 1 + NUM_RUNS + num_flipped, FLIP_GROUPS):
        jumps = add_round(runs(first, FLIP_GROUPS, selections=flipped), jumps)
        # A round can only widen what those before it have shown: where that is too much, others are of no use.
        if accept and not accept({name: estimate_of(name) for name in given.upstream}):
            return None
    names = sorted(observed.expected, key=lambda name: -observed.expected[name].size)
    estimates = threads.map(functools.partial(estimate_of, pop=True), names, min(MIN_AT_ONCE, most_at_once(format)))
    found = dict(zip(names, estimates, strict=True))
    budgets = {name: found[name] for name in observed.expected}
    if accept and not accept(budgets):
        return None
    if single_precision:
        return allow_cancelling(budgets, observed.expected, given, format)
    fused = runs(101, NUM_FUSED_RUNS, fused=True)
    budgets = {name: wider(budget, take(fused, name)) for name, budget in budgets.items()}

    def run_in_float32(first: int, count: int, names: Collection[str]) -> Errors:
        return runs(first, count, format=FLOAT32, names=names)

    single = errors_in_float32(budgets, observed.expected, format, run_in_float32, passes)
    budgets |= {name: wider(budgets[name], errors) for name, errors in single.items()}
    return allow_cancelling(budgets, observed.expected, given, format)


def further_runs(given: Given, format: Format) -> tuple[int, int]:
    """Return how many more runs there are in a format of few digits, and how many in which equal numbers err alike."""
    alike = repeats(given, zeros=format.is_accumulator)
    return NUM_MORE_RUNS if format.precision <= COARSE else 0, NUM_ALIKE_RUNS if alike else 0


def free_memory(given: Given, expected: Mapping[str, np.ndarray], num_runs: int) -> int:
    """Return how many bytes passes may hold at once, beside what is given and expected and the errors of many runs."""
    num_given = sum(a.size for values in given for a in values.values())
    num_results = sum(a.size for a in expected.values())
    case = 4 * num_given + 16 * num_results  # in float32; expected and budget in float64
    kept = 8 * num_given + (8 + 4 * num_runs) * num_results
    return max(MIN_MEMORY, MAX_MEMORY * case - kept)


def repeats(given: Given, *, zeros: bool = False) -> bool:
    """Tell whether an input or an upstream gradient holds few numbers, each many times.

    0, which is exact, is none of them; but less its mean it is a number as others, whose sums in float32 err: with
    `zeros`, arrays of which it is a quarter count.
    """
    arrays = [(a, a[a != 0]) for a in (*given.inputs.values(), *given.upstream.values())]
    return any(
        a.size >= MIN_REPEATS * len(np.unique(a)) > 0 or (zeros and 4 * a.size <= 3 * whole.size) for whole, a in arrays
    )

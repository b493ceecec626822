"""Budgets measured: the spread of a few runs with stochastic rounding, and of runs in which near ties are flipped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy

from npattn.module import Module
from npattn.oracle.budgets.limits import Budget, rms_limit, worst_limit
from npattn.oracle.budgets.near_ties import FLIP_GROUPS, FLIP_ROUNDS, FlippedSelections, Observed
from npattn.oracle.budgets.passes import Given, run_on
from npattn.oracle.budgets.shrinkage import effective_degrees_of_freedom, shrink_variances
from npattn.oracle.budgets.vanishing import FLOAT32, Errors, errors_in_float32
from npattn.oracle.formats import Format, ulp
from npattn.oracle.progress import Passes
from npattn.oracle.rounding import Rounding, Selections
from npattn.oracle.threads import PassThreads, most_threads

__all__ = ["measure_budgets"]

NUM_RUNS = 8
"""Runs with stochastic rounding, from whose errors scales are estimated."""
NUM_FUSED_RUNS = 2
"""Runs whose backward pass is in float32."""
NUM_ALIKE_RUNS, MIN_REPEATS = 4, 16
"""Further runs in which equal numbers err by the same; how often, on average, a number stands in a tensor for that to
matter."""
BLOCK_SIZE, MIN_BLOCK_SIZE, MIN_BLOCKS = 2**14, 2**10, 8
"""Elements that are looked at at once: fewer of a small tensor, beside whose case many runs' errors in float64 are much
memory."""
JUMP_MARGIN = 1.25
"""How far beyond the largest jump seen a result may jump."""
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
    num_alike = NUM_ALIKE_RUNS if repeats(given, zeros=format.is_accumulator) else 0
    passes.expect(NUM_RUNS + num_alike + num_flipped + (0 if single_precision else NUM_FUSED_RUNS))
    kept_of_flipped = min(num_flipped, FLIP_GROUPS + 2)  # those of a round, and the largest in float64
    free = free_memory(given, observed.expected, NUM_RUNS + num_alike + kept_of_flipped)

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
    errors = runs(1, NUM_RUNS) + runs(301, num_alike, alike=True)
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


def take(runs: Errors, name: str) -> np.ndarray:
    """Take one result's errors, (runs, *shape), out of what the runs have made, which then holds them no longer."""
    return np.array([errors.pop(name) for errors in runs])


def errors_of(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return by how much a run errs: by nothing where both have the same infinity."""
    with np.errstate(all="ignore"):
        return np.where(found == expected, 0, found - expected).astype(np.float32)


def wider(budget: Budget, errors: np.ndarray) -> Budget:
    """Allow what some further runs are off by as well, where that is clearly more."""
    more = np.empty(budget.scale.shape)
    for block in cut_elements(more.size):
        some = errors.reshape(len(errors), -1)[:, block].astype(np.float64)
        more.flat[block] = np.sqrt(np.mean(np.square(np.where(np.isfinite(some), some, 0)), axis=0))
    return budget._replace(scale=np.where(more > 2 * budget.scale, more, budget.scale))


class Noise(NamedTuple):
    """What runs in which no near tie was flipped say of a tensor.

    Attributes
    ----------
    scale : numpy.ndarray
        The unit of each element's error.
    judged : numpy.ndarray of bool
        Whether all runs are finite there.
    freedom : float
        The effective degrees of freedom.
    undisturbed : numpy.ndarray
        The unit by the smaller errors alone: those of runs that have come near no tie.
    """

    scale: np.ndarray
    judged: np.ndarray
    freedom: float
    undisturbed: np.ndarray


def measure_noise(errors: np.ndarray, expected: np.ndarray, format: Format) -> Noise:
    """Measure one tensor's noise, by its errors in some runs: (runs, *shape)."""
    if not expected.size:
        return Noise(np.zeros(expected.shape), np.ones(expected.shape, bool), 1.0, np.zeros(expected.shape))
    seen = summarise(errors)
    judged = seen.judged.reshape(expected.shape)
    variance = shrink_variances(
        seen.variance.reshape(expected.shape), np.abs(expected), len(errors), seen.unmoved.reshape(expected.shape)
    )
    # A result is rounded to the format at least: an error that is uniform between half an ulp below and above.
    scale = np.asarray(np.sqrt(np.maximum(variance, np.square(ulp(expected, format)) / 12)))
    untouched = (expected == 0) & (seen.variance == 0).reshape(expected.shape)
    scale[untouched] = max(1e-3 * np.sqrt(np.mean(np.square(scale))), format.smallest)
    freedom = effective_degrees_of_freedom(mean_squares_of(errors, judged, scale), expected.size)
    undisturbed = seen.lower_quartile.reshape(expected.shape) / scipy.special.ndtri(0.625)
    undisturbed += format.unit_roundoff * np.sqrt(np.mean(np.square(expected)))
    return Noise(scale, judged, freedom, undisturbed)


def allow_jumps(noise: Noise, jumps: np.ndarray | None) -> Budget:
    """Make a tensor's budget: its noise, and how far near ties may throw each element, if there are any."""
    scale, freedom, size = noise.scale, noise.freedom, noise.scale.size
    if not size:
        return Budget(scale, freedom)
    widest = scale
    if jumps is not None:
        # In a tensor of few elements a jump of one is most of the root mean square as well.
        limit = min(worst_limit(size, freedom), rms_limit(freedom) * size**0.5)
        widest = np.maximum(scale, JUMP_MARGIN * jumps / limit)
    return Budget(np.where(noise.judged, widest, np.inf), freedom, float(np.mean(widest > 8 * noise.undisturbed)))


def allow_cancelling(
    budgets: dict[str, Budget], expected: Mapping[str, np.ndarray], given: Given, format: Format
) -> dict[str, Budget]:
    """Allow gradients that are 0 throughout, or but for rounding, what their terms may be off by.

    Runs that compute as the reference does may cancel them to the last bit, as the gradient of a softmax over one
    position; another formula has terms of the others' size that are rounded apart. What cancels here and there by luck
    alone gets the usual unit.
    """
    gradients = {name: a for name, a in expected.items() if name.endswith(".grad") and a.size}
    sizes = [np.sqrt(np.mean(np.square(a))) for a in (*given.upstream.values(), *gradients.values()) if a.size]
    least = max([format.smallest, *(format.unit_roundoff * size for size in sizes if np.isfinite(size))])
    found = {}
    for name, a in gradients.items():
        scale = budgets[name].scale
        judged = np.isfinite(scale)
        usual = float(np.sqrt(np.mean(np.square(scale[judged])))) if judged.any() else 0.0
        if not a.any():
            usual = max(usual, least)
        if np.max(np.abs(a), where=judged, initial=0) < usual:
            found[name] = budgets[name]._replace(scale=np.maximum(scale, usual))
    return budgets | found


def cut_elements(size: int) -> list[slice]:
    """Cut a tensor's elements into as many at a time as stay in a cache, all runs' errors in float64.

    None stands alone beside others: of a single one NumPy adds up the runs in another order.

    Examples
    --------
    >>> [block.stop - block.start for block in cut_elements(2049)], cut_elements(1), cut_elements(0)
    ([1024, 1025], [slice(0, 1, None)], [])
    """
    step = min(BLOCK_SIZE, max(MIN_BLOCK_SIZE, size // MIN_BLOCKS))
    starts = range(0, max(size - 1, min(size, 1)), step)
    return [slice(start, start + step if start + step in starts else size) for start in starts]


class Summary(NamedTuple):
    """What a few runs say of each element, in a row.

    Attributes
    ----------
    judged : numpy.ndarray of bool
        Whether all errors are finite; where they aren't, the others count as 0.
    variance : numpy.ndarray
        Their mean square.
    unmoved : numpy.ndarray of bool
        Whether all runs err, and by the same.
    lower_quartile : numpy.ndarray
        Of their magnitudes.
    """

    judged: np.ndarray
    variance: np.ndarray
    unmoved: np.ndarray
    lower_quartile: np.ndarray


def summarise(errors: np.ndarray) -> Summary:
    """Summarise errors, (runs, *shape), element by element."""
    size = errors[0].size
    found = Summary(np.empty(size, bool), np.empty(size), np.empty(size, bool), np.empty(size))
    for block in cut_elements(size):
        some = errors.reshape(len(errors), size)[:, block].astype(np.float64)
        judged = np.isfinite(some).all(axis=0)
        some[:, ~judged] = 0
        found.judged[block] = judged
        found.variance[block] = np.mean(np.square(some), axis=0)
        found.unmoved[block] = (some[0] != 0) & (some == some[0]).all(axis=0)
        found.lower_quartile[block] = np.quantile(np.abs(some), 0.25, axis=0)
    return found


def mean_squares_of(errors: np.ndarray, judged: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return each run's mean square in units of budget, where a judged element's errors count."""
    total = np.zeros(len(errors))
    for start in range(0, scale.size, BLOCK_SIZE):
        block = slice(start, start + BLOCK_SIZE)
        unit, counts = scale.reshape(-1)[block], judged.reshape(-1)[block]
        for number, run in enumerate(errors.reshape(len(errors), scale.size)):
            total[number] += np.sum(np.square(np.where(counts, run[block] / unit, 0)))
    return total / scale.size


def add_round(runs: Errors, before: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return how far near ties may throw each element of each result, by the runs of a round and the rounds before."""
    return {name: largest_jumps(take(runs, name), before.get(name)) for name in list(runs[0])}


def largest_jumps(jumps: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """Return how far near ties may throw each element: it may hang on several groups, and all may fall otherwise."""
    found = np.zeros(jumps.shape[1:]) if before is None else before
    for block in cut_elements(found.size):
        some = jumps.reshape(len(jumps), found.size)[:, block].astype(np.float64)
        together = np.abs(np.where(np.isfinite(some), some, np.inf)).sum(axis=0)
        found.flat[block] = np.maximum(found.flat[block], together)
    return found

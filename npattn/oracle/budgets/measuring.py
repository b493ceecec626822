"""Budgets measured: the spread of a few runs with stochastic rounding, and of runs in which near ties are flipped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np
from scipy.special import ndtri

from npattn.module import Module
from npattn.oracle.budgets.limits import Budget, worst_limit
from npattn.oracle.budgets.near_ties import FLIP_GROUPS, FLIP_ROUNDS, FlippedSelections, Observed
from npattn.oracle.budgets.passes import Given, run_on
from npattn.oracle.budgets.shrinkage import effective_degrees_of_freedom, shrink_variances
from npattn.oracle.formats import FORMATS, Format, ulp
from npattn.oracle.rounding import Rounding, Selections

__all__ = ["measure_budgets"]

NUM_RUNS = 8
"""Runs with stochastic rounding, from whose errors scales are estimated."""
FLOAT32 = FORMATS["float32"]
"""What kernels of narrower formats compute in."""
NUM_FUSED_RUNS, NUM_FLOAT32_RUNS = 2, 4
"""Runs whose backward pass is in float32, and runs that are so as a whole, where a result vanishes."""
JUMP_MARGIN = 1.25
"""How far beyond the largest jump seen a result may jump."""


def measure_budgets(
    observed: Observed, module: Module, given: Given, format: Format, seed: int, *, pool: Executor
) -> dict[str, Budget]:
    """Run several times with stochastic rounding; estimate the budget of each result.

    Parameters
    ----------
    observed : Observed
        Of the same module, numbers, format and seed.
    module : Module
    given : Given
    format : Format
    seed : int
    pool : concurrent.futures.Executor
        In whose threads the runs take place.

    Returns
    -------
    dict of Budget
        By the result's name.
    """

    def runs(first: int, count: int, **options: Any) -> dict[str, np.ndarray]:
        """Make the errors of some runs, (runs, *shape), by the result's name."""
        found = list(pool.map(functools.partial(run, **options), range(first, first + count)))
        return {name: np.array([errors[name] for errors in found], np.float64) for name in observed.expected}

    def run(
        number: int, format: Format = format, selections: Callable[[int], Selections] | None = None, fused: bool = False
    ) -> dict[str, np.ndarray]:
        rounding = Rounding(format, [seed, number], selections and selections(number - NUM_RUNS - 1))
        found = run_on(rounding, module, given, fused=fused)
        return {name: errors_of(found[name], value) for name, value in observed.expected.items()}

    flipped = functools.partial(FlippedSelections, observed, seed)
    errors = runs(1, NUM_RUNS)
    jumps = runs(1 + NUM_RUNS, FLIP_ROUNDS * FLIP_GROUPS if observed.near_ties else 0, selections=flipped)
    budgets = {name: estimate(errors[name], jumps[name], y, format) for name, y in observed.expected.items()}
    if format.precision == FLOAT32.precision:
        return budgets
    fused = runs(101, NUM_FUSED_RUNS, fused=True)
    budgets = {name: wider(budget, fused[name]) for name, budget in budgets.items()}
    vanishing = [name for name, budget in budgets.items() if vanishes(observed.expected[name], budget.scale)]
    if vanishing:
        single = runs(201, NUM_FLOAT32_RUNS, format=FLOAT32)
        budgets |= {name: wider(budgets[name], single[name]) for name in vanishing}
    return budgets


def errors_of(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return by how much a run errs: by nothing where both have the same infinity."""
    with np.errstate(all="ignore"):
        return np.where(found == expected, 0, found - expected).astype(np.float32)


def vanishes(expected: np.ndarray, scale: np.ndarray) -> bool:
    """Tell whether a result is 0 but for rounding, as the gradient of what a softmax does not see.

    In the format it may cancel to the last bit, weights being 0 and 1, while a kernel that computes in float32 is off
    by the rounding of what cancels there.
    """
    judged = np.isfinite(scale)
    return bool((np.abs(expected) < scale)[judged].all()) and bool(judged.any())


def wider(budget: Budget, errors: np.ndarray) -> Budget:
    """Allow what some further runs are off by as well, where that is clearly more."""
    more = np.sqrt(np.mean(np.square(np.where(np.isfinite(errors), errors, 0)), axis=0))
    return budget._replace(scale=np.where(more > 2 * budget.scale, more, budget.scale))


def estimate(errors: np.ndarray, jumps: np.ndarray, expected: np.ndarray, format: Format) -> Budget:
    """Estimate one tensor's budget.

    Parameters
    ----------
    errors : numpy.ndarray, (runs, *shape)
        Of runs with stochastic rounding.
    jumps : numpy.ndarray, (FLIP_ROUNDS · FLIP_GROUPS or 0, *shape)
        Errors of runs in which near ties were flipped.
    expected : numpy.ndarray, (*shape)
    format : Format

    Returns
    -------
    Budget
    """
    if not expected.size:
        return Budget(np.zeros(expected.shape), 1.0)
    judged = np.isfinite(errors).all(axis=0)
    errors = np.where(judged, errors, 0)
    unmoved = (errors[0] != 0) & (errors == errors[0]).all(axis=0)
    variance = shrink_variances(np.mean(np.square(errors), axis=0), np.abs(expected), len(errors), unmoved)
    # A result is rounded to the format at least: an error that is uniform between half an ulp below and above.
    scale = np.asarray(np.sqrt(np.maximum(variance, np.square(ulp(expected, format)) / 12)))
    untouched = (expected == 0) & ~errors.any(axis=0)
    scale[untouched] = max(1e-3 * np.sqrt(np.mean(np.square(scale))), format.smallest)
    mean_squares = np.mean(np.square(errors / scale), axis=tuple(range(1, errors.ndim)))
    freedom = effective_degrees_of_freedom(mean_squares, expected.size)
    widest = scale
    if len(jumps):
        # An element may hang on near ties of several groups, and all of them may fall otherwise.
        rounds = np.abs(np.where(np.isfinite(jumps), jumps, np.inf)).reshape(-1, FLIP_GROUPS, *expected.shape)
        largest = rounds.sum(axis=1).max(axis=0)
        widest = np.maximum(scale, JUMP_MARGIN * largest / worst_limit(expected.size, freedom))
    # The smaller errors of an element are those of runs in which no near tie was flipped.
    undisturbed = np.quantile(np.abs(errors), 0.25, axis=0) / ndtri(0.625)
    undisturbed += format.unit_roundoff * np.sqrt(np.mean(np.square(expected)))
    return Budget(np.where(judged, widest, np.inf), freedom, float(np.mean(widest > 8 * undisturbed)))

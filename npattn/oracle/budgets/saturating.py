"""Results of which saturation on the way leaves nothing to judge: what kernels err by that do not saturate there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets.limits import Budget, limits_of, zeros_pass
from npattn.oracle.budgets.measuring import measure_budgets
from npattn.oracle.budgets.near_ties import Observed
from npattn.oracle.budgets.passes import Given, run_on
from npattn.oracle.budgets.runs import WATCHED_RUN
from npattn.oracle.formats import FLOAT32, Format
from npattn.oracle.progress import Passes
from npattn.oracle.rounding import Rounding
from npattn.oracle.threads import PassThreads

__all__ = ["measure_unsaturated"]

NARROWER_RATIO = 0.5
"""Budgets take the place of those that allow for saturation if they are narrower by so much, root mean square."""


def measure_unsaturated(
    budgets: Mapping[str, Budget],
    observed: Observed,
    module: Module,
    given: Given,
    format: Format,
    *,
    seed: int,
    threads: PassThreads,
    passes: Passes,
) -> dict[str, Budget]:
    """Measure budgets anew, by runs that saturate nowhere, where zeros would pass and saturation is why.

    A sum of squares beyond 448 is the largest number in float8_e4m3, so a norm of many elements is too large by any
    factor. A kernel that rounds so is as wrong as one in float16 that is infinite there; those that keep such sums in
    float32 are judged by what they err by. All that is written beyond the largest number may still be saturated.

    Parameters
    ----------
    budgets : mapping of str to Budget
    observed : Observed
    module : Module
    given : Given
    format : Format
    seed : int
    threads : PassThreads
    passes : Passes

    Returns
    -------
    dict of Budget
        The same as given, but for results that saturation drowns.
    """
    blank = [
        name for name, budget in budgets.items() if zeros_pass(observed.expected[name], budget.scale, limits_of(budget))
    ]
    if not format.saturates or not blank or not saturates_in(module, given, format, seed, passes):
        return dict(budgets)
    wide = dataclasses.replace(format, largest=FLOAT32.largest, saturates=False)
    anew = measure_budgets(observed, module, given, wide, seed, threads=threads, passes=passes)
    assert anew is not None  # nothing is asked for that they would not do for
    found = {name: allow_saturated(anew[name], observed.expected[name], format) for name in blank}
    narrower = {name: one for name, one in found.items() if size_of(one) < NARROWER_RATIO * size_of(budgets[name])}
    return dict(budgets) | narrower


def size_of(budget: Budget) -> float:
    """Return the root mean square of a budget, infinite where much of it is."""
    return float(np.sqrt(np.mean(np.square(budget.scale))))


def saturates_in(module: Module, given: Given, format: Format, seed: int, passes: Passes) -> bool:
    """Tell whether a run makes numbers beyond the format's largest."""
    passes.expect(1)
    rounding = Rounding(format, [seed, WATCHED_RUN])
    run_on(rounding, module, given)
    passes.end()
    return rounding.saturated


def allow_saturated(budget: Budget, expected: np.ndarray, format: Format) -> Budget:
    """Allow the largest number for what is larger, as of a kernel that writes it."""
    beyond = np.abs(expected) - format.largest
    return budget._replace(scale=np.maximum(budget.scale, np.where(np.isfinite(beyond), beyond, 0)))

"""Results that fit into the format, though what leads to them does not: what kernels in float32 err by there."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets.limits import Budget
from npattn.oracle.budgets.measuring import NUM_RUNS
from npattn.oracle.budgets.noise import errors_of, measure_noise, take
from npattn.oracle.budgets.passes import Given, run_on
from npattn.oracle.budgets.runs import FIRST_IN_RANGE, MIN_AT_ONCE
from npattn.oracle.formats import FLOAT32, Format
from npattn.oracle.progress import Passes
from npattn.oracle.rounding import Rounding
from npattn.oracle.threads import PassThreads

__all__ = ["measure_in_range_of_float32"]


def measure_in_range_of_float32(
    names: Collection[str],
    expected: Mapping[str, np.ndarray],
    module: Module,
    given: Given,
    *,
    format: Format,
    seed: int,
    threads: PassThreads,
    passes: Passes,
) -> dict[str, Budget]:
    """Estimate budgets by runs that round to the format's digits, with the exponents of float32.

    A kernel that computes in float32 what the format can't hold is off by no more; one that does not is infinite there.

    Parameters
    ----------
    names : collection of str
        Of the results.
    expected : mapping of str to numpy.ndarray
        The exact results.
    module : Module
    given : Given
    format : Format
    seed : int
    threads : PassThreads
        On which the runs take place.
    passes : Passes
        Where they are counted.

    Returns
    -------
    dict of Budget
        By the result's name; infinite where the exact result itself is beyond the format.
    """
    wide = dataclasses.replace(
        format, least_exponent=FLOAT32.least_exponent, largest=FLOAT32.largest, saturates=FLOAT32.saturates
    )
    passes.expect(NUM_RUNS)

    def run(number: int) -> dict[str, np.ndarray]:
        found = run_on(Rounding(wide, [seed, number]), module, given)
        passes.end()
        return {name: errors_of(found[name], expected[name]) for name in names}

    errors = threads.map(run, range(FIRST_IN_RANGE, FIRST_IN_RANGE + NUM_RUNS), MIN_AT_ONCE)
    budgets = {}
    for name in names:
        noise = measure_noise(take(errors, name), expected[name], format)
        held = noise.judged & (np.abs(expected[name]) <= format.largest)
        budgets[name] = Budget(np.where(held, noise.scale, np.inf), noise.freedom)
    return budgets

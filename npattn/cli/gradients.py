"""How one system is checked: its gradients, twice over, and the time that it takes."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npattn.cli.photo import CROP_SIZE, photo_values
from npattn.cli.timing import time_passes
from npattn.module import Module
from npattn.oracle import GradcheckReport, generic_values, gradcheck
from npattn.processes import results_in_turn, worker_processes
from npattn.typing import Array, Params

__all__ = ["SystemReport", "check_systems"]

MAX_REDRAWS = 20
"""Other parameters and inputs, at most, that are tried where a gradient is 0 at the first ones."""


@dataclass(frozen=True)
class SystemReport:
    """What was found of one system: its gradients, and the seconds that a pass takes."""

    reports: list[GradcheckReport]
    input_shape: tuple[int, ...]
    forward: float
    backward: float

    @property
    def passed(self) -> bool:
        """Whether all is right and tested."""
        return all(report.passed for report in self.reports)

    @property
    def worst(self) -> GradcheckReport:
        """The report of the largest error, NaN before all."""
        return max(self.reports, key=lambda report: (np.isnan(report.error), report.error))

    @property
    def exact(self) -> bool:
        """Whether no gradient that was tested is wrong."""
        return bool(self.worst.error <= self.worst.tolerance)

    @property
    def rounded(self) -> bool:
        """Whether float64's rounding explains a difference."""
        return any(report.rounding for report in self.reports)


def check_systems(plans: Sequence[tuple[Module, tuple[int, int], int]], jobs: int) -> Generator[SystemReport]:
    """Check systems on maps of some size, with some seed, one after the other or in several processes; time them here.

    Passes are timed before other processes compute, which would slow them down.
    """
    if jobs == 1:
        for plan in plans:
            yield SystemReport(check_system(*plan), *time_system(*plan))
        return
    times = [time_system(*plan) for plan in plans]
    with worker_processes(jobs) as pool:
        for reports, timed in zip(results_in_turn(pool, check_system, plans), times, strict=True):
            yield SystemReport(reports, *timed)


def values_of(module: Module, size: tuple[int, int], seed: int) -> tuple[Module, Params, dict[str, Array]]:
    """Fit a system to a size, and make its parameters and inputs."""
    # No more positions can be chosen than there are.
    changes: dict[str, Any] = {"k": min(module.k, math.prod(size))} if hasattr(module, "k") else {}
    fitting = replace(module, **changes)
    return fitting, *photo_values(fitting, size, seed)


def check_system(module: Module, size: tuple[int, int], seed: int) -> list[GradcheckReport]:
    """Check one system's gradients."""
    fitting, params, inputs = values_of(module, size, seed)
    with np.errstate(all="ignore"):  # the row itself tells of infinities and NaN
        return check_on_photograph(module, fitting, params, inputs, seed)


def time_system(module: Module, size: tuple[int, int], seed: int) -> tuple[tuple[int, ...], float, float]:
    """Return the shape of a system's input, and the seconds that it takes forward and backward."""
    fitting, params, inputs = values_of(module, size, seed)
    with np.errstate(all="ignore"):
        return next(iter(inputs.values())).shape[1:], *time_passes(fitting, params, inputs)


def check_on_photograph(
    module: Module, fitting: Module, params: Params, inputs: dict[str, Array], seed: int
) -> list[GradcheckReport]:
    """Check the full Jacobian on a crop, and the adjoint identity at full size of what may be fitted to that size.

    A gradient counts as tested where one of the two sees more of it than zeros. Where all units of a layer are off in
    both, other parameters and maps of random numbers are tried in turn.
    """
    cropped = module.for_size(*CROP_SIZE)
    reports = [
        gradcheck(cropped, *photo_values(cropped, CROP_SIZE, seed), method="jacobian", allow_zero=True),
        gradcheck(fitting, params, inputs, method="adjoint", seed=seed, allow_zero=True),
    ]
    untested = set(reports[0].zeros) & set(reports[1].zeros)
    for redraw in range(MAX_REDRAWS):
        if untested:
            values = generic_values(module, seed=redraw)
            reports.append(gradcheck(module, *values, method="adjoint", allow_zero=True))
            untested &= set(reports[-1].zeros)
    first_two = [replace(report, allow_zero=frozenset(report.zeros) - untested) for report in reports[:2]]
    return first_two + reports[2:]

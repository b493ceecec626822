"""Passes in float32, which tell at a third of the cost that a mistake is too far off to be looked at exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.planting import Site
from npattn.oracle.mistakes.running import MOST_GROWTH, NEARER, UNFIT, Runner, TooFarError, run_with

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["Screen", "is_worth_screening"]

LEAST_SIZE = 2**14
"""Elements of outputs from which a pass in float32 takes clearly less time than one in float64."""
MARGIN = 1.25
"""Factor by which distances may be larger than those that are looked at exactly: what float32 adds to them."""


def is_worth_screening(case: Case) -> bool:
    """Tell whether passes of a case are so large that most of their time goes into numbers."""
    return sum(case.expected[name].size for name in case.upstream) >= LEAST_SIZE


class Screen(Runner):
    """Passes in float32 with mistakes, beside those of a search in float64.

    What is called far here is far in float64 too: distances are given room for the errors of float32, made larger by
    as much as any mistake makes errors. All else is left to be run exactly.

    Parameters
    ----------
    case : Case
    results : mapping of numpy.ndarray
    """

    def __init__(self, case: Case, results: Mapping[str, np.ndarray]) -> None:
        super().__init__(case, results, np.float32)
        self.own = MOST_GROWTH * 2.0 ** (case.format.operand_precision - 24)
        self.wrong = set(self.right.distances) - self.right.within()

    def prepare(self) -> None:
        """Remember what the right pass computes."""
        with np.errstate(all="ignore"), self.memory.at_work():
            self.run_watched(self.module, *self.given)
        self.memory.settle()

    def nearness(self, right: float) -> float:
        """Return how far off a mistake may be here that is to be looked at exactly."""
        return MARGIN * super().nearness(right) + self.own

    def far_forward(self, mistakes: tuple[tuple[Mistake, Site], ...]) -> Misfit | None:
        """Run forward with mistakes: how far off it is, or None where that is not clear."""
        misfit = self.measured_forward(mistakes)
        return None if misfit is None or math.isinf(misfit.worst) or self.is_near(misfit) else misfit

    def far(self, mistakes: tuple[tuple[Mistake, Site], ...], *, stop: bool, checked: bool) -> Candidate | None:
        """Run a pass with mistakes: how far off it is, or None where that is not clear or where it explains a result.

        Parameters
        ----------
        mistakes : tuple of pair
        stop : bool
            Whether to stop where forward is far off.
        checked : bool
            Whether to stop where any gradient is.
        """

        def run(module: Any, *given: Any) -> dict[str, np.ndarray]:
            return self.run_checked(module, *given) if checked else self.run(module, *given, stop=stop)

        try:
            with np.errstate(all="ignore"), self.memory.at_work():
                found = run_with(run, mistakes)(self.module, *self.given)
        except TooFarError as far:
            clear = math.isfinite(far.misfit.worst)
            return Candidate(mistakes, far.misfit, whole=False, cut=far.going_back) if clear else None
        except UNFIT:
            return None
        misfit = self.ruler.measure(found)
        return None if self.may_tell(misfit) else Candidate(mistakes, misfit, halves=False)

    def may_tell(self, misfit: Misfit) -> bool:
        """Tell whether what is measured may fit, halve what is wrong, or explain a result, when it is run exactly."""
        met = any(misfit.distances.get(name, math.inf) <= self.nearness(0) for name in self.wrong)
        worst = misfit.worst
        halves = worst <= MARGIN * NEARER * self.right.worst + self.own
        return met or halves or math.isinf(worst) or self.is_near(misfit)

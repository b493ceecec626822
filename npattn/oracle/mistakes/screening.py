"""Passes in float32, which tell at a third of the cost that a mistake is too far off to be looked at exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.planting import Site
from npattn.oracle.mistakes.replaying import Memory
from npattn.oracle.mistakes.running import MOST_GROWTH, NEARER_RATIO, Runner, changes_forward

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["Screen", "is_worth_screening"]

LEAST_SIZE = 2**15
"""Elements of inputs and outputs from which a pass in float32 takes clearly less time than one in float64."""
MARGIN_FACTOR = 1.05
"""Factor by which distances may be larger than those that are looked at exactly: what float32 adds to them."""


def is_worth_screening(case: Case) -> bool:
    """Tell whether passes of a case are so large that most of their time goes into numbers."""
    return sum(a.size for a in (*case.inputs.values(), *case.upstream.values())) >= LEAST_SIZE


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
        self.memory = Memory(fast=True)
        self.own = MOST_GROWTH * 2.0 ** (case.format.precision - 24)

    def prepare(self, places: dict[Mistake, list[Site]]) -> None:
        """Remember where mistakes can stand, and what the right pass computes."""
        self.places = places
        with np.errstate(all="ignore"), self.memory.at_work():
            right = self.run_watched(self.module, *self.given)
        self.memory.settle()
        self.ruler.take_as_right({name: np.asarray(right[name]) for name in self.ruler.results})

    def nearness(self, right: float) -> float:
        """Return how far off a mistake may be here that is to be looked at exactly."""
        return MARGIN_FACTOR * super().nearness(right) + self.own

    def is_far(self, misfit: Misfit) -> bool:
        """Tell whether what was measured here is clearly too far off."""
        return math.isfinite(misfit.worst) and not self.is_near(misfit)

    def look(self, mistakes: tuple[tuple[Mistake, Site], ...], *, whole: bool) -> Candidate | None:
        """Run a pass with mistakes: how far off it is, or None where that is not clear or where it explains a result.

        Parameters
        ----------
        mistakes : tuple of pair
        whole : bool
            Whether to go on where a gradient is too far off.
        """
        if len(mistakes) == 1 and changes_forward(mistakes[0][0]):
            misfit = self.forward_misfit(*mistakes[0])
            if misfit is not None and self.is_far(misfit):
                return Candidate(mistakes, misfit, whole=False)
            if misfit is not None and not (whole or misfit.fits):
                return None  # its backward need not be run where an exact forward does not fit
        found = self.run_until_far(mistakes, whole=whole)
        if isinstance(found, Candidate):
            return found if math.isfinite(found.misfit.worst) else None
        misfit = None if found is None else self.ruler.measure(found)
        if found is None or misfit is None or self.may_tell(misfit):
            return None
        close = misfit.worst <= NEARER_RATIO * self.right.worst
        return Candidate(mistakes, misfit, halves=close and self.explains(found, NEARER_RATIO))

    def may_tell(self, misfit: Misfit) -> bool:
        """Tell whether what is measured may fit, or explain a result, when it is run exactly."""
        met = any(misfit.distances.get(name, math.inf) <= self.nearness(0) for name in self.wrong)
        return met or math.isinf(misfit.worst) or self.is_near(misfit)

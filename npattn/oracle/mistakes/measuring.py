"""Whether a kernel's results are those of a pass with mistakes, which may make its errors larger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from npattn.oracle.mistakes.candidates import Candidate, Passes
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.planting import Run, Site
from npattn.oracle.mistakes.running import MOST_GROWTH, NEARER_RATIO, Runner, run_with

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["Measurer"]

LEAST_ERROR = 0.1
"""Root mean square, in units of budget, that a pass's own errors have at least."""


class Measurer(Runner):
    """Runs passes with mistakes, and tells whether results may be a kernel's.

    Parameters
    ----------
    case : Case
    results : mapping of numpy.ndarray
        By name, as the case expects them; of steps that it has among its results too.
    passes : Passes, optional
        Keeps what is computed, for searches with other results of the same case.
    """

    def __init__(self, case: Case, results: Mapping[str, np.ndarray], passes: Passes | None = None) -> None:
        super().__init__(case, results)
        self.passes = passes
        self.errors: dict[str, float] = {}

    def candidate(self, mistakes: tuple[tuple[Mistake, Site], ...], found: dict[str, np.ndarray]) -> Candidate:
        """Measure results; keep them if they fit."""
        misfit = self.ruler.measure(found)
        if not misfit.fits and self.is_near(misfit) and self.explains(found):
            misfit = misfit.relative_to(self.growth(mistakes, found))
        if misfit.fits and not self.explains(found):
            misfit = misfit.too_far()
        close = misfit.worst <= NEARER_RATIO * self.right.worst
        return Candidate(
            mistakes, misfit, found if misfit.fits else {}, halves=close and self.explains(found, NEARER_RATIO)
        )

    def growth(
        self,
        mistakes: tuple[tuple[Mistake, Site], ...],
        exact: Mapping[str, np.ndarray],
        run: Run | None = None,
        *,
        most: float = MOST_GROWTH,
    ) -> dict[str, float]:
        """Measure by what factor a mistake makes the errors of results larger: by one pass in float32, of `run`."""
        if self.passes is None or mistakes not in self.passes.growths:
            found = self.measured_growth(mistakes, exact, run)
            if self.passes is not None:
                self.passes.growths[mistakes] = found
        else:
            found = self.passes.growths[mistakes]
        return {name: float(np.clip(factor, 1, most)) for name, factor in found.items()}

    def measured_growth(
        self, mistakes: tuple[tuple[Mistake, Site], ...], exact: Mapping[str, np.ndarray], run: Run | None
    ) -> dict[str, float]:
        """Measure that factor, however large or small."""
        if not self.errors:
            self.errors = self.errors_in_float32((), self.case.expected)
        mistaken = self.errors_in_float32(mistakes, exact, run)
        # A pass whose float32 results are exact by luck has errors of some size in a format.
        least = LEAST_ERROR * 2.0 ** (self.case.format.operand_precision - 24)
        return {
            name: mistaken[name] / max(right, least)
            for name, right in self.errors.items()
            if np.isfinite(mistaken.get(name, np.nan))
        }

    def errors_in_float32(
        self, mistakes: tuple[tuple[Mistake, Site], ...], exact: Mapping[str, np.ndarray], run: Run | None = None
    ) -> dict[str, float]:
        """Return the root mean square of the errors of a pass in float32, in units of budget."""
        given = self.given.each(lambda a: a.astype(np.float32))
        with np.errstate(all="ignore"):
            results = run_with(run or self.run, mistakes)(self.module, *given)
        measured = {name: np.asarray(results[name], np.float64) for name in self.ruler.results if name in results}
        return {name: self.ruler.error(name, a, np.asarray(exact[name])) for name, a in measured.items()}

"""How far results are from those of a pass with a mistake, in units of the budget that the mistake leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from npattn.oracle.mistakes.replaying import in_memory

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["Misfit", "Ruler"]

MAX_SAME_ERROR = 1e-2
"""Root mean square, in units of budget, below which errors are as good as none."""

DISTANCE_JUST_BEYOND = 1.01
"""A distance that is one of no fit."""
MIN_MOVED_UNIT = 1.0
"""Least unit of an element that is another number than it should be, in proportion to those of the whole result."""


class Misfit:
    """How far results are from some pass's.

    Attributes
    ----------
    distances : dict of float
        By result, of the worst of all errors and their root mean square: in units of their limits.
    squares : dict of float
        Mean squares, in units of budget.
    """

    def __init__(self, distances: dict[str, float], squares: dict[str, float]) -> None:
        self.distances, self.squares = distances, squares

    @property
    def worst(self) -> float:
        """The largest of all distances."""
        return max(self.distances.values(), default=0.0)

    @property
    def fits(self) -> bool:
        """Whether a kernel with just this mistake may have given the results."""
        return self.worst <= 1

    def relative_to(self, growth: Mapping[str, float]) -> Misfit:
        """Measure in units so many times as large, result by result; what is left stays as large as it is."""
        return Misfit({name: d / growth.get(name, 1.0) for name, d in self.distances.items()}, self.squares)

    def too_far(self) -> Misfit:
        """Measure as what does not fit."""
        return Misfit({name: max(d, DISTANCE_JUST_BEYOND) for name, d in self.distances.items()}, self.squares)

    def within(self) -> set[str]:
        """Name the results that are met."""
        return {name for name, distance in self.distances.items() if distance <= 1}


class Ruler:
    """Results of a kernel, to be measured against exact results of any pass.

    Parameters
    ----------
    case : Case
    results : mapping of numpy.ndarray, float64
        By name, of the shapes that the case expects.

    Attributes
    ----------
    right : mapping of numpy.ndarray
        What passes without a mistake give, in the arithmetic of those that are measured.
    """

    def __init__(self, case: Case, results: Mapping[str, np.ndarray]) -> None:
        self.case, self.results = case, results
        self.sizes = {name: size_of(case.expected[name]) for name in results}
        self.usual = {name: size_of(case.budget[name]) for name in results}
        finite = {name: np.isfinite(case.budget[name]) for name in results}
        self.judged = {name: None if judged.all() else judged for name, judged in finite.items()}
        self.right: Mapping[str, np.ndarray] = case.expected
        self.known: dict[str, tuple[np.ndarray, tuple[float, float]]] = {}

    def take_as_right(self, right: Mapping[str, np.ndarray]) -> None:
        """Take what passes without a mistake give in another arithmetic, where what is 0 may be rounding errors."""
        self.right = right
        self.sizes = {name: max(self.sizes[name], size_of(a)) for name, a in right.items()}
        self.remember(right)

    def remember(self, exact: Mapping[str, np.ndarray]) -> None:
        """Measure results of which other passes return the very arrays, where nothing is different; keep them."""
        for name, got in self.results.items():
            if isinstance(exact.get(name), np.ndarray):
                self.known[name] = exact[name], self.distance(name, got, exact[name])

    def measure(self, exact: Mapping[str, np.ndarray], *, grown: bool = True, farthest: float = math.inf) -> Misfit:
        """Measure the distances to those of the results that are among `exact`, up to the first beyond `farthest`.

        A mistake that makes a result larger makes its errors larger by as much; unless `grown`, units are those of the
        right results.
        """
        distances, squares = {}, {}
        for name, got in self.results.items():
            if name in exact:
                found = self.known_distance(name, exact[name]) if grown else None
                distances[name], squares[name] = found or self.distance(name, got, np.asarray(exact[name]), grown=grown)
                if distances[name] > farthest:
                    break
        return Misfit(distances, squares)

    def known_distance(self, name: str, exact: np.ndarray) -> tuple[float, float] | None:
        """Return the distance to an array that is the one remembered; None where it is another."""
        right, distance = self.known.get(name, (None, None))
        return distance if right is not None and in_memory(right) == in_memory(exact) else None

    def distance(self, name: str, got: np.ndarray, exact: np.ndarray, *, grown: bool = True) -> tuple[float, float]:
        """Measure one: the distance, and the mean square in units of budget."""
        if exact.shape != got.shape:
            return np.inf, np.inf
        units = self.errors(name, got, exact, grown=grown)
        if not units.size:
            return 0.0, 0.0
        square = float(np.mean(np.square(units)))
        worst_limit, rms_limit = self.case.limits[name]
        return max(float(units.max()) / worst_limit, math.sqrt(square) / rms_limit), square

    def error(self, name: str, got: np.ndarray, exact: np.ndarray) -> float:
        """Return the root mean square of errors, in units of budget."""
        units = self.errors(name, got, exact)
        return float(np.sqrt(np.mean(np.square(units)))) if units.size else 0.0

    def errors(self, name: str, got: np.ndarray, exact: np.ndarray, *, grown: bool = True) -> np.ndarray:
        """Return errors of the elements that are judged, in units of budget."""
        judged = self.judged[name]
        budget = self.units(name, exact) if grown else self.case.budget[name]
        if judged is not None:
            got, exact, budget = got[judged], exact[judged], budget[judged]
        with np.errstate(all="ignore"):
            error = got - exact
            if np.isfinite(error).all():
                return np.abs(error) / budget
            error = np.where((got == exact) | (np.isnan(got) & np.isnan(exact)), 0, error)
            return np.where(np.isfinite(error), np.abs(error) / budget, np.inf)

    def units(self, name: str, exact: np.ndarray) -> np.ndarray:
        """Return the unit of each element's error in a mistaken result.

        A mistake that makes a result larger makes its errors larger by as much. Where it puts another number than the
        right one, the error is in proportion to that number as all are in proportion to the result, and about as large
        as elsewhere: it may be a number that belongs there.
        """
        right, budget, size = self.right[name], self.case.budget[name], self.sizes[name]
        growth = max(1.0, size_of(exact) / size) if size else 1.0
        usual = self.usual[name]
        with np.errstate(all="ignore"):
            other = np.maximum(np.abs(exact) * (usual / size if size else 0.0), usual * MIN_MOVED_UNIT)
            other = np.where(np.isfinite(other), other, 0)
        return np.where(exact == right, budget, np.maximum(budget, other)) * growth

    def better(self, one: Misfit, other: Misfit) -> float:
        """Weigh two passes: the logarithm of how much likelier the results are by one than by the other.

        How large a kernel's own errors are is not known: for each result they are as large as what is left.
        """
        total = 0.0
        for name, square in one.squares.items():
            if name not in other.squares:
                continue
            freedom = min(self.case.freedom[name], self.case.expected[name].size)
            total += 0.5 * freedom * np.log((MAX_SAME_ERROR**2 + other.squares[name]) / (MAX_SAME_ERROR**2 + square))
        return float(total)


def size_of(a: np.ndarray) -> float:
    """Return the root mean square of the finite numbers."""
    with np.errstate(all="ignore"):
        square = float(np.mean(np.square(a))) if a.size else 0.0
    if math.isfinite(square):
        return math.sqrt(square)
    finite = a[np.isfinite(a)]
    return float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0

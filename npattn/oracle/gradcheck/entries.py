"""Entries of the Jacobian, by backward and by complex step, compared as closely as rounding allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from npattn.oracle.gradcheck.directions import Directions
from npattn.oracle.gradcheck.point import Point

__all__ = ["EntryComparison", "Finding"]

CANCELLED_SHARE = 1e-2
"""An entry below this share of its column is a sum that nearly cancels, and is not held to its own last digits."""
NEGLIGIBLE_SHARE = 1e-9
"""A gradient below this share of the largest one is 0 but for rounding, as a bias's before batch norm."""
ROUNDING_SHARE = 1e-13
"""So is one element's below this share, beside others of its tensor, as that of a key's bias, which a softmax hides."""
EXTENDED = np.longdouble
"""The kind of number with more digits, where it has them."""
NUM_NEIGHBOURS = 12
"""Neighbouring points at which rounding is measured."""
MAX_DEVIATIONS = 32
"""Standard deviations that rounding may reach: a normal error exceeds so many, of 12 points, once in 3·10¹¹ times."""
RESOLVED_ERROR = 1e-10
"""Relative error that the check must be able to see in every element of a gradient, or it takes more digits."""


@dataclass(frozen=True)
class Finding:
    """What was found of one gradient; the fields are those of the report."""

    error: float
    zero: bool = False
    vanishes: bool = False
    rounding: float = 0.0


class EntryComparison:
    """Compare entries <dy, J v> by backward and by complex step, as closely as rounding allows.

    Parameters
    ----------
    point : Point
    directions : Directions
    tolerance : float
    seed : int
        Of the neighbouring points.
    """

    def __init__(self, point: Point, directions: Directions, tolerance: float, seed: int) -> None:
        self.point, self.directions, self.tolerance, self.seed = point, directions, tolerance, seed
        count = len(directions.rows)
        self.every = {
            name: np.eye(count, dtype=bool) if directions.paired else np.ones((count, len(columns)), bool)
            for name, columns in directions.columns.items()
        }
        self.back, self.exact = directions.compare(point, self.every)
        self.difference = {name: np.abs(self.back[name] - self.exact[name]) for name in self.every}
        self.columns = {name: column_sizes(self.exact[name], mask) for name, mask in self.every.items()}
        self.lengths = {name: directions.lengths(name) for name in self.every}
        sizes = {name: self.columns[name] / self.lengths[name] for name in self.every}
        self.largest = max(map(root_mean_square, sizes.values()))
        # By tensor: a small element beside large ones is held to itself, or a mistake in it would not show.
        self.vanishing = {
            name: root_mean_square(size) <= NEGLIGIBLE_SHARE * self.largest for name, size in sizes.items()
        }

    def findings(self) -> dict[str, Finding]:
        """Judge every gradient: as it stands, then by its rounding, then in more digits, as far as there is doubt."""
        errors = {
            name: relative_error(self.difference[name], self.scale(name, self.exact[name])) for name in self.every
        }
        doubts = {name: error > self.tolerance for name, error in errors.items()}
        doubts = {name: mask for name, mask in doubts.items() if mask.any() and not np.isnan(errors[name]).any()}
        wrong, spread = self.mistakes(self.point, self.difference, doubts)
        explained = {name: mask for name, mask in doubts.items() if name not in wrong}
        unsure = {name: self.unresolved(name, mask, spread[name]) for name, mask in explained.items()}
        found = {}
        for name, error in errors.items():
            right = ~doubts[name] if name in doubts else self.every[name]
            found[name] = Finding(
                error=largest_error(error[wrong[name]] if name in wrong else error[right]),
                zero=not (self.back[name].any() or self.exact[name].any()),
                vanishes=self.vanishing[name],
                rounding=largest_error(error[explained[name]]) if name in explained else 0.0,
            )
        return found | self.in_more_digits({name: mask for name, mask in unsure.items() if mask.any()})

    def scale(self, name: str, exact: np.ndarray) -> np.ndarray:
        """Return what the errors of entries are relative to."""
        if self.vanishing[name]:
            return np.broadcast_to(self.largest * self.lengths[name], exact.shape)
        largest, columns = self.largest * self.lengths[name], self.columns[name]
        entries = np.maximum(np.abs(exact), CANCELLED_SHARE * columns)
        return np.where(columns <= ROUNDING_SHARE * largest, largest, entries)

    def mistakes(
        self, point: Point, difference: Mapping[str, np.ndarray], doubts: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Find entries that differ by more than rounding explains; if the one furthest off does, the others can wait.

        Returns
        -------
        wrong, spread : dict of numpy.ndarray
            Masks of such entries, of gradients that have any; the standard deviation of every entry's difference.
        """
        wrong, spread = {}, {name: np.zeros(mask.shape) for name, mask in doubts.items()}
        first = {name: mask & (difference[name] == np.max(difference[name][mask])) for name, mask in doubts.items()}
        rest = {name: mask & ~first[name] for name, mask in doubts.items()}
        for some in (first, rest):
            chosen = {name: mask for name, mask in some.items() if mask.any() and name not in wrong}
            for name, deviation in self.deviations(point, chosen).items():
                mask = chosen[name]
                spread[name][mask] = deviation[mask]
                beyond = mask & ~(difference[name] <= MAX_DEVIATIONS * deviation)
                if beyond.any():
                    wrong[name] = beyond
        return wrong, spread

    def deviations(self, point: Point, chosen: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Measure rounding: how the difference of both sides varies among neighbouring points, entry by entry.

        A mistake varies as the entry does, if not less. So the difference is taken absolutely and relatively to the
        entry, and what varies less counts.
        """
        if not chosen:
            return {}
        random, found = np.random.RandomState([self.seed, 1]), {}
        both = [self.directions.compare(point.nearby(self.every, random), chosen) for _ in range(NUM_NEIGHBOURS)]
        for name in chosen:
            back, exact = (np.array([side[name] for side in sides]) for sides in zip(*both, strict=True))
            absolute = np.std(back - exact, axis=0, ddof=1)
            with np.errstate(divide="ignore", invalid="ignore"):  # of entries that are 0, which fmin then passes over
                share = np.std((back - exact) / exact, axis=0, ddof=1) * np.mean(np.abs(exact), axis=0)
            found[name] = np.fmin(absolute, share)
        return found

    def unresolved(self, name: str, doubtful: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Choose, of the entries in doubt, those of elements in none of whose entries a small mistake would show."""
        bound = relative_error(self.difference[name] + MAX_DEVIATIONS * spread, np.abs(self.exact[name]))
        best = np.min(np.where(self.exact[name] == 0, np.inf, bound), axis=0)
        return doubtful & (best > RESOLVED_ERROR) & (not self.vanishing[name])

    def in_more_digits(self, unsure: dict[str, np.ndarray]) -> dict[str, Finding]:
        """Judge entries in longdouble; what is found wrong there is wrong."""
        if not unsure or np.finfo(EXTENDED).eps >= np.finfo(self.point.dtype).eps:
            return {}
        try:
            point = self.point.astype(EXTENDED)
            back, exact = self.directions.compare(point, unsure)
            difference = {name: np.abs(back[name] - exact[name]) for name in unsure}
            errors = {name: relative_error(difference[name], self.scale(name, exact[name])) for name in unsure}
            doubts = {name: mask & (errors[name] > self.tolerance) for name, mask in unsure.items()}
            wrong, _ = self.mistakes(point, difference, {name: mask for name, mask in doubts.items() if mask.any()})
        except (TypeError, ValueError):  # what the module calls may know no longdouble, as np.linalg doesn't
            return {}
        return {name: Finding(largest_error(errors[name][mask])) for name, mask in wrong.items()}


def column_sizes(entries: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the root mean square of each column's chosen entries."""
    return np.sqrt(np.sum(entries**2, axis=0) / np.maximum(mask.sum(axis=0), 1))


def root_mean_square(array: np.ndarray) -> float:
    """Return the typical size of an element; 0 if there is none."""
    return float(np.sqrt(np.mean(array**2))) if array.size else 0.0


def largest_error(errors: np.ndarray) -> float:
    """Return the largest error, NaN if there is one, 0 if there is none."""
    return float(np.max(errors, initial=0.0))


def relative_error(difference: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return difference / scale, where two exact zeros agree."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(difference, scale, out=np.zeros_like(difference), where=difference != 0)

"""Directions in which both ways to the derivatives are compared: unit vectors, or random pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from npattn.oracle.gradcheck.point import Point

__all__ = ["Directions", "random_directions", "unit_directions"]

NUM_DIRECTIONS = 3
"""Random pairs (dy, v) of the adjoint identity."""


@dataclass(frozen=True)
class Directions:
    """Directions of which backward's Jᵀ dy and the complex step's J v are compared, as entries <dy, J v>.

    Attributes
    ----------
    rows : numpy.ndarray
        Directions dy: indices of unit vectors, or flat vectors.
    columns : dict of numpy.ndarray
        The same among every input and parameter.
    paired : bool
        Whether each row is compared with the column of its number alone.
    """

    rows: np.ndarray
    columns: dict[str, np.ndarray]
    paired: bool

    def compare(self, point: Point, chosen: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], ...]:
        """Compute the chosen entries, given as masks, by backward and by complex step; others stay 0."""
        some_rows = np.any([mask.any(axis=1) for mask in chosen.values()], axis=0)
        rows: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
        for dy in self.rows[some_rows]:
            gradients = point.vjp(to_vector(dy, point.outputs))
            for name, mask in chosen.items():
                rows[name].append(components(gradients[name], self.columns[name][mask.any(axis=0)]))
        back, exact = ({name: np.zeros(mask.shape, point.dtype) for name, mask in chosen.items()} for _ in range(2))
        for name, mask in chosen.items():
            some_columns, size = mask.any(axis=0), (point.inputs | point.params)[name].size
            moved = [
                components(point.jvp(name, to_vector(v, size)), self.rows[some_rows])
                for v in self.columns[name][some_columns]
            ]
            place = np.ix_(some_rows, some_columns)
            back[name][place] = np.where(mask[place], rows[name], 0)
            exact[name][place] = np.where(mask[place], np.array(moved).T, 0)
        return back, exact

    def lengths(self, name: str) -> np.ndarray:
        """Return the sum of the absolute elements of each column's direction."""
        columns = self.columns[name]
        return np.ones(len(columns)) if columns.ndim == 1 else np.sum(np.abs(columns), axis=1)


def unit_directions(outputs: int, shapes: Mapping[str, tuple[int, ...]]) -> Directions:
    """List the unit vectors, which give the full Jacobian."""
    columns = {name: np.arange(math.prod(shape)) for name, shape in shapes.items()}
    return Directions(np.arange(outputs), columns, paired=False)


def random_directions(point: Point, seed: int) -> Directions:
    """Draw pairs (dy, v) in which every element of the gradient has its full weight."""
    random = np.random.RandomState(seed)
    # The first dy pulls all outputs one way, so that what is averaged over the map does not average out.
    rows = [random.uniform(0.5, 1.5, point.outputs)]
    rows += [random.standard_normal(point.outputs) for _ in range(NUM_DIRECTIONS - 1)]
    columns: dict[str, list[np.ndarray]] = {}
    for dy in rows:
        for name, gradient in point.vjp(dy).items():
            sign = np.where(gradient == 0, random.choice([-1, 1], gradient.shape), np.sign(gradient))
            v = sign * random.uniform(0.5, 1.5, gradient.shape)  # along the gradient: its terms add up, none cancels
            columns.setdefault(name, []).append(v)
    return Directions(np.array(rows), {name: np.array(several) for name, several in columns.items()}, paired=True)


def to_vector(direction: np.ndarray, size: int) -> np.ndarray:
    """Write out a direction that may be the index of a unit vector."""
    if direction.ndim:
        return direction
    unit = np.zeros(size)
    unit[direction] = 1.0
    return unit


def components(values: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Take the components of a vector along several directions."""
    return values[directions] if directions.ndim == 1 else np.sum(values * directions, axis=1)

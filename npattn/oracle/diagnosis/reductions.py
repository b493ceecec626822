"""A wrong result that was reduced too far, or not far enough."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from npattn.oracle.diagnosis.axes import list_words, plural
from npattn.oracle.diagnosis.evidence import Evidence

__all__ = ["axis_sets", "read_reduction"]


def axis_sets(axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """List the sets of axes that may be reduced, small ones first."""
    for count in range(1, len(axes) + 1):
        yield from itertools.combinations(axes, count)


def read_reduction(evidence: Evidence, names: Sequence[str]) -> Iterator[str]:
    """Say over which axes the exact result was reduced, where it is the same along them."""
    shape = evidence.shape
    long = [axis for axis, length in enumerate(shape) if length > 1]
    if not long:
        return
    coordinates = np.unravel_index(evidence.sample, shape)
    got, expected, budget = (values.reshape(shape) for values in (evidence.got, evidence.expected, evidence.budget))
    for axes in axis_sets(long[-4:]):
        first = tuple(0 * index if axis in axes else index for axis, index in enumerate(coordinates))
        count = np.prod([shape[axis] for axis in axes])
        unit = evidence.rounded(got[coordinates], count * budget[coordinates])
        alike = np.abs(got[first] - got[coordinates]) <= 2 * evidence.limits[0] * unit
        if not alike.all() or not np.isfinite(budget).all():
            continue
        total = np.broadcast_to(expected.sum(axis=axes, keepdims=True), shape).ravel()
        unit = np.broadcast_to(budget.sum(axis=axes, keepdims=True), shape).ravel()
        for what, factor in (("mean", 1 / count), ("sum", 1.0)):
            values, units = factor * total, factor * unit
            told = np.abs(values) > evidence.limits[0] * units  # else it is as good as 0
            if told.any() and evidence.supports(functools.partial(claimed_values, values, units)):
                over = list_words([plural(names[axis]) for axis in axes])
                yield f"the {what} of expected over its {over}, everywhere"


def claimed_values(values: np.ndarray, units: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the claimed values of some elements, and their budget."""
    return values[indices], units[indices]

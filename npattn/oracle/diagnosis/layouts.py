"""A wrong result whose elements are the exact ones, elsewhere: exchanged axes, another order in memory, a shift."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from npattn.oracle.diagnosis.axes import list_words, plural
from npattn.oracle.diagnosis.evidence import Candidate, Evidence

__all__ = ["Rearrangement", "claim", "read_layout", "rearrangements"]

Coordinates: TypeAlias = tuple[np.ndarray, ...]
CHANNELS_LAST = ("image", "channel", "row", "column")


class Rearrangement(NamedTuple):
    """Where each element of a wrong result comes from.

    Attributes
    ----------
    text : str
        What is said of it.
    source : callable
        The coordinates of the element of the exact result that an element is; below 0 where it is 0 instead.
    """

    text: str
    source: Callable[[Coordinates], Sequence[np.ndarray]]


def read_layout(evidence: Evidence, names: Sequence[str]) -> Iterator[str]:
    """Say how the exact result is rearranged."""
    found: list[np.ndarray] = []
    for one in rearrangements(evidence.shape, names):
        candidate = claim(evidence, one)
        if evidence.supports(candidate):
            values = candidate(evidence.sample)[0]
            # Where an axis has two elements, or all are alike along it, several rearrangements are the same.
            if not any(np.array_equal(values, other) for other in found):
                found.append(values)
                yield one.text


def claim(evidence: Evidence, rearrangement: Rearrangement) -> Candidate:
    """Claim that a result is the exact one, rearranged."""
    shape = evidence.shape

    def candidate(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        source = rearrangement.source(np.unravel_index(indices, shape))
        outside = np.any([coordinate < 0 for coordinate in source], axis=0)
        flat = np.ravel_multi_index([np.maximum(coordinate, 0) for coordinate in source], shape)
        return np.where(outside, 0, evidence.expected[flat]), np.where(outside, 0, evidence.budget[flat])

    return candidate


def rearrangements(shape: tuple[int, ...], names: Sequence[str]) -> Iterator[Rearrangement]:
    """List ways to rearrange a tensor of this shape, the usual ones first."""
    yield from axis_orders(shape, names)
    long = [axis for axis, length in enumerate(shape) if length > 1]
    for axis in long:
        yield Rearrangement(f"reversed along its {plural(names[axis])}", along([axis], reverse, shape))
    if len(long) > 1:
        last = long[-2:]
        what = " and ".join(plural(names[axis]) for axis in last)
        yield Rearrangement(f"reversed along its {what}: turned by 180 degrees", along(last, reverse, shape))
    for axis in long:
        for index in (0, shape[axis] - 1):
            text = f"{names[axis]} {index} in place of all {plural(names[axis])}"
            yield Rearrangement(text, along([axis], constant(index), shape))
    for axis in long:
        yield from shifts([axis], shape, plural(names[axis]))
    if len(long) > 1:
        yield from shifts(long[-2:], shape, " and ".join(plural(names[axis]) for axis in long[-2:]))
    for axis in long:
        yield from shuffles(axis, shape, names[axis])


def axis_orders(shape: tuple[int, ...], names: Sequence[str]) -> Iterator[Rearrangement]:
    """List the orders in which memory may hold the axes; those of length 1 have no place in it."""
    long = [axis for axis, length in enumerate(shape) if length > 1]
    if len(long) > 5:
        return
    orders = itertools.permutations(long)
    next(orders)
    for order in orders:
        # Axes of length 1 stay where they are.
        places = iter(order)
        full = tuple(next(places) if length > 1 else axis for axis, length in enumerate(shape))
        lengths = tuple(shape[axis] for axis in full)
        moved = [axis for axis, place in zip(long, order, strict=True) if axis != place]
        what = list_words([plural(names[axis]) for axis in moved])
        if lengths == shape:
            text = f"{what} {'exchanged' if len(moved) == 2 else 'permuted'}"
        else:
            text = f"in memory {' x '.join(plural(names[axis]) for axis in order)}"
            if tuple(names) == CHANNELS_LAST and order == tuple(axis for axis in (0, 2, 3, 1) if axis in long):
                text = "written as NHWC and read as NCHW"
            elif tuple(names) == CHANNELS_LAST and order == tuple(axis for axis in (0, 3, 1, 2) if axis in long):
                text = "taken as NHWC and made NCHW, where it was NCHW already"
        yield Rearrangement(text, memory_order(shape, full, lengths))


def memory_order(
    shape: tuple[int, ...], order: tuple[int, ...], lengths: tuple[int, ...]
) -> Callable[[Coordinates], Sequence[np.ndarray]]:
    """Read the memory of a tensor whose axes lie in another order as if they lay in their own."""

    def source(coordinates: Coordinates) -> list[np.ndarray]:
        written = np.unravel_index(np.ravel_multi_index(coordinates, shape), lengths)
        places: list[np.ndarray] = list(coordinates)
        for axis, coordinate in zip(order, written, strict=True):
            places[axis] = coordinate
        return places

    return source


def along(
    axes: Sequence[int], move: Callable[[np.ndarray, int], np.ndarray], shape: tuple[int, ...]
) -> Callable[[Coordinates], Sequence[np.ndarray]]:
    """Move elements along some axes."""
    return lambda coordinates: [
        move(coordinate, shape[axis]) if axis in axes else coordinate for axis, coordinate in enumerate(coordinates)
    ]


def reverse(index: np.ndarray, length: int) -> np.ndarray:
    """Count from the end."""
    return length - 1 - index


def constant(index: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Take one index in place of all."""
    return lambda all_, _: np.full_like(all_, index)


def shifts(axes: Sequence[int], shape: tuple[int, ...], what: str) -> Iterator[Rearrangement]:
    """List shifts by a few places: circular, with zeros, or with the edge repeated."""
    shortest = min(shape[axis] for axis in axes)
    for distance in sorted({1, 2, shortest // 2}):
        if not 0 < distance < shortest:
            continue
        for by in (distance, -distance):
            told = f"shifted by {abs(by)} along its {what}, towards the {'end' if by > 0 else 'start'}"
            for edge, move in EDGES.items():
                yield Rearrangement(f"{told}, {edge}", along(axes, functools.partial(move, by=by), shape))


EDGES: dict[str, Callable[..., np.ndarray]] = {
    "circularly": lambda index, length, by: (index - by) % length,
    "with 0 at the edge": lambda index, length, by: np.where((index >= by) & (index - by < length), index - by, -1),
    "with the edge repeated": lambda index, length, by: np.clip(index - by, 0, length - 1),
}
"""Where an element comes from that was shifted, by what becomes of the edge."""


def shuffles(axis: int, shape: tuple[int, ...], name: str) -> Iterator[Rearrangement]:
    """List shuffles that exchange groups with places in a group: (g, n/g) read as (n/g, g)."""
    length = shape[axis]
    for groups in range(2, length // 2 + 1):
        if length % groups == 0 and (groups <= 64 or math.log2(groups).is_integer()):
            text = f"{plural(name)} shuffled: {groups} x {length // groups} read as {length // groups} x {groups}"
            yield Rearrangement(text, along([axis], functools.partial(regroup, groups=groups), shape))


def regroup(index: np.ndarray, length: int, *, groups: int) -> np.ndarray:
    """Exchange groups with places in a group."""
    return index % groups * (length // groups) + index // groups

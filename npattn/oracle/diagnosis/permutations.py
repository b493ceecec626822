"""A wrong result whose slices along an axis are the exact ones in another order, whatever the order."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from npattn.oracle.diagnosis.axes import plural
from npattn.oracle.diagnosis.evidence import Evidence
from npattn.oracle.diagnosis.layouts import Rearrangement, along, claim

__all__ = ["read_permutation"]

MAX_LENGTH = 256
"""Slices along an axis that are compared with each other."""
SLICE_SAMPLE_SIZE = 32
"""Elements of each slice by which it is recognised."""
MAX_TOLD = 3
"""Slices of which it is said where they come from."""


def read_permutation(evidence: Evidence, names: Sequence[str]) -> Iterator[str]:
    """Say how slices are permuted along an axis."""
    for axis, length in enumerate(evidence.shape):
        if not 2 < length <= MAX_LENGTH:
            continue
        order = find_order(evidence, axis)
        if order is None or (order == np.arange(length)).all():
            continue
        moved = Rearrangement("", along([axis], functools.partial(reorder, order=order), evidence.shape))
        if evidence.supports(claim(evidence, moved), chances=math.lgamma(length + 1) / math.log(2)):
            yield describe_order(order, names[axis])


def reorder(index: np.ndarray, _: int, *, order: np.ndarray) -> np.ndarray:
    """Take slices in another order."""
    return order[index]


def find_order(evidence: Evidence, axis: int) -> np.ndarray | None:
    """Find which slice of the exact result each slice is; none unless each is one, and another."""
    got, expected, budget = (
        take_slices(values.reshape(evidence.shape), axis)
        for values in (evidence.got, evidence.expected, evidence.budget)
    )
    limit = evidence.limits[0]
    order = np.empty(len(got), int)
    for index, values in enumerate(got):
        with np.errstate(all="ignore"):
            units = np.abs(values - expected) / evidence.rounded(expected, budget)
        alike = np.flatnonzero((units <= limit).all(axis=1))
        if alike.size != 1:
            return None
        order[index] = alike[0]
    return order if np.unique(order).size == order.size else None


def take_slices(values: np.ndarray, axis: int) -> np.ndarray:
    """Take the same few elements out of each slice: (slices, elements)."""
    slices = np.moveaxis(values, axis, 0)
    count = math.prod(slices.shape[1:])
    chosen = np.unique(np.linspace(0, count - 1, SLICE_SAMPLE_SIZE).astype(int))
    return np.stack([one.flat[chosen] for one in slices])


def describe_order(order: np.ndarray, name: str) -> str:
    """Say how slices are permuted."""
    moved = np.flatnonzero(order != np.arange(order.size))
    if moved.size == 2:
        return f"{plural(name)} {moved[0]} and {moved[1]} exchanged"
    shift = order[0]
    if (order == (np.arange(order.size) + shift) % order.size).all():
        return f"{plural(name)} shifted circularly: {name} 0 is {shift}"
    told = ", ".join(f"{index} is {order[index]}" for index in moved[:MAX_TOLD])
    return f"{plural(name)} permuted: {told}{', ...' if moved.size > MAX_TOLD else ''}"

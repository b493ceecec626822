"""A wrong result that is off by one number, a term or a factor, for each slice: what is broadcast over the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from npattn.oracle.diagnosis.axes import list_plurals, list_words, singular
from npattn.oracle.diagnosis.evidence import Candidate, Evidence
from npattn.oracle.diagnosis.reductions import axis_sets
from npattn.typing import Array

__all__ = ["read_slices"]

NUM_TRIED = 12
"""Indices along an axis on which a claim is tried first."""


def read_slices(evidence: Evidence, names: Sequence[str]) -> Iterator[str]:
    """Say along which axes a result is off by one term, or by one factor."""
    shape = evidence.shape
    long = [axis for axis, length in enumerate(shape) if length > 1][-4:]
    arrays = [values.reshape(shape) for values in (evidence.got, evidence.expected, evidence.budget)]
    tried = [values[np.ix_(*(np.arange(min(length, NUM_TRIED)) for length in shape))] for values in arrays]
    some = Evidence(tried[0], tried[1], tried[2], evidence.limits, evidence.format)
    for axes, multiplied in itertools.product(reversed(list(axis_sets(long))[:-1]), (False, True)):
        if not (some.units(fitted(tried, axes, multiplied=multiplied), some.judged) <= evidence.limits[0]).all():
            continue
        count = math.prod(shape) // math.prod(shape[axis] for axis in axes)
        if evidence.supports(fitted(arrays, axes, multiplied=multiplied), fitted=count):
            each = list_words([singular(names[axis]) for axis in long if axis not in axes])
            over = list_plurals([names[axis] for axis in axes])
            if multiplied:
                yield f"expected times one factor for each {each}: a factor broadcast over {over} is wrong or missing"
            else:
                yield f"expected plus one number for each {each}: a term broadcast over {over} is wrong or missing"
            return


def fitted(arrays: Sequence[Array], axes: tuple[int, ...], *, multiplied: bool) -> Candidate:
    """Claim that a result is the exact one plus, or times, what fits each slice best."""
    got, expected, budget = arrays
    base = expected if multiplied else np.ones(1)
    target = got if multiplied else got - expected
    with np.errstate(all="ignore"):
        weights = 1 / np.square(budget)
        number = np.sum(weights * base * target, axis=axes, keepdims=True)
        number = np.nan_to_num(number / np.sum(weights * np.square(base), axis=axes, keepdims=True))
    values = np.broadcast_to(number * expected if multiplied else expected + number, got.shape).ravel()
    units = np.broadcast_to(np.abs(number) * budget if multiplied else budget, got.shape).ravel()
    return lambda i: (values[i], units[i])

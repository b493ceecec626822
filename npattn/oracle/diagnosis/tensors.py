"""A wrong result that is another tensor of the case, or the exact one with such a tensor added or left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npattn.oracle.diagnosis.evidence import Candidate, Evidence

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["read_tensor"]


class Tensor(NamedTuple):
    """A tensor of a case, of the shape of a result.

    Attributes
    ----------
    name : str
        What it is called.
    values, budget : numpy.ndarray
    equal : bool
        Whether the result may be it, and not only have it as a term.
    """

    name: str
    values: np.ndarray
    budget: np.ndarray
    equal: bool = True


def read_tensor(evidence: Evidence, case: Case, name: str) -> Iterator[str]:
    """Say which other tensor a result is, or has too much or too little."""
    for other in tensors_like(case, name, evidence.shape):
        values, budget = other.values.ravel(), other.budget.ravel()
        if other.equal:
            if evidence.supports(candidate(evidence, values, budget, 0, 1)):
                yield f"it is {other.name}"
            elif evidence.supports(candidate(evidence, values, budget, 0, -1)):
                yield f"it is minus {other.name}"
        if evidence.supports(candidate(evidence, values, budget, 1, 1)):
            yield f"expected plus {other.name}, as if that were added once too often"
        if evidence.supports(candidate(evidence, values, budget, 1, -1)):
            yield f"expected minus {other.name}, as if that were left out"


def candidate(evidence: Evidence, values: np.ndarray, budget: np.ndarray, share: int, sign: int) -> Candidate:
    """Claim that a result is the exact one or nothing, plus or minus a tensor."""

    def claimed(i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unit = np.sqrt(np.square(share * np.where(share, evidence.budget[i], 0)) + np.square(budget[i]))
        return share * evidence.expected[i] + sign * values[i], unit

    return claimed


def tensors_like(case: Case, name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """List the tensors of a case of this shape, and parameters of a number for each channel."""
    groups = (
        ("the upstream gradient" if len(case.upstream) == 1 else "the upstream gradient of ", case.upstream),
        ("the input ", case.inputs),
        ("the parameter ", case.params),
    )
    for kind, values in groups:
        for other, value in values.items():
            told = kind if kind == "the upstream gradient" else f"{kind}{other}"
            if value.dtype.kind != "f" or not value.size:
                continue
            numbers = np.asarray(value, np.float64)
            if value.shape == shape:
                yield Tensor(told, numbers, np.zeros(shape))
            elif values is case.params and value.ndim == 1 and len(shape) > 1 and value.size == shape[1] > 1:
                broadcast = np.broadcast_to(numbers.reshape(-1, *(1,) * (len(shape) - 2)), shape)
                yield Tensor(told, broadcast, np.zeros(shape), equal=False)
    for other, value in case.expected.items():
        if other != name and value.shape == shape and np.isfinite(value).all():
            yield Tensor(other, value, case.budget[other])

"""A wrong result read as a person would: what it is instead, or where it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from npattn.oracle.diagnosis.axes import list_words, name_axes
from npattn.oracle.diagnosis.evidence import Evidence
from npattn.oracle.diagnosis.factors import known_factors, read_constant, read_factor, read_offset
from npattn.oracle.diagnosis.layouts import read_layout
from npattn.oracle.diagnosis.permutations import read_permutation
from npattn.oracle.diagnosis.places import describe_place
from npattn.oracle.diagnosis.reductions import read_reduction
from npattn.oracle.diagnosis.shapes import read_shape
from npattn.oracle.diagnosis.slices import read_slices
from npattn.oracle.diagnosis.tensors import read_tensor

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["read_result", "reads_exactly"]

THERE = ", where it is "
"""What stands before what a result is in the place where it is wrong."""
MAX_READINGS = 2
"""Ways to read a result that are told, where several hold."""


def read_result(case: Case, name: str, got: np.ndarray) -> str:
    """Say what a wrong result looks like; nothing where nothing holds of all its elements.

    Parameters
    ----------
    case : Case
    name : str
        Of the result.
    got : numpy.ndarray
        The kernel's, of real numbers.

    Returns
    -------
    str

    Examples
    --------
    >>> import npattn
    >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=8), height=6, width=6)
    >>> y = case.expected["output"]
    >>> read_result(case, "output", 0.8 * y), read_result(case, "output", y.swapaxes(2, 3))
    ('0.8 times expected', 'rows and columns exchanged')
    >>> y = y.copy()
    >>> y[:, 5] = 0
    >>> read_result(case, "output", y)
    'wrong in channel 5 alone, where it is 0; all else is right'
    """
    expected = case.expected[name]
    got = np.asarray(got).astype(np.float64)
    if not got.size or not expected.size:
        return ""
    with np.errstate(all="ignore"):
        if got.shape != expected.shape:
            names = name_axes(case, name, got.shape)
            return read_shape(got, expected, case.budget[name], case.limits[name], case.format, names=names)
        evidence = evidence_of(case, name, got)
        if not evidence.judged.size:
            return ""
        names = name_axes(case, name, got.shape)
        return (
            alternatives(read_whole(evidence, case, name, names))
            or read_place(evidence, names)
            or alternatives(read_slices(evidence, names))
        )


def reads_exactly(case: Case, name: str, got: np.ndarray) -> bool:
    """Tell whether a wrong result, of the shape expected, reads exactly: what every element is can be said.

    Examples
    --------
    >>> import npattn
    >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=8), height=6, width=6)
    >>> y = case.expected["output"]
    >>> reads_exactly(case, "output", y[:, ::-1]), reads_exactly(case, "output", y**2)
    (True, False)
    """
    with np.errstate(all="ignore"):
        evidence = evidence_of(case, name, got)
        names = name_axes(case, name, got.shape)
        if not evidence.judged.size:
            return False
        return any(read_whole(evidence, case, name, names)) or THERE in read_place(evidence, names)


def evidence_of(case: Case, name: str, got: np.ndarray) -> Evidence:
    """Lay a wrong result beside the exact one."""
    return Evidence(got, case.expected[name], case.budget[name], case.limits[name], case.format)


def alternatives(readings: Iterator[str]) -> str:
    """Join what may all be said of a result."""
    found = list(dict.fromkeys(readings))
    return list_words(found[:MAX_READINGS], "or") if found else ""


def read_whole(evidence: Evidence, case: Case, name: str, names: tuple[str, ...]) -> Iterator[str]:
    """Say what the result is as a whole, the simplest first."""
    constant = list(read_constant(evidence))
    yield from constant
    if constant or not np.isfinite(evidence.got[evidence.judged]).all():
        return
    factors = list(read_factor(evidence, known_factors(case)))
    yield from factors
    if not factors:
        yield from read_tensor(evidence, case, name)
        layouts = list(read_layout(evidence, names))
        yield from layouts or read_permutation(evidence, names)
        yield from read_reduction(evidence, names)
        yield from read_offset(evidence)


def read_place(evidence: Evidence, names: tuple[str, ...]) -> str:
    """Say where the result is wrong, all else being right, and what it is there."""
    wrong = evidence.wrong()
    found = describe_place(wrong, names)
    if found is None:
        return ""
    text, place = found
    if not evidence.right(~place) or not evidence.would_show(~place):
        return ""
    there = evidence.within(place)
    if np.isnan(there.got[there.judged]).all():
        return f"NaN in {text}; all else is right"
    readings = list(read_constant(there)) or list(read_factor(there, {"2": 2.0, "0.5": 0.5}))
    told = f"{THERE}{readings[0].removesuffix(' everywhere')}" if readings else ""
    return f"wrong in {text} alone{told}; all else is right"

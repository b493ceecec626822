"""Judging a kernel's results by a golden case's budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.checks import require_choice, require_numbers
from npattn.foreign_arrays import to_numpy
from npattn.ops.context import apart
from npattn.oracle.budgets import zeros_pass
from npattn.oracle.comparison import LEAST_JUDGED, Comparison, Judgement
from npattn.oracle.formats import Format
from npattn.oracle.steps import in_order, steps_meant
from npattn.oracle.tensors import describe_overflow
from npattn.wording import brief, describe_type, did_you_mean, results_meant, several_meant, suggest

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["compare", "require_results"]


@apart  # from what an interrupt leaves of NumPy's handling of errors
def compare(
    case: Case, results: Mapping[str, Any], least_judged: float = LEAST_JUDGED, require: str | None = None
) -> Comparison:
    """Judge results by a case's budgets.

    A result passes if its worst element and its root mean square, both in units of budget, stay within limits, and if
    enough of it can be judged. The worst of many errors is larger than that of a few, so its limit grows with the
    number of elements; a root mean square strays more the fewer its effective degrees of freedom, so its limit grows as
    these fall. The limits are quantiles that normal errors of the budgets' size exceed with probability 1e-5, times
    a slack, since a correct kernel may round a little more often than the reference does:
    `npattn.oracle.budgets.worst_limit` and `rms_limit`.

    Parameters
    ----------
    case : Case
    results : mapping of str to array
    least_judged : float, default 0.5
    require : {None, "all"}, optional

    Returns
    -------
    Comparison
    """
    call = f"{case!r}.compare"
    require_numbers(call, least_judged=least_judged)
    if not 0 <= least_judged <= 1:
        raise ValueError(f"{call}: least_judged={brief(least_judged)}; expected a share, from 0 to 1")
    if require is not None:
        require_choice(call, ["all"], require=require)
    results, judged_by = require_results(call, case, results)
    found = [read_and_judge(judged_by, name, value, least_judged) for name, value in results.items()]
    # Too little of a step may be known to judge it, and its result be right: it tells nothing then.
    found = [j if j.name in case.expected else replace(j, enough=True) for j in found]
    found.sort(key=order_of)
    missing = tuple(name for name in case.expected if name not in results and name not in case.maps)
    judgements = {judgement.name: judgement for judgement in found}
    if judged_by is not case:
        judgements = {name: judgements[name] for name in in_order(case, judgements)}
    return Comparison(repr(case), judgements, missing, require is not None, case)


def require_results(call: str, case: Case, results: Any) -> tuple[dict[str, Any], Case]:
    """Refuse what holds no results, or others than a case's.

    Parameters
    ----------
    call : str
        What a message begins with.
    case : Case
    results : mapping of str to array

    Returns
    -------
    results : dict
        Without the gradients of inputs that have none, where these are None.
    judged_by : Case
        With those steps among its results that are given.

    Raises
    ------
    TypeError
        If it is no mapping.
    ValueError
        If it is empty, or holds a name that is neither a result's nor a step's.
    """
    if not isinstance(results, Mapping):
        example = f"{{{next(iter(case.expected))!r}: ...}}"
        raise TypeError(f"{call}: got {describe_type(results)}; expected a mapping of names to arrays: {example}")
    # What an input without a gradient, noise or a mask, is given: rightly none.
    none = {f"{name}.grad" for name in case.inputs} - case.expected.keys()
    kept = {name: value for name, value in results.items() if value is not None or name not in none}
    if not kept:
        raise ValueError(f"{call}: no results; expected some of {', '.join(case.expected)}")
    judged_by = case.with_steps(kept)
    for name in kept:
        if name not in judged_by.expected:
            gradient = [f"{name}.grad"] if f"{name}.grad" in case.expected else []
            meant = suggest(gradient) or several_meant(name, case.expected)
            likely = results_meant(name, case.expected)
            near = "" if likely else did_you_mean(name, case.expected, 0.6)
            meant = meant or near or suggest([*likely, *steps_meant(case, name)])
            if name in none:
                meant = f": {name.removesuffix('.grad')} has no gradient, leave it out"
            expected = f"(expected some of {', '.join(case.expected)})"
            raise ValueError(f"{call}: unknown result {brief(name)}{meant} {expected}")
    return kept, judged_by


def order_of(judgement: Judgement) -> tuple[bool, bool, bool, float]:
    """Return by what results are sorted in a report."""
    far = max(judgement.worst / judgement.worst_limit, judgement.rms / judgement.rms_limit)
    return judgement.passed, judgement.name.endswith(".grad"), not judgement.trouble, -far


def read_and_judge(case: Case, name: str, value: Any, least_judged: float) -> Judgement:
    """Judge one result as it comes; what can't be read is told in the report, beside the others."""
    if value is None:
        if not name.endswith(".grad"):
            return Judgement(name, "it is None; expected an array or tensor")
        return Judgement(name, "no gradient reached it: it is None, as if backward had not been run or left it out")
    try:
        got = to_numpy(value, "it")
        found = judge(case, name, got, least_judged)
        unread = got.size > 1 and not any(got.strides)  # of a file's result of another shape there is the shape alone
        if found.within or np.iscomplexobj(got) or unread:
            return found
        with np.errstate(all="ignore"):
            return replace(found, numbers=got.astype(np.float64))
    except TypeError as error:
        return Judgement(name, str(error))


def judge(case: Case, name: str, got: np.ndarray, least_judged: float = 0.0) -> Judgement:
    """Judge one result."""
    expected, budget = case.expected[name], case.budget[name]
    if got.shape != expected.shape:
        return Judgement(name, f"its shape is {got.shape}, expected {expected.shape}")
    if np.iscomplexobj(got):
        return Judgement(name, f"its dtype is {got.dtype}, expected real numbers: hand over its real part")
    judged = np.isfinite(budget)
    limit, rms_limit = case.limits[name]
    with np.errstate(all="ignore"):
        numbers = read_saturated(got.astype(np.float64), expected, limit * budget, case.format)
        # An exact infinity, such as the logsumexp of nothing, is met or missed; it has no distance.
        units = np.where(judged & (numbers != expected), np.abs(numbers - expected) / budget, 0)
        rms = np.sqrt(np.sum(np.square(units)) / max(judged.sum(), 1))
    wild = judged & (numbers != expected) & ~(np.isfinite(numbers) & np.isfinite(expected))
    if wild.any():
        where = tuple(map(int, np.argwhere(wild)[0]))
        first = f"the first at [{', '.join(map(str, where))}]: expected {expected[where]:.8g}, got {got[where]!s}"
        trouble = describe_wild(wild, numbers, first, units[judged & ~wild] > limit)
        return Judgement(name, trouble, where=where)
    count = int(judged.sum())
    where = tuple(map(int, np.unravel_index(units.argmax(), units.shape))) if units.size else ()
    return Judgement(
        name,
        worst=float(units[where]) if units.size else 0.0,
        rms=float(rms),
        worst_limit=limit,
        rms_limit=rms_limit,
        where=where,
        expected=float(expected[where]) if units.size else np.nan,
        got=float(numbers[where]) if units.size else np.nan,
        unit=float(budget[where]) if units.size else np.nan,
        outside=float((units > limit).sum() / max(count, 1)),
        unjudged=units.size - count,
        reason=why_not_all(case, name, judged),
        enough=not units.size or (count > 0 and count >= least_judged * units.size),
        zeros_pass=zeros_pass(expected, budget, case.limits[name]),
    )


def describe_wild(wild: np.ndarray, numbers: np.ndarray, first: str, outside: np.ndarray) -> str:
    """Say how many elements are infinite or NaN, or should be infinite, and how many of the others are outside."""
    what = "should be infinite and are not" if np.isfinite(numbers[wild]).all() else "are not finite"
    rest = f"; of the others {outside.mean():.2%} are outside" if outside.any() else ""
    return f"{wild.sum()} of {wild.size} elements {what}, {first}{rest}"


def read_saturated(numbers: np.ndarray, expected: np.ndarray, most: np.ndarray, format: Format) -> np.ndarray:
    """Read what a cast writes for a number beyond an 8-bit format as the number that is meant.

    Some casts write the largest number, for infinities too; others an infinity, or NaN in a format that has none.
    PyTorch, ml_dtypes and GPUs differ in which, so either is right where a kernel may be beyond the largest number: by
    `most` off the exact one.
    """
    if not format.saturates:
        return numbers
    largest = np.copysign(format.largest, expected)
    as_nan = np.isnan(numbers) & (not format.infinite)
    infinite = as_nan | (np.isinf(numbers) & (np.sign(numbers) == np.sign(expected)))
    meant = np.where(infinite & (np.abs(largest - expected) <= most), largest, numbers)
    return np.where(np.isinf(expected) & (infinite | (numbers == largest)), expected, meant)


def why_not_all(case: Case, name: str, judged: np.ndarray) -> str:
    """Say what share of a result can be judged, and why not the rest; nothing if all of it can."""
    unknown = int(np.isnan(case.expected[name]).sum())
    beyond = int((~judged).sum()) - unknown
    reasons = []
    if beyond:
        reasons.append(
            f"of {beyond} because {case.dtype} can't hold what leads to them: try another format or smaller values"
        )
    if unknown:
        overflow = describe_overflow(case.rounded, case.format)
        reasons.append(f"of {unknown} because the exact result is NaN{f', as {overflow}' if overflow else ''}")
    if not reasons:
        return ""
    return f"{judged.mean():.2%} of {judged.size} elements can be judged, not {', and not '.join(reasons)}"

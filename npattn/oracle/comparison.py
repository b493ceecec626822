"""Comparison of a kernel's results with a golden case."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.checks import describe_type, did_you_mean, require_choice, require_numbers
from npattn.foreign_arrays import to_numpy
from npattn.oracle.diagnosis import read_order, read_result
from npattn.oracle.steps import first_wrong, in_order, where_it_begins
from npattn.oracle.tensors import describe_overflow

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["LEAST_JUDGED", "MOST_NAME_WIDTH", "Comparison", "Judgement", "compare"]

MOST_NAME_WIDTH = 36
"""Columns of a table of 80 that a result's name may take; a longer one has a line of its own."""
LEAST_JUDGED = 0.5
"""Share of a result's elements that must have a finite budget, or it does not pass."""


@dataclass(frozen=True)
class Judgement:
    """What was found of one result.

    Attributes
    ----------
    name : str
    trouble : str
        Why the result can't be judged by its errors: another shape, or numbers that are not finite; else empty.
    worst, rms : float
        The largest error and the root mean square of all, in units of budget.
    worst_limit, rms_limit : float
        How large each may be: `npattn.oracle.budgets.worst_limit` and `rms_limit`.
    where : tuple of int
        The element with the largest error, or the first that is not finite.
    expected, got, unit : float
        There: the exact result, the kernel's, and one unit of budget.
    outside : float
        Share of the elements beyond `worst_limit`.
    unjudged : int
        Elements without a finite budget.
    reason : str
        Why these can't be judged; empty if all can.
    enough : bool
        Whether as large a share could be judged as was asked for.
    numbers : numpy.ndarray or None
        A copy of what was given, where it is wrong: what the report's reading reads.
    """

    name: str
    trouble: str = ""
    worst: float = np.inf
    rms: float = np.inf
    worst_limit: float = np.nan
    rms_limit: float = np.nan
    where: tuple[int, ...] = ()
    expected: float = np.nan
    got: float = np.nan
    unit: float = np.nan
    outside: float = 1.0
    unjudged: int = 0
    reason: str = ""
    enough: bool = True
    numbers: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def within(self) -> bool:
        """Whether all that could be judged is within its limits."""
        return not self.trouble and self.worst <= self.worst_limit and self.rms <= self.rms_limit

    @property
    def passed(self) -> bool:
        """Whether a correct kernel may have given this, and enough of it could be judged to say so."""
        return self.within and self.enough


@dataclass(frozen=True)
class Comparison:
    """The report on a kernel's results; as text, a table.

    Attributes
    ----------
    title : str
        What was compared.
    judgements : dict of Judgement
        By name: what is wrong first, of it what forward gives, as gradients follow from it; then troubles, then the
        largest errors. With steps of the case, in order of computation.
    missing : tuple of str
        Results of the case that were not given, but for attention maps.
    required : bool
        Whether all were to be given.
    case : Case or None
        By which they were judged.
    """

    title: str
    judgements: dict[str, Judgement]
    missing: tuple[str, ...] = ()
    required: bool = False
    case: Case | None = field(default=None, repr=False, compare=False)

    @functools.cached_property
    def readings(self) -> dict[str, str]:
        """What wrong results look like, by name, where that can be said: ``"0.8 times expected"``."""
        wrong = {name: one.numbers for name, one in self.judgements.items() if one.numbers is not None}
        judged_by = self.case.with_steps(wrong) if self.case else None
        found = {name: read_result(judged_by, name, numbers) for name, numbers in wrong.items()} if judged_by else {}
        return {name: text for name, text in found.items() if text}

    @property
    def order(self) -> str:
        """Where to look first; empty where the results do not say."""
        wrong = [name for name, one in self.judgements.items() if not one.within]
        right = [name for name, one in self.judgements.items() if one.passed]
        return read_order(self.case, right, wrong) if self.case else ""

    @property
    def passed(self) -> bool:
        """Whether a correct kernel may have given all the results, and all are given that were to be."""
        return all(judgement.passed for judgement in self.judgements.values()) and not (self.required and self.missing)

    @property
    def first_wrong(self) -> str | None:
        """The first of the steps given, in order of computation, that is off; None if none is."""
        return None if self.case is None else first_wrong(self.case, self.judgements)

    @property
    def begins(self) -> list[str]:
        """Lines that say where what is wrong begins; none if nothing is wrong, or nothing is known of it."""
        return [] if self.case is None else where_it_begins(self.case, self.judgements)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        wrong = sum(not judgement.passed for judgement in self.judgements.values())
        partly = any(judgement.unjudged for judgement in self.judgements.values())
        right = "all that can be judged is within its budget" if partly else "every result within its budget"
        faults = [f"{wrong} of {len(self.judgements)} results WRONG"] if wrong else []
        if self.required and self.missing:
            faults.append(f"{len(self.missing)} {'result' if len(self.missing) == 1 else 'results'} NOT GIVEN")
        verdict = ", ".join(faults) or right
        width = max(6, min(MOST_NAME_WIDTH, max(map(len, self.judgements))))
        lines = textwrap.wrap(self.title, 80)
        lines += textwrap.wrap(f"{verdict}; errors in units of each element's budget:", 80)
        lines += [f"{'result':<{width}}  {'worst':>7} {'limit':>5}  {'rms':>7} {'limit':>5} {'outside':>7}"]
        for judgement in self.judgements.values():
            lines += table_lines(judgement, width)
            if judgement.name in self.readings:
                lines += indent(f"reads as: {self.readings[judgement.name]}")
        lines += textwrap.wrap(self.order, 80, subsequent_indent="  ")
        lines += self.begins
        if self.missing:
            lines += textwrap.wrap(f"not given: {', '.join(self.missing)}", 80, subsequent_indent="  ")
        return "\n".join(lines)


def table_lines(judgement: Judgement, width: int) -> list[str]:
    """Write one result's lines of the table."""
    above, name = ([], judgement.name) if len(judgement.name) <= width else ([judgement.name], "")
    if judgement.trouble:
        return [*above, f"{name:<{width}}  WRONG", *indent(judgement.trouble)]
    line = (
        f"{name:<{width}}  {seven_characters(judgement.worst):>7} {judgement.worst_limit:>5.1f}  "
        f"{seven_characters(judgement.rms):>7} {judgement.rms_limit:>5.2f} {judgement.outside:>7.2%}"
    )
    lines = [*above, line + ("" if judgement.passed else " WRONG")]
    if not judgement.within:
        at = ", ".join(map(str, judgement.where))
        lines.append(
            f"  at [{at}]: expected {judgement.expected:.8g}, got {judgement.got:.8g}, budget {judgement.unit:.2g}"
        )
    return lines + indent(judgement.reason)


def indent(text: str) -> list[str]:
    """Fold a sentence into lines under a row of the table."""
    return textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="  ")


def seven_characters(number: float) -> str:
    """Write a number in seven characters."""
    text = f"{number:.3g}"
    return text if len(text) <= 7 else f"{number:.2g}"


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
    if not isinstance(results, Mapping):
        raise TypeError(f"{call}: got {describe_type(results)}; expected a mapping of names to arrays")
    require_numbers(call, least_judged=least_judged)
    if require is not None:
        require_choice(call, ["all"], require=require)
    # What an input without a gradient, noise or a mask, is given: rightly none.
    none = {f"{name}.grad" for name in case.inputs} - case.expected.keys()
    results = {name: value for name, value in results.items() if value is not None or name not in none}
    if not results:
        raise ValueError(f"{call}: no results; expected some of {', '.join(case.expected)}")
    judged_by = case.with_steps(results)
    for name in results:
        if name not in judged_by.expected:
            meant = did_you_mean(name, case.expected, 0.6)
            raise ValueError(f"{call}: unknown result {name!r}{meant} (expected some of {', '.join(case.expected)})")
    found = [read_and_judge(judged_by, name, value, least_judged) for name, value in results.items()]
    # Too little of a step may be known to judge it, and its result be right: it tells nothing then.
    found = [j if j.name in case.expected else replace(j, enough=True) for j in found]
    found.sort(key=order_of)
    missing = tuple(name for name in case.expected if name not in results and name not in case.maps)
    judgements = {judgement.name: judgement for judgement in found}
    if judged_by is not case:
        judgements = {name: judgements[name] for name in in_order(case, judgements)}
    return Comparison(repr(case), judgements, missing, require is not None, case)


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
        return Judgement(name, f"its dtype is {got.dtype}, expected real numbers")
    judged = np.isfinite(budget)
    with np.errstate(all="ignore"):
        numbers = got.astype(np.float64)
        # An exact infinity, such as the logsumexp of nothing, is met or missed; it has no distance.
        units = np.where(judged & (numbers != expected), np.abs(numbers - expected) / budget, 0)
        rms = np.sqrt(np.sum(np.square(units)) / max(judged.sum(), 1))
    wild = judged & (numbers != expected) & ~(np.isfinite(numbers) & np.isfinite(expected))
    if wild.any():
        where = tuple(map(int, np.argwhere(wild)[0]))
        first = f"the first at [{', '.join(map(str, where))}]: expected {expected[where]:.8g}, got {got[where]!s}"
        finite = np.isfinite(numbers[wild]).all()
        what = "should be infinite and are not" if finite else "are not finite"
        return Judgement(name, f"{wild.sum()} of {wild.size} elements {what}, {first}", where=where)
    count = int(judged.sum())
    where = tuple(map(int, np.unravel_index(units.argmax(), units.shape))) if units.size else ()
    limit, rms_limit = case.limits[name]
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
    )


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

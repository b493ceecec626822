"""What is found of a kernel's results by a golden case, and how a report says it."""

from __future__ import annotations

import functools
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from npattn.oracle.diagnosis import read_order, read_result
from npattn.oracle.steps import first_wrong, where_it_begins

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["LEAST_JUDGED", "MOST_NAME_WIDTH", "Comparison", "Judgement"]

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
    zeros_pass : bool
        Whether zeros would pass though not all of it is 0: errors of rounding are as large as the result. That it is
        within its budget says little then.
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
    zeros_pass: bool = False
    numbers: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def within(self) -> bool:
        """Whether all that could be judged is within its limits."""
        return not self.trouble and self.worst <= self.worst_limit and self.rms <= self.rms_limit

    @property
    def passed(self) -> bool:
        """Whether a correct kernel may have given this, and enough of it could be judged to say so."""
        return self.within and self.enough

    @property
    def known_right(self) -> bool:
        """Whether it has passed, and what is wrong would not have."""
        return self.passed and not self.zeros_pass


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
        right = [name for name, one in self.judgements.items() if one.known_right]
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
        blank = [name for name, one in self.judgements.items() if one.passed and one.zeros_pass]
        if blank:
            about = f"zeros would pass too, as rounding may err by as much as the result is: {', '.join(blank)}"
            lines += textwrap.wrap(about, 80, subsequent_indent="  ")
        if self.missing:
            lines += textwrap.wrap(f"not given: {', '.join(self.missing)}", 80, subsequent_indent="  ")
        return "\n".join(lines)


def table_lines(judgement: Judgement, width: int) -> list[str]:
    """Write one result's lines of the table."""
    above, name = ([], judgement.name) if len(judgement.name) <= width else ([judgement.name], "")
    if judgement.trouble:
        line = f"{name:<{width}}  {'-':>7} {'':>5}  {'-':>7} {'':>5} {'-':>7} WRONG"
        return [*above, line, *indent(judgement.trouble)]
    line = (
        f"{name:<{width}}  {seven_characters(judgement.worst):>7} {judgement.worst_limit:>5.1f}  "
        f"{seven_characters(judgement.rms):>7} {judgement.rms_limit:>5.2f} {judgement.outside:>7.2%}"
    )
    lines = [*above, line + ("" if judgement.passed else " WRONG")]
    if not judgement.within:
        if judgement.worst <= judgement.worst_limit:
            lines += indent("no element is beyond its limit, the root mean square of all is; the worst:")
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

"""Results that are written in a narrower format than the case's: all their numbers are the format's."""

from __future__ import annotations

import numpy as np

from npattn.oracle.formats import FORMATS, Format, ulp
from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.mistake import mistake
from npattn.oracle.mistakes.precision import in_format

__all__ = ["format_written", "is_written_in", "rounded_results"]

NARROW = "bfloat16", "float16"
"""Formats that results are written in, the coarsest first: its numbers are nearly all among the other's."""
MIN_BITS = 24.0
"""Digits of wrong results, beyond those of the format, that have to be 0 for it to be no chance."""
MAX_UNITS = 0.5 + 1e-6
"""Units in the last place that a number errs by at most when it is rounded to nearest."""
MAX_CROSSINGS = 3.0
"""How many times more numbers may be rounded otherwise than a right kernel's are expected to be, and one more."""


def format_written(search: Search) -> Format | None:
    """Find the narrower format whose numbers all wrong results are.

    Parameters
    ----------
    search : Search

    Returns
    -------
    Format or None
    """
    for format in (FORMATS[name] for name in NARROW):
        lost = search.case.format.precision - format.precision
        written = [search.ruler.results[name] for name in search.wrong]
        count = sum(int(np.count_nonzero(np.isfinite(a) & (a != 0))) for a in written)
        if lost * count >= MIN_BITS and all(is_written_in(a, format.name) for a in written):
            return format
    return None


def is_written_in(a: np.ndarray, name: str) -> bool:
    """Tell whether all of some numbers are a format's."""
    return np.array_equal(in_format(a, name), a, equal_nan=True)


def rounded_results(search: Search, format: Format) -> list[Candidate]:
    """Say that wrong results are the right ones, rounded to a format, if they are.

    Parameters
    ----------
    search : Search
    format : Format

    Returns
    -------
    list of Candidate
        One, or none.
    """
    case, found = search.case, dict(search.case.expected)
    distances, squares = dict(search.right.distances), dict(search.right.squares)
    for name in search.wrong:
        exact = case.expected[name]
        judged = np.isfinite(case.budget[name])
        worst_limit, _ = case.limits[name]
        allowed = MAX_UNITS * ulp(exact, format) + worst_limit * case.budget[name]
        got, found[name] = search.ruler.results[name], in_format(exact, format.name)
        if not (np.abs(got - exact) <= allowed)[judged].all():
            return []
        # A right kernel's number is another's neighbour where an error takes it across the middle between two.
        crossing = np.minimum(case.budget[name] / ulp(exact, format), 1)[judged].sum()
        if np.count_nonzero((got != found[name])[judged]) > MAX_CROSSINGS * (1 + crossing):
            return []
        distances[name], squares[name] = 0.0, 0.0
    whole = all(is_written_in(a, format.name) for a in search.ruler.results.values())
    what = "results" if whole else "right numbers, written"

    def written(results: dict[str, np.ndarray], *_: object) -> dict[str, np.ndarray]:
        return {n: in_format(a, format.name) if whole or n in search.wrong else a for n, a in results.items()}

    one = mistake("", f"{what} in {format.name}", "forward", lambda run, *given: written(run(*given)))
    return [Candidate(((one, 0),), Misfit(distances, squares), found)]

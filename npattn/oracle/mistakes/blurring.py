"""Mistakes by which some results are lost in errors of rounding, and that others tell of."""

from __future__ import annotations

import dataclasses
import math

from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.distances import DISTANCE_JUST_BEYOND, Misfit
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.pairing import explained, finish, forward_met, spoils
from npattn.oracle.mistakes.running import is_forward

__all__ = ["blurring"]

MOST_LOOKED_AT = 20
"""Mistakes whose own errors are measured."""


def blurring(search: Search) -> list[Candidate]:
    """Look for single mistakes that explain some results, where in all others rounding errs by more than is wrong.

    So it is where a mask that is off makes a softmax see nearly nothing but one key: a gradient that should be 0 but
    for its errors says neither that it is the mistake's nor that it is not.

    Parameters
    ----------
    search : Search
        That has tried mistakes alone.

    Returns
    -------
    list of Candidate
        Of no distance beyond 1 are the results that each explains.
    """
    finish(search)
    near = [one for one in search.tried if one.whole and may_blur(search, one)]
    near.sort(key=lambda one: (one.misfit.worst > DISTANCE_JUST_BEYOND, -len(explained(search, one)), one.misfit.worst))
    found = []
    for one in near[:MOST_LOOKED_AT]:
        if search.clock.now() > search.deadline:
            search.complete = False
            break
        blurred = blurred_by(search, one)
        found += [] if blurred is None else [blurred]
    return found


def may_blur(search: Search, one: Candidate) -> bool:
    """Tell whether a mistake fits but for how little it explains, or explains some of what is wrong and spoils none."""
    if one.misfit.worst <= DISTANCE_JUST_BEYOND:
        return True
    return bool(explained(search, one)) and forward_met(one) and not spoils(search, one)


def blurred_by(search: Search, one: Candidate) -> Candidate | None:
    """Measure a mistake's results in units of its own errors, however large; None where that does not explain them."""
    results = search.forward_of(one.mistakes, search.run)
    if results is None:
        return None
    misfit = search.ruler.measure(results)
    lost = {name for name in search.wrong if misfit.distances[name] > 1} | search.left_by(results)
    grown = misfit.relative_to(search.growth(one.mistakes, results, most=math.inf)).distances
    if lost == search.wrong or any(map(is_forward, lost)) or any(grown[name] > 1 for name in misfit.distances):
        return None
    distances = {name: DISTANCE_JUST_BEYOND if name in lost else d for name, d in misfit.distances.items()}
    return dataclasses.replace(one, misfit=Misfit(distances, misfit.squares), results=results, halves=True)

"""Mistakes that are one: in one place, with the same results, in other words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.catalogue import MISTAKES
from npattn.oracle.mistakes.code_masks import reads_mask
from npattn.oracle.mistakes.narrow_calls import NARROW
from npattn.oracle.mistakes.planting import Site
from npattn.oracle.mistakes.settings import is_setting

__all__ = ["is_narrow", "unlike"]


def unlike(candidates: Sequence[Candidate], *, several_images: bool) -> list[Candidate]:
    """Join what stands in one place and has the same results: the name that stands first, and its twins.

    Where there is but one image, what concerns images comes behind others; what is wrong in the output alone behind
    what is in forward alone, which is the same where nothing reads the step; a mask behind the line that makes it; a
    hyperparameter behind the step that it makes wrong.
    """

    def place(one: Candidate) -> tuple[bool, bool, bool, bool, int]:
        first = one.mistakes[0][0]
        of_image = "image" in first.name and not several_images
        return of_image, first.way == "output", reads_mask(first), is_setting(first), rank_in_catalogue(one)

    found: list[Candidate] = []
    for one in candidates:
        alike = (i for i, other in enumerate(found) if may_be_one(one, other) and same_results(one, other))
        twin = next(alike, None)
        if twin is None:
            found.append(one)
        else:
            first, second = sorted((found[twin], one), key=place)
            told = is_narrow(second) or (len(second.mistakes) == 1 and rank_in_catalogue(second) < 1)
            told = told or of_one_mask(first, second) or of_one_setting(first, second)
            said = (first.mistakes[0][0], *first.twins, *second.twins)
            told = told and not any(says_the_same(one.name, second.mistakes[0][0].name) for one in said)
            known = [second.mistakes[0][0]] if told else []
            others = dict.fromkeys((*first.twins, *second.twins, *known))
            found[twin] = dataclasses.replace(first, twins=tuple(others))
    return found


def may_be_one(one: Candidate, other: Candidate) -> bool:
    """Tell whether two candidates, should they have the same results, are one mistake in other words."""
    return places_of(one) == places_of(other) or of_one_mask(one, other) or of_one_setting(one, other)


def of_one_setting(one: Candidate, other: Candidate) -> bool:
    """Tell whether one is a hyperparameter that is read wrongly, and the other a step that it may make wrong."""
    if len(one.mistakes) + len(other.mistakes) > 2:
        return False
    (first, _), (second, _) = *one.mistakes, *other.mistakes
    return is_setting(first) != is_setting(second) and "backward" not in (first.way, second.way)


def of_one_mask(one: Candidate, other: Candidate) -> bool:
    """Tell whether one is a mask of a system's code that is read otherwise, and both may be what makes it so."""
    if len(one.mistakes) + len(other.mistakes) > 2:
        return False
    (first, _), (second, _) = *one.mistakes, *other.mistakes
    if first.primitive or second.primitive or (first.way == "backward") != (second.way == "backward"):
        return False
    return reads_mask(first) or reads_mask(second)


def says_the_same(one: str, other: str) -> bool:
    """Tell whether two names are one, but for what of the pass is wrong."""
    return other.startswith(one) or one.startswith(other.rpartition(", ")[0] or other)


def is_narrow(one: Candidate) -> bool:
    """Tell whether a candidate is a step in a narrower format."""
    return len(one.mistakes) == 1 and one.mistakes[0][0].name.endswith(tuple(f"in {format}" for format in NARROW))


RANKS = {str(one): -i for i, one in enumerate(reversed(MISTAKES))}
"""By the name of a mistake: how far to the front of the catalogue it stands."""


def rank_in_catalogue(one: Candidate) -> int:
    """Return where the first of a candidate's mistakes stands in the catalogue: 1 where it is made by rule."""
    return RANKS.get(str(one.mistakes[0][0]), 1)


def places_of(one: Candidate) -> set[tuple[str, Site, bool, str]]:
    """Return where mistakes stand, and whether in backward: of a line read wrongly, what is read."""
    return {
        (
            mistake.primitive,
            site,
            mistake.way == "backward",
            mistake.name.rpartition("`")[0] if not mistake.primitive else "",
        )
        for mistake, site in one.mistakes
    }


def same_results(one: Candidate, other: Candidate) -> bool:
    """Tell whether two passes give the same but for rounding."""
    return one.results.keys() == other.results.keys() and all(
        one.results[name].shape == value.shape
        and np.allclose(one.results[name], value, rtol=1e-9, atol=1e-12, equal_nan=True)
        for name, value in other.results.items()
    )

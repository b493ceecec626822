"""What a search has tried: mistakes, and how far their results are from the kernel's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npattn.oracle.mistakes.distances import Misfit, Ruler
from npattn.oracle.mistakes.locating import Place
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.planting import EVERY, Site
from npattn.oracle.mistakes.replaying import Memory

__all__ = ["Candidate", "Passes", "are_apart", "ranked"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mistake, or two, in a place, and how far its results are from the kernel's.

    Attributes
    ----------
    mistakes : tuple of pair
        Each mistake, with the call or calls that it stands in.
    misfit : Misfit
    results : dict of numpy.ndarray
        The exact results of a pass with it, if they fit.
    whole : bool
        Whether backward was run too.
    cut : bool
        Whether backward was run in part.
    halves : bool
        Whether it leaves less than half of what is wrong, however large it makes errors.
    twins : tuple of Mistake
        The catalogue's others that stand there too and have the same results.
    """

    mistakes: tuple[tuple[Mistake, Site], ...]
    misfit: Misfit
    results: dict[str, np.ndarray] = field(default_factory=dict)
    whole: bool = True
    cut: bool = False
    halves: bool = True
    twins: tuple[Mistake, ...] = ()


@dataclass
class Passes:
    """What searches with several results of one case have in common.

    Attributes
    ----------
    places : dict
        Calls that each mistake can stand in.
    found : dict
        Exact results of a pass, by mistakes and their calls; None where there are none.
    growths : dict
        By what they make errors larger, by the same.
    calls : dict
        How often each primitive is called forward, by name.
    tags : dict
        As `locate` returns them.
    memory : Memory
    """

    places: dict[Mistake, list[Site]] = field(default_factory=dict)
    found: dict[Any, Any] = field(default_factory=dict)
    growths: dict[Any, dict[str, float]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    tags: dict[tuple[str, int], Place] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)


def are_apart(one: Candidate, other: Candidate) -> bool:
    """Tell whether two mistakes stand in different calls; of whole passes, whether one is in backward alone."""
    (first, site), (second, other_site) = one.mistakes[0], other.mistakes[0]
    if not (first.primitive or second.primitive):
        return (first.way == "backward") != (second.way == "backward")
    calls = [set(one) if isinstance(one, tuple) else {one} for one in (site, other_site)]
    return first.primitive != second.primitive or (calls[0].isdisjoint(calls[1]) and EVERY not in calls[0] | calls[1])


def ranked(ruler: Ruler, fitting: Sequence[Candidate]) -> list[Candidate]:
    """Sort mistakes whose results fit, the likeliest first; of equals the single ones, and those in one place."""
    best = sorted(fitting, key=lambda one: sum(one.misfit.squares.values()))

    def place(one: Candidate) -> tuple[int, int, bool]:
        likelihood = round(ruler.better(one.misfit, best[0].misfit))
        return -likelihood, len(one.mistakes), not one.mistakes[0][0].primitive

    return sorted(best, key=place)

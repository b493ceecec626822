"""Pairs of mistakes, where no single one has a kernel's results."""

from __future__ import annotations

from npattn.oracle.mistakes.candidates import Candidate, are_apart
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.ordering import Order
from npattn.oracle.mistakes.running import is_forward

__all__ = ["pairs"]

MOST_LED = 5
"""Mistakes in backward, each of which explains some results, that are tried beside all that may explain the others."""


def pairs(search: Search, most: int = 40) -> list[Candidate]:
    """Try pairs of mistakes in different places that together explain all that is wrong.

    Parameters
    ----------
    search : Search
        That has tried mistakes alone.
    most : int, default 40
        How many of those that explain some results are tried beside others.
    """
    finish(search)
    partial = [one for one in search.tried if explained(search, one) and not spoils(search, one)]
    partial.sort(key=lambda one: (-len(one.misfit.within()), one.misfit.worst))
    order, found = search.order(), list[Candidate]()
    for i, one in enumerate(partial[:most]):
        rest = search.wrong - explained(search, one)
        beside = [other for other in partial[:i] if rest <= explained(search, other)]
        for other in beside + behind(search, one, order if i < MOST_LED else None):
            if search.clock.now() > search.deadline:
                search.complete = False
                return found
            if are_apart(one, other):
                pair = search.try_mistakes(*other.mistakes, *one.mistakes)
                if pair is not None and pair.misfit.fits:
                    found.append(pair)
        if found:
            break
    return found


def finish(search: Search) -> None:
    """Run to the end what was left where the first result was off: it may explain others."""
    for i, one in enumerate(search.tried):
        if search.clock.now() > search.deadline:
            search.complete = False
            break
        if one.cut:
            search.tried[i] = search.try_mistakes(*one.mistakes, whole=True) or one


def behind(search: Search, one: Candidate, order: Order | None) -> list[Candidate]:
    """List mistakes in backward that may stand beside one: whose forward is met, or that explains some results.

    In backward alone, those that all feed what the first leaves wrong; none without an order.
    """
    late = [mistake for mistake in search.places if mistake.way == "backward"]
    places = [(mistake, site) for mistake in late for site in search.places[mistake]]
    if not search.forward_wrong and order is not None:
        rest = search.wrong - explained(search, one)
        places = [place for place in places if rest <= (order.feeds(*place) or set())]
    elif not (search.forward_wrong and forward_met(one)):
        return []
    return [Candidate((place,), one.misfit) for place in places]


def forward_met(one: Candidate) -> bool:
    """Tell whether all that forward gives is that of a mistake."""
    return all(d <= 1 for name, d in one.misfit.distances.items() if is_forward(name))


def explained(search: Search, one: Candidate) -> set[str]:
    """Name the wrong results that are those of a mistake."""
    return (search.wrong & one.misfit.within()) if one.whole else set()


def spoils(search: Search, one: Candidate) -> bool:
    """Tell whether a mistake makes wrong what is right: another would have to undo that, as no two are likely to."""
    return any(distance > 1 for name, distance in one.misfit.distances.items() if name not in search.wrong)

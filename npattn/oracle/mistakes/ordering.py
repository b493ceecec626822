"""The order in which mistakes are tried: those first that may explain what is wrong, and leave what is right."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from npattn.oracle.mistakes.locating import Place
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.planting import EVERY, Site

__all__ = ["FORWARD", "Fed", "Order", "calls_in", "with_every"]

NUM_TURNS = 8
"""Parts of the mistakes of each call that are tried before the next part of another's."""
LATE_TURNS = 3
"""Turns by which mistakes in some calls of several are late."""
SPARING_TURNS = 4
"""Turns by which mistakes are late for each doubling of the results, and one, that they would leave right."""
UNKNOWN_TURNS = 6
"""Turns by which those are late of which that is unknown."""
FORWARD = "carried", "both", "forward", "weights", "logsumexp"
"""Ways of mistakes that forward's results show, in the order in which they are tried."""
SUMS = ("add",)
"""Primitives that a system calls for many reasons: a mistake is not made in every call."""

Fed = Mapping[tuple[str, int], tuple[set[str], set[str]]]
"""Results that are made from what each call computes: forward and back, and back alone."""


class Order:
    """Sorts mistakes by when they are tried.

    Parameters
    ----------
    places : mapping
        Calls that each mistake can stand in.
    calls : mapping of int
        How often each primitive is called forward.
    fed : mapping
    wrong : set of str
        Names of the results that are not as they should be.
    given : set of str
        Names of all results.
    forward_wrong : bool
        Whether some of forward's are wrong.
    first, last : tuple of str, optional
        Ends of names of mistakes that come first of their call's, and last of all: of formats whose errors are as large
        as the kernel's, and of those whose errors are none in the kernel's.
    """

    def __init__(
        self,
        places: Mapping[Mistake, Sequence[Site]],
        calls: Mapping[str, int],
        fed: Fed,
        *,
        wrong: set[str],
        given: set[str],
        forward_wrong: bool,
        first: tuple[str, ...] = (),
        last: tuple[str, ...] = (),
    ) -> None:
        self.places, self.calls, self.fed = places, calls, fed
        self.wrong, self.given, self.forward_wrong = wrong, given, forward_wrong
        self.first, self.last = first, last

    def feeds(self, mistake: Mistake, site: Site) -> set[str] | None:
        """Name the results that are made from what the calls compute that a mistake stands in; None if unknown."""
        numbers = calls_in(site, self.places[mistake])
        if not mistake.primitive or any((mistake.primitive, number) not in self.fed for number in numbers):
            return None
        back = mistake.way == "backward"
        return set().union(*(self.fed[mistake.primitive, number][back] for number in numbers))

    def one_by_one(self) -> Iterator[tuple[Mistake, Site]]:
        """Yield mistakes with their places, those carried through backward first, and last what is unlikely."""
        late = ("backward",) if self.forward_wrong else FORWARD
        order = (*FORWARD, "backward")
        ranked = sorted(self.places, key=lambda one: (one.way in late, order.index(one.way)))
        for mistake in ranked:
            if not (self.forward_wrong and mistake.way == "backward"):
                for site in self.places[mistake]:
                    yield mistake, site

    def in_turn(self, places: Sequence[tuple[Mistake, Site]]) -> tuple[list[Any], list[Any]]:
        """Sort mistakes by when they are tried, and part them by whether they may explain all that is wrong.

        A part of every call's in turn, the sooner the less is made from a call that is right: were such a mistake
        there, most of that would be wrong, but for what it changes within the budget.
        """
        calls: dict[Any, dict[str, int]] = {}
        for mistake, site in places:
            names = calls.setdefault(call_of(mistake, site), {})
            names.setdefault(mistake.name, len(names))
        likely: list[Any] = []
        unlikely: list[Any] = []
        for place in places:
            mistake, site = place
            feeds = self.feeds(mistake, site)
            names = calls[call_of(mistake, site)]
            spared = 0 if feeds is None else len(feeds & self.given - self.wrong)
            numbers = calls_in(site, self.places[mistake])
            back = mistake.way == "backward" or min(numbers) >= self.calls.get(mistake.primitive, max(numbers) + 1)
            late = LATE_TURNS * isinstance(site, tuple)
            turn = 0 if mistake.name.endswith(self.first) else NUM_TURNS * names[mistake.name] // len(names)
            other_way = back == self.forward_wrong  # of forward where that is right, and the reverse
            key = (
                mistake.name.endswith(self.last),
                other_way,
                late + turn + (UNKNOWN_TURNS if feeds is None else SPARING_TURNS * math.log2(1 + spared)),
                0 if feeds is None else len(feeds),
            )
            (likely if feeds is None or self.wrong <= feeds else unlikely).append((key, place))
        for group in likely, unlikely:
            group.sort(key=lambda pair: pair[0])
        return [place for _, place in likely], [place for _, place in unlikely]


def calls_in(site: Site, possible: Sequence[Site]) -> list[int]:
    """List the calls that a site is, of those that a mistake can stand in."""
    if site == EVERY:
        return [number for number in possible if isinstance(number, int) and number != EVERY]
    return list(site) if isinstance(site, tuple) else [site]


def call_of(mistake: Mistake, site: Site) -> tuple[str, Site, bool]:
    """Name the call that a mistake stands in; of whole passes those that are read wrongly are apart."""
    return mistake.primitive, site, not mistake.primitive and mistake.plain is not None


def with_every(
    places: Mapping[Mistake, Sequence[int]],
    kinds: Mapping[tuple[str, int], Any] | None = None,
    tags: Mapping[tuple[str, int], Place] | None = None,
) -> dict[Mistake, list[Site]]:
    """Let mistakes that can stand in several calls stand in all of them at once too.

    Parameters
    ----------
    places : mapping
    kinds : mapping, optional
        By the primitive's name and the call's number: what calls that are alike have in common. A mistake can stand in
        those alone too.
    tags : mapping, optional
        As `locate` returns them: it can stand in all calls of one line.
    """
    found: dict[Mistake, list[Site]] = {}
    known: dict[tuple[str, tuple[int, ...]], list[Site]] = {}
    for one, numbers in places.items():
        key = one.primitive, tuple(numbers)
        if key not in known:
            known[key] = [*numbers]
            if len(numbers) > 1 and one.primitive not in SUMS:
                known[key] += [EVERY, *groups_of(one.primitive, numbers, kinds or {}, tags or {})]
        found[one] = list(known[key])
    return found


def groups_of(
    primitive: str, numbers: Sequence[int], kinds: Mapping[tuple[str, int], Any], tags: Mapping[tuple[str, int], Place]
) -> list[tuple[int, ...]]:
    """List calls that are alike, and those of one line, where they are several and not all."""
    groups: dict[Any, list[int]] = collections.defaultdict(list)
    for number in numbers:
        if (primitive, number) in kinds:
            groups[repr(kinds[primitive, number])].append(number)
        if (primitive, number) in tags and tags[primitive, number].tag:
            groups[tags[primitive, number].tag].append(number)
    found = (tuple(group) for group in groups.values() if 1 < len(group) < len(numbers))
    return list(dict.fromkeys(found))

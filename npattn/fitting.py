"""Which hyperparameters a system has, given the shapes of its parameters."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from npattn.candidates import (
    COMMON_NUMBERS,
    Shape,
    default_of,
    is_integer,
    kind_of,
    likely_numbers,
    solve,
    values,
)
from npattn.variations import (
    Made,
    Path,
    Variation,
    agreement,
    at,
    declared,
    has_own_default,
    hyperparameters,
    solids,
    vary,
)

if TYPE_CHECKING:
    from npattn.module import Module

__all__ = ["search", "search_equals"]

MAX_CHANGES = 3
"""How many hyperparameters are changed at most."""
MAX_KEPT = 2
"""How many values of each hyperparameter, the most promising ones, are kept for the next change."""
MAX_STARTS = 4, 2
"""How many systems, the most promising ones, the next change is tried on: others, and whose change overrides a rule."""
MAX_IDLE = 8
"""Values of a hyperparameter that change no shape, after which it has no say in them."""
SEARCH_SECONDS = 0.3
"""After which the search ends with nothing found: several times what the systems here take."""


def search(
    module: Module,
    given: Mapping[str, Shape],
    alike: Callable[[dict[str, Shape], dict[str, Shape]], bool],
    made: Made | None = None,
) -> Variation | None:
    """Find the system whose parameters have the given shapes, by changing as few hyperparameters as possible.

    At first each is changed by itself; the most promising systems so found are where the next change starts from. Axes
    of length 1 are not compared.

    Parameters
    ----------
    module : Module
    given : mapping of str to tuple of int
    alike : callable
        ``alike(shapes, wanted)`` tells whether shapes will do under other names, where none have these.
    made : dict, optional
        What an earlier search for the same shapes has made; what this one makes is added.

    Returns
    -------
    Variation or None
    """
    try:
        return Search(module, given, {} if made is None else made).explore(alike)
    except TimeoutError:
        return None


def search_equals(found: Variation, module: Module, given: Mapping[str, Shape], made: Made) -> list[Variation]:
    """List the systems whose parameters have the given shapes too, each by changing another single hyperparameter.

    These are of the same kind as the one that is changed in what was `found`: where that has a number of its own by
    default, so have they. One that overrides a rule which others are made by, or has no default, is none.

    Parameters
    ----------
    found : Variation
        What `search` found.
    module, given, made
        Those of that search.

    Returns
    -------
    list of Variation
    """
    equals: list[Variation] = []
    with contextlib.suppress(TimeoutError):
        equals += Search(module, given, made).equals(found)
    return equals


class Search:
    """A search among a system's variations, each of which is made once, until a time of this thread.

    Parameters
    ----------
    module : Module
    given : mapping of str to tuple of int
    made : dict
    """

    def __init__(self, module: Module, given: Mapping[str, Shape], made: Made) -> None:
        self.module, self.wanted, self.made = module, solids(given), made
        self.likely = likely_numbers(given.values())
        self.end = time.thread_time() + SEARCH_SECONDS

    def change(self, start: Variation | None, changes: Mapping[Path, Any]) -> Variation | None:
        """Change some hyperparameters of a variation.

        Raises
        ------
        TimeoutError
        """
        changes = {**start.changes, **changes} if start else changes
        key = frozenset((path, repr(value)) for path, value in changes.items())
        if key not in self.made:
            if time.thread_time() > self.end:
                raise TimeoutError
            self.made[key] = None
            with contextlib.suppress(Exception):  # a system that refuses a value, or fails on it, is none to suggest
                module = vary(self.module, changes)
                shapes = solids(declared(module))
                self.made[key] = Variation(module, shapes, agreement(shapes, self.wanted), changes)
        return self.made[key]

    def explore(self, alike: Callable[..., bool]) -> Variation | None:
        """Try one change, then several.

        Raises
        ------
        TimeoutError
        """
        wanted, unchanged = self.wanted, self.change(None, {})
        if unchanged is None or unchanged.shapes == wanted:
            return None
        before = unchanged.shapes
        close = len(wanted.items() & before.items()) >= len(wanted) / 2  # then what differs rarely follows from several
        several = wanted.keys() == before.keys() and len(wanted.items() - before.items()) > 1  # one has its own reason
        tries = [(self.likely, MAX_CHANGES, close)]
        if several or not close:
            tries.append((self.likely, 2, False) if close else (COMMON_NUMBERS, 1, False))
        for numbers, changes, nearer in tries:
            starts = [unchanged]
            for _ in range(changes):
                better, renamed = [], None
                for start, path, field in ((s, *found) for s in starts for found in hyperparameters(s.module)):
                    if path in start.changes:
                        continue
                    least, found = start.score if nearer else -math.inf, []
                    for change in self.attempts(start, path, field, numbers):
                        if change.shapes == wanted:
                            return change
                        if renamed is None and alike(change.shapes, wanted):
                            renamed = change
                        if change.score > max(least, -len(change.shapes.keys() ^ wanted.keys())):
                            found.append(change)
                    found = sorted(found, key=lambda change: -change.score)[:MAX_KEPT]
                    better += [(default_of(field) is None, change) for change in found]
                if renamed:
                    return renamed
                better.sort(key=lambda each: -each[1].score)
                kinds = [[change for rule, change in better if rule == own][: MAX_STARTS[own]] for own in (False, True)]
                starts = kinds[0] + kinds[1]  # what overrides a rule that others are made by comes last
        return self.in_twos(unchanged) if several else None

    def equals(self, found: Variation) -> Iterator[Variation]:
        """Yield what other hyperparameters of the same kind would do each by itself where a single one does.

        Raises
        ------
        TimeoutError
        """
        fields, unchanged = dict(hyperparameters(self.module)), self.change(None, {})
        if (
            unchanged is None
            or len(found.changes) > 1
            or not all(has_own_default(fields[path]) for path in found.changes)
        ):
            return
        for path, field in fields.items():
            if path not in found.changes and has_own_default(field):
                fits = (c for c in self.attempts(unchanged, path, field, self.likely) if c.shapes == self.wanted)
                yield from itertools.islice(fits, 1)

    def attempts(
        self, start: Variation, path: Path, field: dataclasses.Field, numbers: list[int]
    ) -> Iterator[Variation]:
        """Change one hyperparameter to all that it may be, and yield what has other shapes."""
        named = start.shapes.keys() == self.wanted.keys()
        others, idle = values(field, at(start.module, path), numbers, far=not named), 0
        for value in {repr(value): value for value in (*self.solved(start, path, field), *others)}.values():
            change = self.change(start, {path: value})
            if change and change.shapes != start.shapes:
                yield change
                idle = -len(numbers)
            idle += 1
            if idle == MAX_IDLE:
                return

    def solved(self, start: Variation, path: Path, field: dataclasses.Field) -> list[Any]:
        """List the values at which axes that grow in proportion with a hyperparameter are as wanted."""

        def shapes_at(value: Any) -> dict[str, Shape]:
            change = self.change(start, {path: value})
            return change.shapes if change else start.shapes

        return solve(field, at(start.module, path), shapes_at, self.wanted)

    def in_twos(self, start: Variation) -> Variation | None:
        """Change two integers at once where one of them is refused by itself: heads that don't divide the channels."""
        fields = {path: field for path, field in hyperparameters(self.module) if is_integer(kind_of(field))}
        solved = [
            (path, value) for path, field in fields.items() for value in self.solved(start, path, field) or self.likely
        ]
        refused = [(path, value) for path, value in solved if not self.change(None, {path: value})]
        for (path, value), other, number in itertools.product(refused, fields, self.likely):
            change = self.change(None, {path: value, other: number}) if other != path else None
            if change and change.shapes == self.wanted:
                return change
        return None

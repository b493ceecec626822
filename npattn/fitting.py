"""Which hyperparameters a system has, given the shapes of its parameters."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import operator
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from npattn.candidates import (
    COMMON_NUMBERS,
    Shape,
    default_of,
    has_any_length,
    is_integer,
    kind_of,
    likely_numbers,
    solve,
    values,
)
from npattn.synonyms import solid

if TYPE_CHECKING:
    from npattn.module import Module

__all__ = ["Made", "Shape", "Variation", "declared", "default_of", "search", "search_equals"]

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


Path = tuple[str, ...]
"""Where a hyperparameter stands: its name, after those of the systems around it."""


@dataclasses.dataclass(frozen=True)
class Variation:
    """A system made from another by changing some hyperparameters.

    Attributes
    ----------
    module : Module
    shapes : dict of str to tuple of int
        Of its parameters and buffers, without axes of length 1.
    score : int
        How much they agree with those that are wanted.
    changes : mapping of tuple of str to object
        What was changed, by where it stands.
    """

    module: Module
    shapes: dict[str, Shape]
    score: int
    changes: Mapping[Path, Any]

    @property
    def labels(self) -> tuple[str, ...]:
        """What was changed, as text."""
        fields = dict(hyperparameters(self.module))
        return tuple(
            ".".join(path) + (f" of length {len(value)}" if has_any_length(fields[path], value) else f"={value!r}")
            for path, value in self.changes.items()
        )


Made = dict[frozenset[tuple[Path, str]], Variation | None]
"""Variations by their changes as text; None where the system refuses them, or fails on them."""


def declared(module: Module) -> dict[str, Shape]:
    """List the shapes of a system's parameters and buffers."""
    return module.parameter_shapes() | module.buffer_shapes()


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


def solids(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Leave out the axes of length 1 of all shapes."""
    return {name: solid(shape) for name, shape in shapes.items()}


def agreement(shapes: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> int:
    """Count the axes of a wanted length, less the names that only one side has."""
    common = shapes.keys() & wanted.keys()
    axes = sum(equal_axes(shapes[name], wanted[name]) for name in common)
    return axes - len(shapes.keys() ^ wanted.keys())


def equal_axes(a: Shape, b: Shape) -> int:
    """Count the axes that two shapes have in common; wherever they stand, if some axis has but one of them."""
    if a == b:
        return len(a)
    return sum(map(operator.eq, a, b)) if len(a) == len(b) else sum(min(a.count(n), b.count(n)) for n in set(a))


def hyperparameters(module: Module) -> list[tuple[Path, dataclasses.Field]]:
    """List a system's hyperparameters and those of the systems within it; those that may be left out come first."""
    found: list[tuple[Path, dataclasses.Field]] = []
    fields = [field for field in dataclasses.fields(module) if field.init]
    for field in sorted(fields, key=lambda field: default_of(field) is dataclasses.MISSING):
        value = getattr(module, field.name)
        if dataclasses.is_dataclass(value):
            found += [((field.name, *path), inner) for path, inner in hyperparameters(cast("Module", value))]
        else:
            found.append(((field.name,), field))
    return found


def has_own_default(field: dataclasses.Field) -> bool:
    """Tell whether a hyperparameter may be left out and overrides no rule that others are made by."""
    return default_of(field) not in (None, dataclasses.MISSING)


def at(module: Module, path: Path) -> Any:
    """Return a hyperparameter's value."""
    return operator.attrgetter(".".join(path))(module)


def vary(module: Module, changes: Mapping[Path, Any]) -> Module:
    """Return a module with some hyperparameters changed, its own or those of systems within it."""
    own: dict[str, Any] = {path[0]: value for path, value in changes.items() if len(path) == 1}
    inner = {path[0]: vary(getattr(module, path[0]), below(path[0], changes)) for path in changes if len(path) > 1}
    return dataclasses.replace(module, **own, **inner)


def below(name: str, changes: Mapping[Path, Any]) -> dict[Path, Any]:
    """Select the changes of a system within another."""
    return {path[1:]: value for path, value in changes.items() if path[0] == name}

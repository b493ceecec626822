"""Which hyperparameters a system has, given the shapes of its parameters."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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

__all__ = ["Shape", "Variation", "declared", "default_of", "search"]

MAX_CHANGES = 3
"""How many hyperparameters are changed at most."""
MAX_KEPT = 2
"""How many values of each hyperparameter, the most promising ones, are kept for the next change."""
MAX_STARTS = 4
"""How many systems, the most promising ones, the next change is tried on; as many whose change overrides a rule."""
MAX_IDLE = 8
"""Values of a hyperparameter that change no shape, after which it has no say in them."""
SEARCH_SECONDS = 0.3
"""After which the search ends with nothing found: several times what the systems here take."""


@dataclasses.dataclass(frozen=True)
class Variation:
    """A system made from another by changing some hyperparameters.

    Attributes
    ----------
    module : Module
    paths : tuple of tuple of str
        Which were changed.
    labels : tuple of str
        The same as text, with their values.
    """

    module: Module
    paths: tuple[tuple[str, ...], ...] = ()
    labels: tuple[str, ...] = ()


def declared(module: Module) -> dict[str, Shape]:
    """List the shapes of a system's parameters and buffers."""
    return module.parameter_shapes() | module.buffer_shapes()


def search(
    module: Module, given: Mapping[str, Shape], alike: Callable[[dict[str, Shape], dict[str, Shape]], bool]
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

    Returns
    -------
    Variation or None
    """
    try:
        return explore(module, given, alike, end=time.thread_time() + SEARCH_SECONDS)
    except TimeoutError:
        return None


def explore(module: Module, given: Mapping[str, Shape], alike: Callable[..., bool], end: float) -> Variation | None:
    """Search until a time of this thread.

    Raises
    ------
    TimeoutError
    """
    wanted, before, likely = solids(given), solids(declared(module)), likely_numbers(given.values())
    close = len(wanted.items() & before.items()) >= len(wanted) / 2  # then what differs rarely follows from several
    if wanted == before:
        return None
    several = wanted.keys() == before.keys() and len(wanted.items() - before.items()) > 1  # one has its own reason
    tries = [(likely, MAX_CHANGES, close)]
    if several or not close:
        tries.append((likely, 2, False) if close else (COMMON_NUMBERS, 1, False))
    for numbers, changes, nearer in tries:
        starts = [Variation(module)]
        for _ in range(changes):
            better, renamed = [], None
            for start, path, field in ((s, *found) for s in starts for found in hyperparameters(s.module)):
                if path in start.paths:
                    continue
                least, scores = agreement(solids(declared(start.module)), wanted) if nearer else -math.inf, []
                for change, shapes in attempts(start, path, field, numbers, wanted, end=end):
                    if shapes == wanted:
                        return change
                    if renamed is None and alike(shapes, wanted):
                        renamed = change
                    score = agreement(shapes, wanted)
                    if score > max(least, -len(shapes.keys() ^ wanted.keys())):
                        scores.append((score, change))
                scores = sorted(scores, key=lambda each: -each[0])[:MAX_KEPT]
                better += [(default_of(field) is None, -score, change) for score, change in scores]
            if renamed:
                return renamed
            better.sort(key=lambda each: each[1])
            kinds = [[change for rule, _, change in better if rule == own][:MAX_STARTS] for own in (False, True)]
            starts = kinds[0] + kinds[1]  # what overrides a rule that others are made by comes last
    both = in_twos(module, likely, end) if several else ()
    return next((change for change, shapes in both if shapes == wanted), None)


def attempts(
    start: Variation,
    path: tuple[str, ...],
    field: dataclasses.Field,
    numbers: list[int],
    wanted: Mapping[str, Shape],
    *,
    end: float,
) -> Iterator[tuple[Variation, dict[str, Shape]]]:
    """Change one hyperparameter to all that it may be, and yield what has other shapes, with them."""
    before, idle = solids(declared(start.module)), 0
    current = start.module
    for name in path:
        current = getattr(current, name)

    def shapes_at(value: Any) -> dict[str, Shape]:
        if time.thread_time() > end:
            raise TimeoutError
        try:
            return solids(declared(vary(start.module, path, value)))
        except Exception:  # a system that refuses the value, or fails on it, is none to suggest
            return before

    solved = solve(field, current, shapes_at, wanted)
    for value in {repr(value): value for value in (*solved, *values(field, current, numbers))}.values():
        shapes = shapes_at(value)
        if shapes != before:
            module = vary(start.module, path, value)
            label = ".".join(path) + (f" of length {len(value)}" if has_any_length(field, value) else f"={value!r}")
            yield Variation(module, (*start.paths, path), (*start.labels, label)), shapes
            idle = -len(numbers)
        idle += 1
        if idle == MAX_IDLE:
            return


def in_twos(module: Module, numbers: list[int], end: float) -> Iterator[tuple[Variation, dict[str, Shape]]]:
    """Change two integers at once where one of them is refused by itself: heads that don't divide the channels."""

    def change(**values: int) -> tuple[Variation, dict[str, Shape]] | None:
        if time.thread_time() > end:
            raise TimeoutError
        with contextlib.suppress(Exception):
            changed = dataclasses.replace(module, **values)
            labels = tuple(f"{name}={value}" for name, value in values.items())
            return Variation(changed, tuple((name,) for name in values), labels), solids(declared(changed))
        return None

    names = [path[0] for path, field in hyperparameters(module) if len(path) == 1 and is_integer(kind_of(field))]
    refused = [(name, value) for name in names for value in numbers if not change(**{name: value})]
    for (name, value), other, number in itertools.product(refused, names, numbers):
        found = change(**{name: value, other: number}) if other != name else None
        if found:
            yield found


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
    return sum(map(operator.eq, a, b)) if len(a) == len(b) else (Counter(a) & Counter(b)).total()


def hyperparameters(module: Module) -> list[tuple[tuple[str, ...], dataclasses.Field]]:
    """List a system's hyperparameters and those of the systems within it; those that may be left out come first."""
    found: list[tuple[tuple[str, ...], dataclasses.Field]] = []
    fields = [field for field in dataclasses.fields(module) if field.init]
    for field in sorted(fields, key=lambda field: default_of(field) is dataclasses.MISSING):
        value = getattr(module, field.name)
        if dataclasses.is_dataclass(value):
            found += [((field.name, *path), inner) for path, inner in hyperparameters(cast("Module", value))]
        else:
            found.append(((field.name,), field))
    return found


def vary(module: Module, path: Sequence[str], value: Any) -> Module:
    """Return a module with one hyperparameter changed, its own or that of a system within it."""
    name, *inner = path
    return dataclasses.replace(module, **{name: vary(getattr(module, name), inner, value) if inner else value})

"""Which hyperparameters a system has, given the shapes of its parameters."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from npattn.synonyms import solid

if TYPE_CHECKING:
    from npattn.module import Module

__all__ = ["Shape", "Variation", "declared", "default_of", "search"]

Shape = tuple[int, ...]

MAX_SIZE = 2**16
"""The largest axis of which a hyperparameter is guessed."""
MAX_CHANGES = 3
"""How many hyperparameters are changed at most."""
MAX_SIZES = 8
"""How many lengths of axes are reckoned with."""
MAX_KEPT = 2
"""How many values of each hyperparameter, the most promising ones, are kept for the next change."""
MAX_STARTS = 4
"""How many systems, the most promising ones, the next change is tried on."""
MAX_IDLE = 8
"""Values of a hyperparameter that change no shape, after which it has no say in them."""
COMMON_NUMBERS = [*range(1, 65), *(2**n for n in range(7, 13))]
"""What hyperparameters often are."""
PAIR = "tuple[int, int]"
"""The type of height and width."""
SEARCH_SECONDS = 0.5
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
    wanted, before = solids(given), solids(declared(module))
    close = len(wanted.items() & before.items()) >= len(wanted) / 2  # then what differs rarely follows from several
    tries = [(likely_numbers(given.values()), MAX_CHANGES), *([] if close else [(COMMON_NUMBERS, 1)])]
    for numbers, changes in tries:
        starts = [Variation(module)]
        for _ in range(changes):
            better, renamed = [], None
            for start, path, field in ((s, *found) for s in starts for found in hyperparameters(s.module)):
                if path in start.paths:
                    continue
                least, scores = agreement(solids(declared(start.module)), wanted) if close else -math.inf, []
                for change, shapes in attempts(start, path, field, numbers, end):
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
            better.sort(key=lambda each: each[:2])  # what overrides a rule that others are made by comes last
            starts = [change for *_, change in better[:MAX_STARTS]]
    return None


def attempts(
    start: Variation, path: tuple[str, ...], field: dataclasses.Field, numbers: list[int], end: float
) -> Iterator[tuple[Variation, dict[str, Shape]]]:
    """Change one hyperparameter to all that it may be, and yield what has other shapes, with them."""
    before, idle = solids(declared(start.module)), 0
    current = start.module
    for name in path:
        current = getattr(current, name)
    for value in {repr(value): value for value in values(field, current, numbers)}.values():
        if time.thread_time() > end:
            raise TimeoutError
        try:
            module = vary(start.module, path, value)
            shapes = solids(declared(module))
        except Exception:  # a system that refuses the value, or fails on it, is none to suggest
            continue
        if shapes != before:
            label = ".".join(path) + (f" of length {len(value)}" if has_any_length(field, value) else f"={value!r}")
            yield Variation(module, (*start.paths, path), (*start.labels, label)), shapes
            idle = -len(numbers)
        idle += 1
        if idle == MAX_IDLE:
            return


def solids(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Leave out the axes of length 1 of all shapes."""
    return {name: solid(shape) for name, shape in shapes.items()}


def agreement(shapes: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> int:
    """Count the axes of a wanted length, less the names that only one side has."""
    common = shapes.keys() & wanted.keys()
    axes = sum(a == b for name in common for a, b in zip(shapes[name], wanted[name], strict=False))
    return axes - len(shapes.keys() ^ wanted.keys())


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


def default_of(field: dataclasses.Field) -> Any:
    """Return a field's default."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def has_any_length(field: dataclasses.Field, value: Any) -> bool:
    """Tell whether a hyperparameter is a tuple of as many numbers as one likes, which no shape tells."""
    return isinstance(value, tuple) and not field.metadata.get("options") and PAIR not in kind_of(field)


def kind_of(field: dataclasses.Field) -> str:
    """Return a field's type as text."""
    return field.type.__name__ if isinstance(field.type, type) else str(field.type)


def values(field: dataclasses.Field, current: Any, numbers: list[int]) -> Iterable[Any]:
    """List the values worth a try for a hyperparameter of a kind: integer, boolean, choice, pair, tuple."""
    kind, options = kind_of(field), field.metadata.get("options", ())
    default: list[Any] = [] if default_of(field) is dataclasses.MISSING else [default_of(field)]
    others: list[Any] = []
    if isinstance(current, bool):
        others = [not current]
    elif options:
        several = (some for size in range(1, len(options) + 1) for some in itertools.combinations(options, size))
        others = list(several if isinstance(current, tuple) else options)
    elif PAIR in kind:
        others = [*sides(numbers), *itertools.product(sides(numbers), repeat=2)]
    elif isinstance(current, tuple):
        others = [current[:size] for size in range(len(current) - 1, 0, -1)]
        others += [current + current[-1:] * more for more in range(1, 4)]
    elif literal := re.search(r"Literal(\[.*\])", kind):
        others = ast.literal_eval(literal[1])
    elif re.fullmatch(r"int|Optional\[int\]|int \| None|None \| int", kind.removeprefix("typing.")):
        scales = (current * 2, current // 2, current * 4, current // 4) if current else (2, 4, 8)
        others = [*numbers, *scales]  # no shape tells how often a map is halved
    return [value for value in (*default, *others) if value != current]


def sides(numbers: Iterable[int]) -> list[int]:
    """List the sides of maps between whose positions there are so many offsets, along an axis or in a square.

    Examples
    --------
    >>> sides([13, 96, 225])
    [7, 113, 8]
    """
    roots = ((n, math.isqrt(n)) for n in numbers if n % 2)
    found = (side for n, root in roots for side in [(n + 1) // 2, *([(root + 1) // 2] if root**2 == n else [])])
    return list(dict.fromkeys(side for side in found if side > 1))[:MAX_SIZES]


def likely_numbers(shapes: Iterable[Shape]) -> list[int]:
    """List integers that hyperparameters may be, given the shapes that follow from them.

    Examples
    --------
    >>> likely_numbers([(8, 64, 1, 1)])
    [8, 64, 1, 16, 32, 128, 256]
    """
    shapes = [tuple(size for size in shape if 0 < size <= MAX_SIZE) for shape in shapes]
    channels = list(dict.fromkeys(size for shape in shapes for size in shape[:2]))[:MAX_SIZES]
    kernels = list(dict.fromkeys(size for shape in shapes for size in shape[2:]))[:MAX_SIZES]
    quotients = [a // b for a in channels for b in channels if a >= b]
    multiples = [size * factor for size in channels if size > 1 for factor in (2, 4)]
    return list(dict.fromkeys([*channels, *kernels, *quotients, *multiples]))


def vary(module: Module, path: Sequence[str], value: Any) -> Module:
    """Return a module with one hyperparameter changed, its own or that of a system within it."""
    name, *inner = path
    return dataclasses.replace(module, **{name: vary(getattr(module, name), inner, value) if inner else value})

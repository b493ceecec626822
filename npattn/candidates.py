"""What a hyperparameter may be, given the shapes of its system's parameters: the values that are worth a try."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = [
    "COMMON_NUMBERS",
    "Shape",
    "default_of",
    "has_any_length",
    "is_integer",
    "kind_of",
    "likely_numbers",
    "solve",
    "values",
]

Shape = tuple[int, ...]

MAX_SIZE = 2**16
"""The largest axis of which a hyperparameter is guessed."""
MAX_SIZES = 8
"""How many lengths of axes are reckoned with."""
COMMON_NUMBERS = [*range(1, 65), *(2**n for n in range(7, 13))]
"""What hyperparameters often are."""
PROBES = (12, 24, 48)
"""Integers, with many divisors, at which a hyperparameter is tried that has none, or whose multiples are refused."""
SCALES = range(1, 8)
"""How often a hyperparameter that no axis tells is doubled or halved."""
PAIR = "tuple[int, int]"
"""The type of height and width."""


def solve(
    field: dataclasses.Field, current: Any, shapes_at: Callable[[Any], dict[str, Shape]], wanted: Mapping[str, Shape]
) -> list[Any]:
    """List values at which axes that grow in proportion with an integer, or with a side of a pair, are as wanted."""
    kind = kind_of(field)
    if PAIR in kind:
        first, second = current if isinstance(current, tuple) else (current or PROBES[0],) * 2
        rows = extrapolate(first, lambda n: shapes_at((n, second)), wanted)
        columns = extrapolate(second, lambda n: shapes_at((first, n)), wanted)
        return [both for both in itertools.product([*rows, first], [*columns, second]) if both != current]
    return extrapolate(current, shapes_at, wanted) if is_integer(kind) and not isinstance(current, bool) else []


def extrapolate(
    current: int | None, shapes_at: Callable[[int], dict[str, Shape]], wanted: Mapping[str, Shape]
) -> list[int]:
    """List the integers at which an axis is as long as wanted, if it grows by as much from each to the next.

    Examples
    --------
    >>> extrapolate(4, lambda n: {"qkv.weight": (2 * n + 16, 64)}, {"qkv.weight": (76, 64)})
    [30]
    """
    n = current or 0
    tried: list[tuple[int, dict[str, Shape]]] = []
    for value in (n, 2 * n, 3 * n, *PROBES):  # multiples may do where nothing else does
        shapes = shapes_at(value) if value > 1 else {}
        if shapes and (not tried or shapes != tried[0][1]):
            tried.append((value, shapes))
        if len(tried) == 2:
            break
    else:
        return []
    (n, before), (m, after) = tried
    found = []
    for name in before.keys() & after.keys() & wanted.keys():
        for a, b, length in zip(before[name], after[name], wanted[name], strict=False):
            if a != b and (length - a) * (m - n) % (b - a) == 0:
                found.append(n + (length - a) * (m - n) // (b - a))
    return [value for value in dict.fromkeys(sorted(found)) if 0 < value <= MAX_SIZE][:MAX_SIZES]


def values(field: dataclasses.Field, current: Any, numbers: list[int], *, far: bool) -> Iterable[Any]:
    """List the values worth a try for a hyperparameter of a kind: integer, boolean, choice, pair, tuple.

    An integer is doubled and halved often where one goes `far`: there are more layers or fewer, but no shape tells how
    many; as of a map that is halved time and again.
    """
    kind, options = kind_of(field), field.metadata.get("options", ())
    default: list[Any] = [] if default_of(field) is dataclasses.MISSING else [default_of(field)]
    others: list[Any] = []
    if isinstance(current, bool):
        others = [not current]
    elif options:
        several = (some for size in range(1, len(options) + 1) for some in itertools.combinations(options, size))
        others = list(several if isinstance(current, tuple) else options)
    elif PAIR in kind:
        others = [*sides(numbers), *itertools.product(sides(numbers), repeat=2), *oblongs(numbers)]
    elif isinstance(current, tuple):
        others = [current[:size] for size in range(len(current) - 1, 0, -1)]
        others += [current + current[-1:] * more for more in range(1, 4)]
    elif literal := re.search(r"Literal(\[.*\])", kind):
        others = ast.literal_eval(literal[1])
    elif is_integer(kind):
        scales = SCALES if far else SCALES[:2]
        powers = [current * 2**k for k in scales] + [current // 2**k for k in scales] if current else [2, 4, 8]
        others = [*numbers, *powers]
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
    return list(dict.fromkeys(found))[:MAX_SIZES]


def oblongs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """List the heights and widths of maps between whose positions there are so many offsets, the squarest first.

    Examples
    --------
    >>> oblongs([117])
    [(5, 7), (7, 5), (2, 20), (20, 2), (1, 59), (59, 1)]
    """
    found = []
    for n in [n for n in numbers if n % 2][:MAX_SIZES]:
        for short in range(math.isqrt(n), 0, -1):
            if n % short == 0 and short % 2:
                height, width = (short + 1) // 2, (n // short + 1) // 2
                found += [(height, width), (width, height)]
    return list(dict.fromkeys(found))


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


def is_integer(kind: str) -> bool:
    """Tell whether a type, as text, is that of an integer, or None."""
    return bool(re.fullmatch(r"int|Optional\[int\]|int \| None|None \| int", kind.removeprefix("typing.")))


def kind_of(field: dataclasses.Field) -> str:
    """Return a field's type as text."""
    return field.type.__name__ if isinstance(field.type, type) else str(field.type)


def has_any_length(field: dataclasses.Field, value: Any) -> bool:
    """Tell whether a hyperparameter is a tuple of as many numbers as one likes, which no shape tells."""
    return isinstance(value, tuple) and not field.metadata.get("options") and PAIR not in kind_of(field)


def default_of(field: dataclasses.Field) -> Any:
    """Return a field's default."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()

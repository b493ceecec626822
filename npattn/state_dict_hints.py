"""What a state dict that does not fit a system may be: other names, a prefix, a layout, other hyperparameters."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from npattn.candidates import Shape, default_of
from npattn.fitting import search, search_equals
from npattn.pairing import OURS, ending, find_naming, is_unused, pair_names, stem
from npattn.synonyms import solid
from npattn.variations import Made, declared
from npattn.wording import nearest, suggest

if TYPE_CHECKING:
    from npattn.module import Module

MAX_LISTED = 3
"""Prefixes that a message lists before it counts the others."""


def shape_of(value: Any) -> Shape | None:
    """Return an array's shape; None of what has none."""
    try:
        return tuple(map(int, value.shape))
    except (AttributeError, TypeError, ValueError):
        return None


def renaming_hint(
    pairs: Mapping[str, str], given: Mapping[str, Shape | None], expected: Mapping[str, Shape], prefix: str
) -> str:
    """Say how all unknown names are to be changed."""
    if not pairs:
        return ""
    meant, changes = suggest([prefix + next(iter(pairs.values()))]), rename(pairs, given, expected, prefix)
    return f"{meant} rename {changes}" if len(pairs) > 1 or "(" in changes else meant


def name_hint(expected: Mapping[str, Shape], given: Mapping[str, Shape | None], prefix: str) -> str:
    """Say which name the first unknown one may stand for: by its shape, else by its spelling."""
    missing = {name: shape for name, shape in expected.items() if name not in given}
    first = next((name for name in given if name not in expected), None)
    if first is None:
        return ""
    shape, last = given[first], ending(first)
    fits = [name for name in missing if shape is not None and solid(missing[name]) == solid(shape)]
    fits = [name for name in fits if ending(name) == last] or fits
    if fits:
        return suggest([prefix + name for name in fits[: MAX_LISTED + 1]])
    stems = {stem(name): name for name in missing or expected if ending(name) == last}
    if stems:
        near = [stems[near] for near in nearest(stem(first), stems, cutoff=0.6)]
    else:
        near = nearest(first, missing or expected, cutoff=0.75)
    note = f" of shape {expected[near[0]]}" if near and shape not in (None, expected[near[0]]) else ""
    return suggest([prefix + name for name in near], note)


def rename(
    pairs: Mapping[str, str], given: Mapping[str, Shape | None], expected: Mapping[str, Shape], prefix: str
) -> str:
    """Write a renaming, and where an array has to be laid out anew besides."""
    return ", ".join(
        f"{prefix}{name} to {prefix}{target}"
        + (f" (with {layout})" if (layout := conversion(given[name], expected[target])) else "")
        for name, target in pairs.items()
    )


def entry_hint(expected: Mapping[str, Shape], whole: Mapping[Any, Any]) -> str:
    """Point to the mapping within the mapping, where a checkpoint holds a state dict beside other things."""
    parts = {name: value.values() for name, value in whole.items() if isinstance(value, Mapping)}
    arrays = {name: sum(shape_of(value) is not None for value in values) for name, values in parts.items()}
    most = max(arrays, key=arrays.__getitem__, default=None)
    if most is None or arrays[most] < len(expected):
        return ""
    return f"; the entry {most!r} is a mapping of names to arrays: pass that one"


def published_hint(module: Module, given: Mapping[Any, Any], prefix: str | None) -> str:
    """Say, where a call is given published names, who reads them."""
    known = prefix is None and find_naming(module, list(map(str, given))) is not OURS
    return "; these names are read by from_state_dict" if known else ""


def prefix_hint(module: Module, whole: Mapping[Any, Any], prefix: str | None, *, renamed: bool = False) -> str:
    """Say under which prefixes of a whole model's state dict all that is expected stands; `renamed`: what may be it."""
    expected = declared(module)
    groups = part_shapes(whole, max_size=largest_part(expected))
    groups = {start: translate(module, shapes) for start, shapes in groups.items()}
    groups.pop(prefix or "", None)
    named = [start for start, shapes in groups.items() if shapes.keys() == expected.keys()]
    fits = [
        start
        for start in named
        if all(shape is not None and solid(shape) == solid(expected[name]) for name, shape in groups[start].items())
    ]
    found = {
        "would fit": [start for start in fits if groups[start] == expected],
        "would fit, reshaped": fits,
        "would bring these names, in other shapes": named,
    }
    if renamed:
        alike = [
            start
            for start, shapes in groups.items()
            if len(shapes) == len(expected) == len(pair_names(shapes, expected))
        ]
        found = {
            "would fit, renamed: ": innermost(alike),
            "would bring these names and others": [
                s for s, shapes in groups.items() if shapes.keys() > expected.keys()
            ],
            "would bring some of these names": [s for s, shapes in groups.items() if shapes.keys() < expected.keys()],
        }
    for text, starts in found.items():
        if starts:
            likely = sorted(starts, key=lambda start: not (prefix and (prefix in start or start in prefix)))
            hint = f"; {'from_state_dict with ' if prefix is None else ''}{list_prefixes(likely)} {text}"
            shapes = groups[likely[0]]
            return hint + (rename(pair_names(shapes, expected), shapes, expected, "") if text.endswith(": ") else "")
    return ""


def part_shapes(whole: Mapping[Any, Any], max_size: int) -> dict[str, dict[str, Shape | None]]:
    """List the shapes of each part of a model that holds few enough arrays, by prefix and by name."""
    names = defaultdict(list)
    for name in map(str, whole):
        if not is_unused(name):
            for end in [0, *(mark.end() for mark in re.finditer(r"[./]", name))]:
                names[name[:end]].append(name)
    shapes = {str(name): shape_of(value) for name, value in whole.items()}
    return {
        start: {name[len(start) :]: shapes[name] for name in those}
        for start, those in names.items()
        if len(those) <= max_size
    }


def translate(module: Module, shapes: Mapping[str, Shape | None]) -> dict[str, Shape | None]:
    """Give published names the ones that stand here, and shapes that can be laid out so the ones that stand here."""
    naming, expected = find_naming(module, shapes), declared(module)
    if naming is OURS:
        return dict(shapes)
    found = {naming.translate(name): shape for name, shape in shapes.items()}
    alike = [name for name in found.keys() & expected.keys() if solid(found[name] or ()) == solid(expected[name])]
    return found | {name: expected[name] for name in alike}


def largest_part(expected: Mapping[str, Shape]) -> int:
    """Return how many arrays a part may hold that could be the system with other hyperparameters."""
    return 4 * len(expected) + 4


def innermost(starts: list[str]) -> list[str]:
    """Leave out prefixes of which another is a continuation."""
    return [start for start in starts if not any(s != start and s.startswith(start) for s in starts)]


def list_prefixes(starts: list[str]) -> str:
    """Write the first few prefixes, and how many more there are."""
    listed, more = list(map(repr, starts[:MAX_LISTED])), len(starts) - MAX_LISTED
    if more > 0:
        return f"prefix={', '.join(listed)} or one of {more} more"
    return f"prefix={' or '.join(filter(None, [', '.join(listed[:-1]), listed[-1]]))}"


def conversion(given: Shape | None, expected: Shape) -> str:
    """Write the call that lays an array out as expected; nothing where there is none, or none is needed.

    Examples
    --------
    >>> conversion((4, 64), (4, 64, 1, 1)), conversion((64, 4), (4, 64)), conversion((7, 7, 2, 1), (1, 2, 7, 7))
    ('.reshape(4, 64, 1, 1)', '.T', '.transpose(3, 2, 0, 1)')
    """
    if given is None or given == expected:
        return ""
    reshape = f".reshape({', '.join(map(str, expected)) or '()'})"
    if solid(given) == solid(expected):
        return reshape
    if len(given) == 2 and solid(given[::-1]) == solid(expected):
        return ".T" + reshape * (given[::-1] != expected)
    axes = [len(given) - 1, len(given) - 2, *range(len(given) - 2)]  # kernels stand first where channels stand last
    if len(given) > 2 and tuple(given[axis] for axis in axes) == expected:
        return f".transpose({', '.join(map(str, axes))})"
    return ""


def layout_hint(names: Mapping[str, str], given: Mapping[str, Shape | None], expected: Mapping[str, Shape]) -> str:
    """Say how to lay out all arrays of a wrong shape, if each can be; `names` has the names to be written."""
    calls = {written: conversion(given[name], expected[name]) for name, written in names.items()}
    if not all(calls.values()):
        return ""
    listed = ", ".join(name + call for name, call in calls.items())
    return f"; {listed} {'makes it' if len(calls) == 1 else 'make them'} fit"


def shape_hint(given: Shape | None, expected: Mapping[str, Shape]) -> str:
    """Name the parameters, a few at most, that have the shape of an array which does not fit under its own name.

    Examples
    --------
    >>> shape_hint((64, 4), {"fc1.weight": (4, 64), "fc2.weight": (64, 4)})
    "; it has the shape of 'fc2.weight'"
    """
    fits = [name for name, shape in expected.items() if shape == given]
    return f"; it has the shape of {' or '.join(map(repr, fits))}" if 0 < len(fits) <= MAX_LISTED else ""


def change_hint(
    module: Module, given: Mapping[str, Shape | None], prefix: str, made: Made | None = None, *, renamed: bool = True
) -> str:
    """Say which other hyperparameters would make everything fit, or fit once it is `renamed`.

    Where each of several alone would, all of them are told: shapes don't say which one is meant. `made` keeps what was
    tried, for another hint for the same module and shapes.
    """
    alike = fits_renamed if renamed else never
    shapes = {name: shape for name, shape in given.items() if shape is not None}
    known = (shapes or not prefix) and len(shapes) == len(given) <= largest_part(declared(module))
    made = {} if made is None else made
    found = search(module, shapes, alike, made) if known else None
    if not found:
        return ""
    expected = declared(found.module)
    renaming = expected.keys() != given.keys()
    ways = [found, *([] if renaming else search_equals(found, module, shapes, made))]
    calls = " or ".join(write_call(way.module) for way in ways)
    hint = f"; {' or '.join(', '.join(way.labels) for way in ways)} would fit: {calls}"
    if renaming:
        unknown = {name: shape for name, shape in given.items() if name not in expected}
        missing = {name: shape for name, shape in expected.items() if name not in given}
        hint += f", with a renaming: {rename(pair_names(unknown, missing), given, expected, prefix)}"
    return hint


def never(shapes: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> bool:
    """Tell of any two lists of shapes that they do not agree but for the names."""
    return False


def fits_renamed(shapes: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> bool:
    """Tell whether two lists of shapes agree but for the names, which are others."""
    return (
        shapes.keys() != wanted.keys()
        and len(shapes) == len(wanted) > 1
        and Counter(shapes.values()) == Counter(wanted.values())
        and len(pair_names(dict(wanted), dict(shapes))) == len(wanted)
    )


def write_call(module: Module) -> str:
    """Write the call that makes a module, its defaults left out."""
    given = {}
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.init and value != default_of(field):
            given[field.name] = write_call(cast("Module", value)) if dataclasses.is_dataclass(value) else repr(value)
    return f"{type(module).__name__}({', '.join(f'{name}={text}' for name, text in given.items())})"

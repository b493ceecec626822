"""Variations of a system: its hyperparameters, and those of the systems within it, changed where they stand."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from npattn.candidates import Shape, default_of, has_any_length
from npattn.synonyms import solid

if TYPE_CHECKING:
    from npattn.module import Module

__all__ = [
    "Made",
    "Path",
    "Variation",
    "agreement",
    "at",
    "declared",
    "has_own_default",
    "hyperparameters",
    "solids",
    "vary",
]

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

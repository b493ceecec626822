"""The sizes, values and hyperparameters at which kernels go wrong, as recipes of a system."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

from npattn.attention import Residual
from npattn.module import Module
from npattn.oracle.drawing import MAX_REPEATED
from npattn.oracle.layouts import LAYOUTS
from npattn.oracle.recipes import Recipe
from npattn.oracle.sweep_options import BATCH, EDGE_SIZES, HEIGHT, OPTIONS, OWN_SIZES, WIDTH
from npattn.oracle.systems import is_known, is_ours, name_system

__all__ = ["MapShape", "Sweep", "hyperparameters_of", "map_refused", "write_label"]

MapShape: TypeAlias = tuple[int, int | None, int, int]
"""Batch, channels (None where they stay), height, width."""
MAX_MORE_CHANNELS = 128
"""How many more channels are tried where so few don't go with hyperparameters that stay."""
FEW, FEW_LARGE = (3, 1, 1), (2, 1, 2)
"""The sizes of cases in training in which the variance of a sample shows beside that of what it is drawn from; the
second, of large numbers, beside a running variance of which a batch has a hundredth, and on kernels with many taps."""


@dataclass(frozen=True)
class Sweep:
    """The recipes of a system, kind by kind.

    Attributes
    ----------
    module : Module
    free : bool
        Whether other channels and hyperparameters than the module's are tried too.
    fixed : mapping of str
        Hyperparameters that were asked for, and stay.
    shapes : list of tuple, optional
        Batch, channels (or None), height and width in place of the sweep's own.
    """

    module: Module
    free: bool
    fixed: Mapping[str, Any]
    shapes: list[MapShape] | None

    def recipes(self, kind: str) -> list[Recipe]:
        """List the cases of one kind."""
        own = OWN_SIZES.get(name_system(self.module)) if is_ours(self.module) else None
        if own and kind == "sizes" and self.free and not self.shapes:
            return self.of_own_sizes(own)
        shapes = self.shapes or (EDGE_SIZES if kind == "sizes" else [(BATCH, None, HEIGHT, WIDTH)])
        return list(dict.fromkeys(recipe for shape in shapes for recipe in self.recipes_on(shape, kind)))

    def of_own_sizes(self, own: list[tuple[tuple[int, int, int], dict[str, Any]]]) -> list[Recipe]:
        """List the cases of sizes that come with hyperparameters, as far as these go with those that stay."""
        found = []
        for sizes, changes in own:
            changed = {**changes, **self.fixed}
            with contextlib.suppress(ValueError):
                found.append(Recipe(replace(self.module, **changed), "", *sizes, label=self.label(changed)))
        return found

    def recipes_on(self, shape: MapShape, kind: str) -> list[Recipe]:
        """List the cases of one kind on maps of a shape."""
        batch, _, height, width = shape
        module = self.fitted(self.module, shape)
        if not self.shapes:
            height, width = size_of_map(module, height, width)
        if self.shapes:
            check_shape(module, shape)
        found: list[tuple[Module, str, dict[str, Any]]]
        if kind == "options":
            found = [(m, label, {}) for m, label in self.options(shape)]
        elif kind == "layouts":
            layouts = [layout for layout in LAYOUTS if layout not in ("contiguous", "broadcast")]
            found = [(module, layout, {"layout": layout}) for layout in layouts]
            if is_broadcast(module, batch, height, width):  # a sum's gradient is ones, with stride 0
                found.insert(0, (module, "broadcast", {"layout": "broadcast", "values": "ones"}))
        elif kind == "empty":
            batch, found = 0, [(module, kind, {})]
        elif kind == "sizes":
            found = [(module, "", {})]
        else:
            found = [(module, kind, {"values": kind})]
            found += [(m, f"training-{kind}", {"values": kind}) for m in self.trained(module)]
        stays = self.label(self.fixed)
        recipes = [
            Recipe(m, "", batch, height, width, label="-".join(filter(None, [stays, label])), **options)
            for m, label, options in found
        ]
        if kind == "options" and not self.shapes:
            few = self.trained(module) or ([module] if hyperparameters_of(module).get("training") else [])
            recipes += [Recipe(m, "", *FEW, label="-".join(filter(None, [stays, "training-few"]))) for m in few]
            large = "-".join(filter(None, [stays, "training-few-large"]))
            recipes += [Recipe(m, "", *FEW_LARGE, values="large", label=large) for m in few]
        return recipes

    def label(self, changes: Mapping[str, Any]) -> str:
        """Write hyperparameters as a part of an id, but for what is switched off in the module anyway."""
        off = {name for name, value in changes.items() if value is False is getattr(self.module, name)}
        return write_label({name: value for name, value in changes.items() if name not in off})

    def options(self, shape: MapShape) -> list[tuple[Module, str]]:
        """Change hyperparameters that are free, one or a few at a time; say which."""
        ours = OPTIONS.get(name_system(self.module)) if is_ours(self.module) else None
        options = (self.module.options if ours is None else ours) if self.free else []
        changes = [change for change in options if not change.keys() & self.fixed.keys()]
        found = []
        for change in changes:
            with contextlib.suppress(ValueError):  # what hyperparameters that stay, or the shape, don't go with
                found.append((self.fitted(replace(self.module, **change), shape), write_label(change)))
        return found + [(m, "training") for m in self.trained(self.fitted(self.module, shape))]

    def trained(self, module: Module) -> list[Module]:
        """Return the module in training, where that may be changed and makes a difference."""
        changes: dict[str, Any] = {"training": True}
        free = self.free and hyperparameters_of(module).get("training") is False and "training" not in self.fixed
        trained = replace(module, **changes) if free else module
        differs = module.buffer_shapes() or trained.input_shapes(1, 8, 8).keys() != module.input_shapes(1, 8, 8).keys()
        return [trained] if free and differs else []

    def fitted(self, module: Module, shape: MapShape) -> Module:
        """Give a module what stays, and the channels of a shape; of the sweep's own shapes as many at least."""
        _, channels, height, width = shape
        if self.free and "feat_size" not in self.fixed:
            module = module.for_size(height, width)
        if not self.free:
            return adapt(replace(module, **self.fixed), None, height * width, self.fixed)
        try:
            return adapt(module, channels, height * width, self.fixed)
        except (TypeError, ValueError):  # so many channels can't be shared equally by as many heads, say
            if self.shapes and channels:
                raise
            if not is_known(module):
                return adapt(module, None, height * width, self.fixed)
            first = getattr(module, "channels", 1) if channels is None else channels
            return fit_more_channels(module, first, height * width, self.fixed)


def map_refused(recipe: Recipe) -> ValueError | None:
    """Return what a recipe's module says to its map; None if it takes it."""
    shapes = recipe.module.input_shapes(recipe.batch, recipe.height, recipe.width)
    try:
        recipe.module.check_inputs(tuple(np.broadcast_to(np.array(0.0), shape) for shape in shapes.values()))
    except ValueError as error:
        return error
    return None


def is_broadcast(module: Module, *sizes: int) -> bool:
    """Tell whether anything of a case can be broadcast: an upstream gradient of ones, or what a few images share."""
    inputs, outputs = (shapes(*sizes).values() for shapes in (module.input_shapes, module.output_shapes))
    several = any(length > 1 for shape in outputs for length in shape)
    return several or any(1 < shape[0] <= MAX_REPEATED for shape in inputs if len(shape))


def size_of_map(module: Module, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of a map, of a module that has a size of its own, or wants multiples of something."""
    shape = module.input_shapes(1, height, width).get("x", ())
    return (shape[2], shape[3]) if len(shape) == 4 else (height, width)


def check_shape(module: Module, shape: MapShape) -> None:
    """Refuse a shape that a module doesn't take."""
    batch, channels, height, width = shape
    shapes = module.input_shapes(batch, height, width)
    if channels is not None and shape not in shapes.values() and getattr(module, "channels", None) != channels:
        name, first = next(iter(shapes.items()))
        own = [(batch, n, height, width) for n in [getattr(module, "channels", None)] if n]
        expected = " or ".join(map(str, [*own, (batch, height, width)]))
        raise ValueError(
            f"cases: shapes holds {shape}, but {name} of {module} has shape {tuple(first)}; expected {expected}: "
            f"batch, {'channels, ' if own else ''}height and width"
        )
    if size_of_map(module, height, width) != (height, width):
        raise ValueError(f"cases: shapes holds {shape}, but x of {module} has shape {shapes['x']}")
    refused = map_refused(Recipe(module, "", batch, height, width))
    if refused is not None:
        raise ValueError(f"cases: shapes holds {shape}: {refused}")


def hyperparameters_of(module: Module) -> dict[str, Any]:
    """Return a module's hyperparameters by name."""
    return {field.name: getattr(module, field.name) for field in fields(module)}


def fit_more_channels(module: Module, first: int, positions: int, fixed: Mapping[str, Any]) -> Module:
    """Give a module the least number of channels from the first on that hyperparameters which stay allow."""
    for channels in range(first, first + MAX_MORE_CHANNELS):
        try:
            return adapt(module, channels, positions, fixed)
        except ValueError as error:
            refused = error
    raise refused


def adapt(module: Module, channels: int | None, positions: int, fixed: Mapping[str, Any]) -> Module:
    """Give a module what stays, other channels, and whatever follows from them and from the number of positions."""
    given = hyperparameters_of(module)
    changes: dict[str, Any] = {}
    channels = fixed.get("channels", fixed.get("in_channels", channels))
    ours = is_ours(module)  # another's hyperparameters may have the same names
    if ours and "inner" in given:
        changes["inner"] = adapt(given["inner"], channels, positions, {})
    if ours and "k" in given:
        changes["k"] = min(given["k"], positions)
    if not channels:
        return replace(module, **{**changes, **fixed})
    names = [name for name in ("channels", "in_channels", "head_dim") if name in given]
    changes |= dict.fromkeys(names[:1], channels)
    if ours and "split_input" in given and channels % len(given["kernel_sizes"]):
        changes["split_input"] = False
    if ours and "radix" in given and channels % given["radix"]:
        changes["radix"] = 1
    for name in given.keys() & {"heads", "groups"}:
        for parts in range(given[name], 0, -1):  # the most that share the channels out evenly
            with contextlib.suppress(ValueError):
                return replace(module, **{**changes, name: parts, **fixed})
    return replace(module, **{**changes, **fixed})


def write_label(changes: Mapping[str, Any]) -> str:
    """Write hyperparameters as a part of an id, in what pytest's -k can select."""
    parts = []
    for name, value in changes.items():
        if isinstance(value, bool):
            parts.append(name if value else f"no_{name}")
        elif isinstance(value, Module):
            parts.append("-".join(map(name_system, [value, *([value.inner] if isinstance(value, Residual) else [])])))
        else:
            parts.append(f"{name}-{'-'.join(map(str, value)) if isinstance(value, tuple) else value}")
    return "-".join(parts)

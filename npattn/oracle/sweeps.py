"""The sizes, values and hyperparameters at which kernels go wrong, as recipes of a system."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

from npattn.attention import CBAM, EfficientChannelAttention, PositionAttention, Residual, SqueezeExcitation
from npattn.module import Module
from npattn.oracle.layouts import LAYOUTS
from npattn.oracle.recipes import Recipe
from npattn.oracle.systems import is_known

__all__ = ["Shape", "Sweep", "hyperparameters_of", "refusal", "write_label"]

SIZES = (
    (2, 1, 5, 3),
    (3, 16, 1, 1),
    (1, 15, 4, 4),
    (2, 16, 17, 1),
    (1, 17, 1, 31),
    (2, 31, 4, 8),
    (1, 32, 11, 3),
    (3, 33, 7, 9),
    (1, 63, 8, 8),
    (2, 64, 5, 13),
    (1, 65, 1, 127),
    (1, 127, 16, 8),
    (1, 128, 3, 5),
    (1, 129, 3, 43),
)
"""Batch, channels, height, width: channels and positions are 1, powers of two, and one off them, in many pairs."""
MAX_MORE_CHANNELS = 128
"""How many more channels are tried where so few don't go with hyperparameters that stay."""
BATCH, HEIGHT, WIDTH = 3, 7, 9
"""The size of the other kinds of cases."""
FEW, FEW_LARGE = (3, 1, 1), (2, 1, 2)
"""The sizes of cases in training in which the variance of a sample shows beside that of what it is drawn from; the
second, of large numbers, beside a running variance of which a batch has a hundredth, and on kernels with many taps."""
POOLS = ("avg", "max", "lp", "lse")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "se": [
        *({"reduction": 1}, {"reduction": 100}, {"bias": False}, {"hidden": 5}),
        *({"activation": "silu"}, {"activation": "hard_swish"}, {"gate": "hard_sigmoid"}),
    ],
    "eca": [{"kernel_size": 1}, {"kernel_size": 7}, {"kernel_size": 65}],
    "ge": [
        *({"extra_params": False, "extent": extent} for extent in (0, 2, 8)),
        *({"extra_params": False, "mlp": False}, {"extent": 2}, {"extent": 0, "feat_size": 7}, {"batch_norm": False}),
        *({"activation": "silu"}, {"gate": "hard_sigmoid"}, {"reduction": 1}, {"hidden": 5}),
    ],
    "flexible": [{"reduction": 1}, {"reduction": 100}],
    "sliding-window": [{"window": 1, "stride": 1}, {"window": 4, "stride": 4}, {"window": 100}, {"classes": 2}],
    "flexible-segmentation": [{"window": 1, "stride": 1}, {"window": 100}, {"reduction": 1}],
    "cbam": [
        *({"pools": (p,)} for p in POOLS),
        *({"pools": POOLS}, {"spatial": False}, {"batch_norm": False}, {"kernel_size": 3}),
        {"hidden": 5, "bias": False, "activation": "silu", "gate": "hard_sigmoid"},
    ],
    "cbam-channel": [
        *({"pools": (p,)} for p in POOLS),
        *({"pools": POOLS}, {"reduction": 100}, {"hidden": 5}, {"bias": False}),
        *({"activation": "silu"}, {"activation": "hard_swish"}, {"gate": "hard_sigmoid"}),
    ],
    "cbam-spatial": [{"batch_norm": False}, {"kernel_size": 1}, {"kernel_size": 3}, {"gate": "hard_sigmoid"}],
    "bam": [{"variant": "paper"}, {"dilation": 1}, {"dilation": 16}, {"reduction": 1}, {"reduction": 100}],
    "coordinate": [{"reduction": 1}],
    "simam": [{"variant": "paper"}, {"e_lambda": 1}],
    "triplet": [{"spatial": False}, {"kernel_size": 1}, {"kernel_size": 3}],
    "attention-gate": [
        *({"stride": 2}, {"stride": 2, "batch_norm": False}, {"stride": 3}, {"batch_norm": False}),
        *({"gating_channels": None}, {"gating_channels": 1}, {"hidden": 1}, {"hidden": 33}),
    ],
    "sge": [{"groups": 1}, {"groups": 32}, {"variant": "paper"}],
    "ema": [{"groups": 1}, {"groups": 2}, {"groups": 32}],
    "polarized": [
        *({"form": "sequential"}, {"variant": "paper"}, {"form": "sequential", "variant": "paper"}),
        *({"hidden": 1}, {"hidden": 33}),
    ],
    "pam": [{"reduction": 1}, {"reduction": 100}],
    "criss-cross": [{"reduction": 1}, {"reduction": 100}, {"recurrence": 1}, {"recurrence": 3}],
    "cam": [{"variant": "code"}],
    "danet": [{"variant": "code"}, {"size": (9, 20)}, {"classes": 1}],
    "gc": [
        *({"fuse": ("add",)}, {"fuse": ("scale",)}, {"attention": False}, {"reduction": 1}, {"hidden": 5}),
        *({"activation": "silu"}, {"activation": "hard_swish"}, {"gate": "hard_sigmoid"}, {"eps": 1e-5}),
    ],
    "non-local": [
        *({"variant": "dot_product"}, {"subsample": True}, {"variant": "dot_product", "subsample": True}),
        *({"scale": 1}, {"reduction": 100}, {"hidden": 5}, {"batch_norm": False}),
    ],
    "external": [{"memory": 1}, {"memory": 33}, {"block": False}],
    "double": [{"hidden": 1}, {"hidden": 33}, {"maps": 1}, {"maps": 33}],
    "linear": [{"heads": 1}, {"key_channels": 2}, {"value_channels": 32}, {"key_channels": 64}],
    "lambda": [
        *({"heads": 1}, {"heads": 16}, {"key_channels": 1}, {"key_channels": 33}, {"qk_ratio": 2}),
        *({"kernel_size": 1}, {"kernel_size": 9}, {"feat_size": (HEIGHT, WIDTH)}, {"stride": 2}, {"bias": True}),
    ],
    "mhsa": [
        {"heads": 1},
        {"heads": 16},
        {"causal": True},
        {"bias": True},
        {"padding": True},
        {"causal": True, "bias": True, "padding": True},
    ],
    "sdpa": [
        {"causal": None, "sink": False},
        {"causal": "bottom-right"},
        {"key_heads": 1},
        {"key_heads": 4},
        {"window": (2, 0)},
        {"window": (1, 3), "causal": None},
        {"softcap": 2},
        {"bias": True},
        {"mask": True, "causal": None},
        {"lengths": True, "causal": None},
        {"logsumexp": True, "sink": False},
        {"scale": 1},
        {
            "causal": "bottom-right",
            "window": (4, 0),
            "softcap": 2,
            "bias": True,
            "mask": True,
            "lengths": True,
            "logsumexp": True,
        },
    ],
    "window": [
        *({"shift": 0}, {"shift": (0, 3)}, {"window": 1, "shift": 0}, {"window": (2, 5), "shift": 1}),
        *({"heads": 1}, {"head_channels": 3}, {"bias": False}, {"mask_value": -100}),
    ],
    "bottleneck": [
        *({"stride": 2}, {"heads": 1}, {"heads": 8}, {"head_dim": 1}, {"head_dim": 33}, {"out_channels": 32}),
        *({"bias": True}, {"scale_pos_embed": True}, {"head_dim": None, "qk_ratio": 2}),
    ],
    "halo": [
        *({"stride": 2}, {"stride": 2, "avg_down": True}, {"heads": 1}, {"head_dim": 33}, {"out_channels": 32}),
        *({"block_size": 1}, {"block_size": 3, "stride": 2}, {"halo_size": 0}, {"halo_size": 3, "block_size": 4}),
        *({"bias": True}, {"scale_pos_embed": True}, {"head_dim": None, "qk_ratio": 2}),
    ],
    "shuffle": [{"groups": 1}, {"groups": 16}],
    "sk": [
        *({"split_input": False}, {"dilated": False}, {"kernel_sizes": (3, 5, 7, 1)}, {"stride": 2}, {"groups": 2}),
        *({"out_channels": 2}, {"hidden": 3}, {"activation": "silu"}),
    ],
    "split": [
        *({"radix": 1}, {"radix": 4}, {"groups": 2}, {"stride": 2}, {"dilation": 2}, {"kernel_size": 1}),
        *({"out_channels": 2}, {"batch_norm": False}, {"bias": True}, {"activation": "silu"}),
    ],
    "multi-scale": [{"rates": (1,)}, {"rates": (12, 24, 36)}, {"out_channels": 1}],
    "residual": [
        {"inner": Residual(SqueezeExcitation(16))},
        {"inner": EfficientChannelAttention(16)},
        {"inner": CBAM(16)},
        {"inner": PositionAttention(16)},
    ],
    "soft-hard": [{"k": 1}, {"k": HEIGHT * WIDTH}],
    "pcm": [{"embedding": 2}, {"embedding": 33}],
}
"""Hyperparameters to be tried, by a system's key: what differs from its example."""
Shape: TypeAlias = tuple[int, int | None, int, int]
"""Batch, channels (None where they stay), height, width."""
OWN_SIZES: dict[str, list[tuple[tuple[int, int, int], dict[str, Any]]]] = {
    "sdpa": [
        ((2, 5, 15), {"head_dim": 1, "value_dim": 2}),
        ((3, 1, 16), {"head_dim": 16, "causal": "bottom-right"}),
        ((1, 17, 1), {"head_dim": 31}),
        ((2, 1, 1), {"head_dim": 32}),
        ((1, 65, 65), {"head_dim": 63}),
        ((1, 16, 33), {"head_dim": 64, "value_dim": 32, "causal": None}),
        ((2, 33, 16), {"head_dim": 65, "causal": "bottom-right"}),
        ((1, 31, 32), {"head_dim": 96, "heads": 2, "key_heads": 1}),
        ((1, 63, 64), {"head_dim": 128, "heads": 2, "key_heads": 1}),
        ((1, 64, 127), {"head_dim": 127, "heads": 2, "key_heads": 1, "causal": "bottom-right"}),
        ((1, 32, 129), {"head_dim": 160, "value_dim": 96, "heads": 2, "key_heads": 1, "causal": None}),
        ((1, 33, 65), {"head_dim": 192, "value_dim": 128, "heads": 2, "key_heads": 2}),
        ((1, 65, 32), {"head_dim": 256, "heads": 1, "key_heads": 1}),
        ((1, 15, 17), {"head_dim": 257, "heads": 1, "key_heads": 1}),
        ((1, 1024, 1024), {"head_dim": 16, "heads": 1, "key_heads": 1}),
    ],
}
"""Batch, height and width, with hyperparameters, where it is not channels and positions by which sizes are hard."""


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
    shapes: list[Shape] | None

    def recipes(self, kind: str) -> list[Recipe]:
        """List the cases of one kind."""
        own = OWN_SIZES.get(getattr(self.module, "key", ""))
        if own and kind == "sizes" and self.free and not self.shapes:
            return self.of_own_sizes(own)
        shapes = self.shapes or (SIZES if kind == "sizes" else [(BATCH, None, HEIGHT, WIDTH)])
        return list(dict.fromkeys(recipe for shape in shapes for recipe in self.recipes_on(shape, kind)))

    def of_own_sizes(self, own: list[tuple[tuple[int, int, int], dict[str, Any]]]) -> list[Recipe]:
        """List the cases of sizes that come with hyperparameters, as far as these go with those that stay."""
        found = []
        for sizes, changes in own:
            changed = {**changes, **self.fixed}
            with contextlib.suppress(ValueError):
                found.append(Recipe(replace(self.module, **changed), "", *sizes, label=self.label(changed)))
        return found

    def recipes_on(self, shape: Shape, kind: str) -> list[Recipe]:
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
            layouts = [layout for layout in LAYOUTS if layout != "contiguous"]
            found = [(module, layout, {"layout": layout}) for layout in layouts]
            found[layouts.index("broadcast")][2]["values"] = "ones"  # what a sum's gradient is, with stride 0
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

    def options(self, shape: Shape) -> list[tuple[Module, str]]:
        """Change hyperparameters that are free, one or a few at a time; say which."""
        options = OPTIONS.get(getattr(self.module, "key", ""), self.module.options) if self.free else []
        changes = [change for change in options if not change.keys() & self.fixed.keys()]
        found = []
        for change in changes:
            with contextlib.suppress(ValueError):  # what hyperparameters that stay, or the shape, don't go with
                found.append((self.fitted(replace(self.module, **change), shape), write_label(change)))
        return found + [(m, "training") for m in self.trained(self.fitted(self.module, shape))]

    def trained(self, module: Module) -> list[Module]:
        """Return the module in training, where it has that and may be changed."""
        changes: dict[str, Any] = {"training": True}
        free = self.free and hyperparameters_of(module).get("training") is False and "training" not in self.fixed
        return [replace(module, **changes)] if free else []

    def fitted(self, module: Module, shape: Shape) -> Module:
        """Give a module what stays, and the channels of a shape; of the sweep's own shapes as many at least."""
        _, channels, height, width = shape
        if self.free and "feat_size" not in self.fixed:
            module = module.for_size(height, width)
        if not self.free:
            return fit(replace(module, **self.fixed), None, height * width, self.fixed)
        try:
            return fit(module, channels, height * width, self.fixed)
        except (TypeError, ValueError):  # so many channels can't be shared equally by as many heads, say
            if self.shapes and channels:
                raise
            if not is_known(module):
                return fit(module, None, height * width, self.fixed)
            first = getattr(module, "channels", 1) if channels is None else channels
            return fit_more_channels(module, first, height * width, self.fixed)


def refusal(recipe: Recipe) -> ValueError | None:
    """Return what a recipe's module says to its map; None if it takes it."""
    shapes = recipe.module.input_shapes(recipe.batch, recipe.height, recipe.width)
    try:
        recipe.module.check_inputs(tuple(np.broadcast_to(np.array(0.0), shape) for shape in shapes.values()))
    except ValueError as error:
        return error
    return None


def size_of_map(module: Module, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of a map, of a module that has a size of its own, or wants multiples of something."""
    shape = module.input_shapes(1, height, width).get("x", ())
    return (shape[2], shape[3]) if len(shape) == 4 else (height, width)


def check_shape(module: Module, shape: Shape) -> None:
    """Refuse a shape that a module doesn't take."""
    batch, channels, height, width = shape
    shapes = module.input_shapes(batch, height, width)
    if channels is not None and shape not in shapes.values() and getattr(module, "channels", None) != channels:
        name, first = next(iter(shapes.items()))
        raise ValueError(f"cases: shapes holds {shape}, but {name} of {module} has shape {tuple(first)}")
    if size_of_map(module, height, width) != (height, width):
        raise ValueError(f"cases: shapes holds {shape}, but x of {module} has shape {shapes['x']}")
    refused = refusal(Recipe(module, "", batch, height, width))
    if refused is not None:
        raise ValueError(f"cases: shapes holds {shape}: {refused}")


def hyperparameters_of(module: Module) -> dict[str, Any]:
    """Return a module's hyperparameters by name."""
    return {field.name: getattr(module, field.name) for field in fields(module)}


def fit_more_channels(module: Module, first: int, positions: int, fixed: Mapping[str, Any]) -> Module:
    """Give a module the least number of channels from the first on that hyperparameters which stay allow."""
    for channels in range(first, first + MAX_MORE_CHANNELS):
        try:
            return fit(module, channels, positions, fixed)
        except ValueError as error:
            refused = error
    raise refused


def fit(module: Module, channels: int | None, positions: int, fixed: Mapping[str, Any]) -> Module:
    """Give a module what stays, other channels, and whatever follows from them and from the number of positions."""
    given = hyperparameters_of(module)
    changes: dict[str, Any] = {}
    channels = fixed.get("channels", fixed.get("in_channels", channels))
    if "inner" in given:
        changes["inner"] = fit(given["inner"], channels, positions, {})
    if "k" in given:
        changes["k"] = min(given["k"], positions)
    if not channels:
        return replace(module, **{**changes, **fixed})
    names = [name for name in ("channels", "in_channels", "head_dim") if name in given]
    changes |= dict.fromkeys(names[:1], channels)
    if "split_input" in given and channels % len(given["kernel_sizes"]):
        changes["split_input"] = False
    if "radix" in given and channels % given["radix"]:
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
            parts.append("-".join([value.key, *([value.inner.key] if isinstance(value, Residual) else [])]))
        else:
            parts.append(f"{name}-{'-'.join(map(str, value)) if isinstance(value, tuple) else value}")
    return "-".join(parts)

"""The hard cases of a system: the sizes, values and hyperparameters at which kernels go wrong."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from npattn.attention import CATALOGUE, CBAM, EfficientChannelAttention, PositionAttention, Residual, SqueezeExcitation
from npattn.checks import describe_type, require_choice, require_integers, require_selection
from npattn.module import Module
from npattn.oracle.case import Case
from npattn.oracle.formats import find_format
from npattn.oracle.golden import golden

__all__ = ["FORMATS_SWEPT", "KINDS", "Recipe", "cases"]

FORMATS_SWEPT = ("float32", "bfloat16", "float16")
"""The formats of a suite of cases, if no others are named."""
KINDS = {
    "sizes": "maps and channels of 1, and around 16, 32, 64 and 128",
    "options": "hyperparameters at their ends, and training where a system has it",
    "large": "inputs under which a careless exponential overflows",
    "ties": "inputs of a few distinct numbers, so that maxima tie",
    "zeros": "channels and an image of zeros",
}
"""Why a case is hard, by kind, in the order of a suite."""
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
BATCH, HEIGHT, WIDTH = 3, 7, 9
"""The size of the other kinds of cases."""
POOLS = ("avg", "max", "lp", "lse")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "se": [{"reduction": 1}, {"reduction": 100}, {"bias": False}],
    "eca": [{"kernel_size": 1}, {"kernel_size": 7}, {"kernel_size": 65}],
    "flexible": [{"reduction": 1}, {"reduction": 100}],
    "sliding-window": [{"window": 1, "stride": 1}, {"window": 4, "stride": 4}, {"window": 100}, {"classes": 2}],
    "flexible-segmentation": [{"window": 1, "stride": 1}, {"window": 100}, {"reduction": 1}],
    "cbam": [*({"pools": (p,)} for p in POOLS), {"pools": POOLS}, {"spatial": False}, {"batch_norm": False}],
    "cbam-channel": [*({"pools": (p,)} for p in POOLS), {"pools": POOLS}, {"reduction": 100}],
    "cbam-spatial": [{"batch_norm": False}],
    "coordinate": [{"reduction": 1}],
    "pam": [{"reduction": 1}, {"reduction": 100}],
    "cam": [{"variant": "code"}],
    "danet": [{"variant": "code"}, {"size": (9, 20)}, {"classes": 1}],
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
class Recipe:
    """What a golden case is made of; `make` makes it.

    Attributes
    ----------
    module : Module
    dtype : str
    batch, height, width, seed : int
    values : str
        As `golden` has it.
    label : str
        What is special about it; empty where it is the size alone.
    """

    module: Module
    dtype: str
    batch: int
    height: int
    width: int
    seed: int = 0
    values: str = "generic"
    label: str = ""

    @property
    def id(self) -> str:
        """A name to read and to select by: system, format, shape, what is special."""
        key = getattr(self.module, "key", type(self.module).__name__)
        channels = getattr(self.module, "channels", None) or next(iter(self.module.input_shapes(1, 1, 1).values()))[1]
        shape = f"{self.batch}x{channels}x{self.height}x{self.width}"
        seed = f"seed{self.seed}" if self.seed else ""
        return "-".join(part for part in (key, self.dtype, shape, self.label, seed) if part)

    def __str__(self) -> str:
        return self.id

    def make(self) -> Case:
        """Make the case, or take it from those that this process made last."""
        return make(self)


@functools.lru_cache(maxsize=64)
def make(recipe: Recipe) -> Case:
    """Make the case of a recipe."""
    sizes = {"batch": recipe.batch, "height": recipe.height, "width": recipe.width}
    return golden(recipe.module, **sizes, dtype=recipe.dtype, seed=recipe.seed, values=recipe.values)


def cases(
    system: Any,
    formats: Iterable[Any] = FORMATS_SWEPT,
    *,
    kinds: Collection[str] = tuple(KINDS),
    limit: int | None = None,
    seed: int = 0,
) -> list[Recipe]:
    """List the hard cases of a system, for a parametrised test. They are made when asked for: `Recipe.make`.

    Parameters
    ----------
    system : str, class or Module
        A key of `CATALOGUE` or a class: sizes, channels and hyperparameters all vary. A module: it stays as it is.
    formats : iterable of str or dtype, default ("float32", "bfloat16", "float16")
        As `golden` takes them.
    kinds : sequence of str, optional
        Some of "sizes", "options", "large", "ties", "zeros"; by default all.
    limit : int, optional
        At most so many cases in each format, spread evenly over all.
    seed : int, default 0

    Returns
    -------
    list of Recipe
        Format by format; each has a readable `id`.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these; the nearest valid name is given.

    Examples
    --------
    >>> recipes = cases("pam", ["bfloat16"])
    >>> [recipe.id for recipe in recipes if recipe.values != "generic"]
    ['pam-bfloat16-3x16x7x9-large', 'pam-bfloat16-3x16x7x9-ties', 'pam-bfloat16-3x16x7x9-zeros']
    >>> recipes[0].make()
    Case(PositionAttention(channels=1, reduction=8), 2x1x5x3, bfloat16, seed 0)
    """
    module = find_module(system)
    if isinstance(formats, str) or not isinstance(formats, Iterable):
        raise TypeError(f"cases: formats={formats!r} is {describe_type(formats)}; expected a list: [{formats!r}]")
    names = dict.fromkeys(find_format(dtype, "cases").name for dtype in formats)
    if not isinstance(kinds, (tuple, list)):
        raise TypeError(f"cases: kinds={kinds!r} is {describe_type(kinds)}; expected a list: [{kinds!r}]")
    require_selection("cases", KINDS, kinds=kinds)
    require_integers("cases", least=0, seed=seed)
    if limit is not None:
        require_integers("cases", limit=limit)
    recipes = [recipe for kind in KINDS if kind in kinds for recipe in recipes_of(module, kind, module is not system)]
    if limit is not None and limit < len(recipes):
        recipes = [recipes[(2 * i + 1) * len(recipes) // (2 * limit)] for i in range(limit)]
    return [replace(recipe, dtype=name, seed=seed) for name in names for recipe in recipes]


def find_module(system: Any) -> Module:
    """Take a module as it is; of a key or a class, the example."""
    if isinstance(system, Module):
        return system
    if isinstance(system, type) and issubclass(system, Module):
        return system.example()
    if not isinstance(system, str):
        raise TypeError(f"cases: system is {describe_type(system)}; expected a key such as 'pam', a class or a module")
    require_choice("cases", CATALOGUE, system=system)
    return CATALOGUE[system].example()


def recipes_of(module: Module, kind: str, free: bool) -> list[Recipe]:
    """List the cases of one kind; where `free`, other channels and hyperparameters than the module's are tried too."""
    training: dict[str, Any] = {"training": True}
    trained = [replace(module, **training)] if free and "training" in hyperparameters_of(module) else []
    own = OWN_SIZES.get(getattr(module, "key", ""), []) if free else []
    if kind == "sizes" and own:
        found = [(replace(module, **changes), sizes, write_label(changes)) for sizes, changes in own]
        return [Recipe(m, "", *sizes, label=label) for m, sizes, label in found]
    if kind == "sizes":
        return [Recipe(fit(module, channels if free else None, h * w), "", b, h, w) for b, channels, h, w in SIZES]
    if kind == "options":
        options = OPTIONS.get(getattr(module, "key", ""), []) if free else []
        changed = [(replace(module, **changes), write_label(changes)) for changes in options]
        return [Recipe(m, "", BATCH, HEIGHT, WIDTH, label=label) for m, label in changed] + [
            Recipe(m, "", BATCH, HEIGHT, WIDTH, label="training") for m in trained
        ]
    return [
        Recipe(fit(m, None, HEIGHT * WIDTH), "", BATCH, HEIGHT, WIDTH, values=kind, label=label)
        for m, label in [(module, kind), *((m, f"training-{kind}") for m in trained)]
    ]


def hyperparameters_of(module: Module) -> dict[str, Any]:
    """Return a module's hyperparameters by name."""
    return {field.name: getattr(module, field.name) for field in fields(module)}


def fit(module: Module, channels: int | None, positions: int) -> Module:
    """Give a module other channels, and whatever follows from them and from the number of positions."""
    given = hyperparameters_of(module)
    changes: dict[str, Any] = {}
    if "inner" in given:
        changes["inner"] = fit(given["inner"], channels, positions)
    if channels:
        changes |= {name: channels for name in ("channels", "in_channels") if name in given}
        if "heads" in given:
            changes["heads"] = max(heads for heads in range(1, given["heads"] + 1) if channels % heads == 0)
    if "k" in given:
        changes["k"] = min(given["k"], positions)
    return replace(module, **changes)


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

"""The hard cases of a system, listed for tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from npattn.calls import declared_shapes
from npattn.checks import check_hyperparameters, require_integers, require_seed, require_selection
from npattn.fields import check_value
from npattn.module import Module
from npattn.oracle.formats import FORMATS, find_format
from npattn.oracle.recipes import Recipe
from npattn.oracle.sweeps import MapShape, Sweep, hyperparameters_of, map_refused
from npattn.oracle.systems import SYSTEMS, as_step
from npattn.scalars import python_scalar
from npattn.wording import brief, describe_type, key_meant

__all__ = ["FORMATS_SWEPT", "KINDS", "OPTIONS_OF_CASES", "cases"]

OPTIONS_OF_CASES = ("formats", "kinds", "shapes", "limit", "seed")
"""What `cases` takes by name beside hyperparameters."""
FORMATS_SWEPT = ("float32", "bfloat16", "float16")
"""The formats of a suite of cases, if no others are named."""
KINDS = {
    "sizes": "maps and channels of 1, and around 16, 32, 64 and 128",
    "options": "hyperparameters at their ends, and training where a system has it",
    "large": "inputs under which a careless exponential overflows",
    "ties": "inputs of a few distinct numbers, so that maxima tie",
    "zeros": "channels and an image of zeros",
    "ones": "upstream gradients of ones, as those of a sum",
    "layouts": "inputs and upstream gradients that are broadcast, transposed, sliced with a step, and channels-last",
    "empty": "a batch without images",
}
"""Why a case is hard, by kind, in the order of a suite."""


def cases(
    system: Any,
    formats: Iterable[Any] = FORMATS_SWEPT,
    *,
    kinds: Collection[str] | None = None,
    shapes: Iterable[tuple[int, ...]] | None = None,
    limit: int | None = None,
    seed: int = 0,
    **hyperparameters: Any,
) -> list[Recipe]:
    """List the hard cases of a system, for a parametrised test. They are made when asked for: `Recipe.make`.

    Parameters
    ----------
    system : str, class or Module
        A key of `CATALOGUE`, a primitive such as "ops.softmax", or a class: sizes, channels and hyperparameters all
        vary. A module: it stays as it is, but for hyperparameters that are given.
    formats : iterable of str or dtype, default ("float32", "bfloat16", "float16")
        As `golden` takes them.
    kinds : sequence of str, optional
        Some of "sizes", "options", "large", "ties", "zeros", "ones", "layouts", "empty"; by default all, or "sizes"
        alone where `shapes` are given.
    shapes : iterable of tuple of int, optional
        Sizes in place of the sweep's own, each (batch, channels, height, width), the shape of a map, or (batch, height,
        width). Cases of all kinds are of each of them. Of the sweep's own, those that a module does not take are left
        out.
    limit : int, optional
        At most so many cases in each format, spread evenly over all.
    seed : int, default 0
    **hyperparameters
        Of the system, such as ``reduction=4``: they stay what they are in all cases. ``channels`` too; without it they
        vary, or are those of `shapes`.

    Returns
    -------
    list of Recipe
        Format by format; each has a readable `id`.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these; the nearest valid name is given. If a system doesn't take one of `shapes`.

    Examples
    --------
    >>> recipes = cases("pam", ["bfloat16"])
    >>> [recipe.id for recipe in recipes if recipe.label in ("ties", "sliced", "empty")]
    ['pam-bfloat16-3x16x7x9-ties', 'pam-bfloat16-3x16x7x9-sliced', 'pam-bfloat16-0x16x7x9-empty']
    >>> recipes[0].make()
    Case(PositionAttention(channels=1), 2x1x5x3, bfloat16, seed 0)

    A real size:

    >>> [recipe.id for recipe in cases("pam", ["bfloat16", "float16"], shapes=[(1, 512, 64, 64)], reduction=4)]
    ['pam-bfloat16-1x512x64x64-reduction-4', 'pam-float16-1x512x64x64-reduction-4']
    """
    module = find_module(system, hyperparameters)
    for of in ("input", "output"):
        declared_shapes(module, 1, 1, 1, of=of)
    known = [*hyperparameters_of(module), *OPTIONS_OF_CASES]
    check_hyperparameters(f"cases: {type(module).__name__}", hyperparameters, known)
    name, declared = type(module).__name__, {field.name: field for field in fields(module)}
    hyperparameters = {one: check_value(name, declared[one], value) for one, value in hyperparameters.items()}
    require_hashable(module, hyperparameters)
    if isinstance(formats, str) or not isinstance(formats, Iterable):
        raise TypeError(f"cases: formats={formats!r} is {describe_type(formats)}; expected a list: [{formats!r}]")
    names = dict.fromkeys(find_format(dtype, "cases").name for dtype in formats)
    if not names:
        raise ValueError(f"cases: formats={formats!r}; expected at least one of {', '.join(FORMATS)}")
    sizes = None if shapes is None else read_shapes(shapes)
    if kinds is None:
        kinds = tuple(KINDS) if sizes is None else ("sizes",)
    if isinstance(kinds, str) or not isinstance(kinds, Iterable):
        raise TypeError(f"cases: kinds={kinds!r} is {describe_type(kinds)}; expected a list: [{kinds!r}]")
    kinds = tuple(kinds)
    require_selection("cases", KINDS, kinds=kinds)
    seed = require_seed("cases", seed)
    if limit is not None:
        require_integers("cases", limit=limit)
        limit = int(limit)
    sweep = Sweep(module, not isinstance(system, Module), hyperparameters, sizes)
    found = [recipe for kind in KINDS if kind in kinds for recipe in sweep.recipes(kind)]
    taken = {recipe.id: recipe for recipe in found if map_refused(recipe) is None}  # not all sizes make another input
    recipes = list(taken.values())
    if found and not recipes:
        raise ValueError(f"cases: {module} takes none of the maps: {map_refused(found[0])}")
    if limit is not None and limit < len(recipes):
        recipes = [recipes[(2 * i + 1) * len(recipes) // (2 * limit)] for i in range(limit)]
    return [replace(recipe, dtype=name, seed=seed) for name in names for recipe in recipes]


def find_module(system: Any, hyperparameters: Mapping[str, Any]) -> Module:
    """Take a module as it is; of a key or a class, the example, or what is asked for of one that has none."""
    if isinstance(system, Module):
        return system
    if isinstance(system, type) and issubclass(system, Module):
        return make_example(system, hyperparameters)
    if not isinstance(system, str):
        raise TypeError(f"cases: system is {describe_type(system)}; expected a key such as 'pam', a class or a module")
    if system not in SYSTEMS:
        steps = as_step(system)
        if steps:
            raise ValueError(f"cases: system={brief(system)} {steps}")
        meant = key_meant(system, SYSTEMS) or "; expected a key of a system, such as 'pam':"
        raise ValueError(f"cases: system={brief(system)}{meant} npattn list names them all")
    return SYSTEMS[system].example()


def require_hashable(module: Module, hyperparameters: Mapping[str, Any]) -> None:
    """Refuse a list, a dict or the like as a hyperparameter: recipes are told from each other by them."""
    for name, value in {**hyperparameters_of(module), **hyperparameters}.items():
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"cases: {name}={brief(value)} of {type(module).__name__} is {describe_type(value)}, that may change; "
                "expected what can't, such as a tuple"
            ) from None


def make_example(system: type[Module], hyperparameters: Mapping[str, Any]) -> Module:
    """Return the example of a class, or an instance with the hyperparameters that it lacks for one."""
    try:
        return system.example()
    except TypeError:
        known = hyperparameters.keys() & {field.name for field in fields(system)}
        if not known:
            raise
        return system(**{name: hyperparameters[name] for name in known})


def read_shapes(shapes: Any) -> list[MapShape]:
    """Read batch, channels, height and width of each shape; None for channels where a shape has none."""
    if not isinstance(shapes, (tuple, list)) or not shapes or not all(isinstance(one, (tuple, list)) for one in shapes):
        raise TypeError(f"cases: shapes={brief(shapes)}; expected a list of shapes, such as [(8, 256, 56, 56)]")
    found: list[MapShape] = []
    for one in shapes:
        if len(one) not in (3, 4):
            raise ValueError(
                f"cases: shapes holds {brief(one)}; expected (batch, channels, height, width) or (batch, height, width)"
            )
        batch, *channels, height, width = map(python_scalar, one)
        require_integers("cases: shapes", least=0, batch=batch)
        require_integers("cases: shapes", height=height, width=width, **({"channels": channels[0]} if channels else {}))
        found.append((batch, channels[0] if channels else None, height, width))
    return found

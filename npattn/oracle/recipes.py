"""Recipes of golden cases: what each is made of, and a name of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from npattn.module import Module
from npattn.oracle.case import Case
from npattn.oracle.golden import golden
from npattn.oracle.systems import is_known, name_system
from npattn.scalars import python_scalar

__all__ = ["Recipe", "make"]


@dataclass(frozen=True)
class Recipe:
    """What a golden case is made of; `make` makes it.

    Attributes
    ----------
    module : Module
    dtype : str
    batch, height, width, seed : int
    values, layout : str
        As `golden` has them.
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
    layout: str = "contiguous"

    def __post_init__(self) -> None:
        """Keep Python's numbers, which a file takes, where NumPy's are given."""
        for name in ("batch", "height", "width", "seed"):
            object.__setattr__(self, name, python_scalar(getattr(self, name)))

    @property
    def id(self) -> str:
        """A name to read and to select by: system, format, shape, what is special."""
        channels = getattr(self.module, "channels", None)
        sizes = self.batch, channels, self.height, self.width
        shapes = list(self.module.input_shapes(self.batch, self.height, self.width).values())
        found = sizes if channels and (is_known(self.module) or sizes in shapes) else shapes[0]
        shape = "x".join(map(str, found)) or "scalar"
        seed = f"seed{self.seed}" if self.seed else ""
        return "-".join(part for part in (name_system(self.module), self.dtype, shape, self.label, seed) if part)

    def __str__(self) -> str:
        return self.id

    def make(self) -> Case:
        """Make the case, or take it from those that this process made last."""
        return make(self)


@functools.lru_cache(maxsize=64)
def make(recipe: Recipe, *, steps: bool = False) -> Case:
    """Make the case of a recipe; an error of a system of someone's own says how sizes are refused."""
    try:
        return make_golden(recipe, steps=steps)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        if not is_known(recipe.module) and not str(error).startswith(str(recipe.module)):
            raised = "" if str(error).startswith("golden: ") else f"raised by {type(recipe.module).__name__} itself. "
            error.add_note(
                f"{recipe.id}: {raised}If it takes no such hyperparameters or sizes, it is to refuse them by a "
                "ValueError, in __post_init__ or check_inputs: then no cases have them"
            )
        raise


def make_golden(recipe: Recipe, *, steps: bool) -> Case:
    """Hand a recipe to `golden`."""
    return golden(
        recipe.module,
        batch=recipe.batch,
        height=recipe.height,
        width=recipe.width,
        dtype=recipe.dtype,
        seed=recipe.seed,
        values=recipe.values,
        layout=recipe.layout,
        steps=steps,
    )

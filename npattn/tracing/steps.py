"""One step of a pass: a value by its name, its equation number and its line of code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any

from npattn.module import Module, Pass
from npattn.tracing.pages import equation_of
from npattn.tracing.source import Statement
from npattn.typing import Array

__all__ = ["Step", "is_array", "named_arrays"]


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """A value that a pass computes.

    Attributes
    ----------
    tag : str
        The equation number at the end of the line: ``"(3)"``, and ``"(3')"`` on the way back. Calls of primitives in a
        system without tags are numbered as they come.
    name : str
        The variable that the value is assigned to: ``"a"``. An entry of a list is ``"a[0]"``; one of a dict of
        gradients has the parameter's name, ``"conv.weight.grad"``.
    value : array
        What it was at that moment, not to be written to; a number where it is one.
    line : str
        The line of code, without its tag.
    parts : tuple of str
        Where it was computed, in a system that is made of others: ``("sa",)``.
    page : str, optional
        The page that derives it, such as ``"efficient_channel"``, for a system of this package.
    system : Module, optional
        The system, or the part of it, that computes it.
    """

    tag: str
    name: str
    value: Array
    line: str
    parts: tuple[str, ...] = ()
    page: str | None = None
    system: Module | None = None

    @property
    def path(self) -> str:
        """Its whole name: ``"(3) a"``, or ``"sa / (4) o"`` in a part of a system."""
        return " / ".join([*self.parts, f"{self.tag} {self.name}"])

    @property
    def equation(self) -> str | None:
        """LaTeX of the equation with this tag on the page, for the system's own activation; None without a page."""
        return None if self.page is None else equation_of(self.page, self.tag, self.system)

    def __repr__(self) -> str:
        shape = getattr(self.value, "shape", ())
        return f"Step({self.path}: {getattr(self.value, 'dtype', type(self.value).__name__)} {tuple(shape)})"


def is_array(value: Any) -> bool:
    """Whether a value is an array of whatever kind."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)


def named_arrays(name: str, value: Any, statement: Statement) -> Iterator[tuple[str, Any]]:
    """Go through the arrays and numbers in a value, each with its name; functions have none.

    A pass is its output. Of a tuple that holds arrays in one place, such as a value with the dict of its running
    statistics, the place isn't named.
    """
    if isinstance(value, Pass):
        value = value.output
    if is_array(value) or (isinstance(value, Number) and not isinstance(value, bool)):
        yield name, value
    elif isinstance(value, Mapping):
        suffix = ".grad" if "'" in statement.tag else ""
        for key, entry in value.items():
            yield from named_arrays(f"{key}{suffix}", entry, statement)
    elif isinstance(value, (tuple, list)):
        holding = [i for i, one in enumerate(value) if not isinstance(one, Mapping) and any(arrays_in(one))]
        for i, one in enumerate(value):
            alone = isinstance(value, tuple) and len(holding) == 1
            yield from named_arrays(name if alone else f"{name}[{i}]", one, statement)


def arrays_in(value: Any) -> Iterator[bool]:
    """Say True for every array in a value."""
    for _ in named_arrays("", value, Statement()):
        yield True

"""The systems that a subcommand works on: by their keys, and how large they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from npattn.attention import CATALOGUE
from npattn.checks import did_you_mean
from npattn.cli.arguments import UsageError
from npattn.module import Module

__all__ = ["count_numbers", "find_system"]


def find_system(key: str, systems: Mapping[str, type[Module]] = CATALOGUE) -> type[Module]:
    """Look up a system, by default of the catalogue, or say which key may be meant.

    Raises
    ------
    UsageError

    Examples
    --------
    >>> find_system("ecaa")
    Traceback (most recent call last):
    UsageError: unknown system 'ecaa'; did you mean 'eca'? npattn list names them all
    """
    if key not in systems:
        meant = did_you_mean(key, systems, 0.4) or ";"
        raise UsageError(f"unknown system {key!r}{meant} npattn list names them all")
    return systems[key]


def count_numbers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the numbers in arrays of these shapes.

    Examples
    --------
    >>> count_numbers({"weight": (4, 3), "bias": (4,)})
    16
    """
    return sum(math.prod(shape) for shape in shapes.values())

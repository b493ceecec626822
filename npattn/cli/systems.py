"""The systems that a subcommand works on: by their keys, their hyperparameters, and how large they are."""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Iterable, Mapping

from npattn.attention import CATALOGUE
from npattn.cli.arguments import UsageError
from npattn.hyperparameters import override
from npattn.module import FAMILIES, Family, Module
from npattn.oracle.systems import MOST_CALLERS, SYSTEMS, as_step, callers_of
from npattn.wording import key_meant

__all__ = ["add_families", "configure", "count_numbers", "find_system", "group_by_family", "read_fields"]


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
    if key in systems:
        return systems[key]
    if key in SYSTEMS:
        callers = ", ".join(callers_of(key)[:MOST_CALLERS])
        instead = f", or a system of which it is a step: {callers}" if callers else "; npattn list names the systems"
        raise UsageError(
            f"{key!r} is a primitive, which only npattn golden takes; expected npattn golden {key} --steps{instead}"
        )
    steps = as_step(key)
    if steps:
        raise UsageError(f"{key!r} {steps}")
    raise UsageError(f"unknown system {key!r}{key_meant(key, systems) or ';'} npattn list names them all")


def read_fields(words: Iterable[str]) -> dict[str, str]:
    """Read hyperparameters that are given as FIELD=VALUE.

    Raises
    ------
    UsageError

    Examples
    --------
    >>> read_fields(["channels=64", "inner=cbam"])
    {'channels': '64', 'inner': 'cbam'}
    """
    settings: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise UsageError(f"{word!r} is no FIELD=VALUE, such as channels=64")
        if name in settings:
            raise UsageError(f"{name} is given twice")
        settings[name] = text
    return settings


def configure(module: Module, words: Iterable[str]) -> Module:
    """Change hyperparameters that are given as FIELD=VALUE.

    Raises
    ------
    UsageError
    """
    try:
        return override(module, read_fields(words))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UsageError(str(error)) from error


def add_families(command: argparse.ArgumentParser) -> None:
    """Declare the option that picks the systems of a family; given again it picks another one too."""
    command.add_argument(
        "--family",
        action="append",
        choices=FAMILIES,
        metavar="FAMILY",
        help=f"only systems of this family: {', '.join(FAMILIES[:-1])} or {FAMILIES[-1]}; may be given again",
    )


def group_by_family(families: Collection[Family] | None = None) -> dict[Family, list[str]]:
    """Put the keys of the catalogue together by family, the oldest paper first.

    Parameters
    ----------
    families : collection of str, optional
        Those wanted; by default all.

    Examples
    --------
    >>> groups = group_by_family(["spatial", "channel"])
    >>> list(groups), groups["spatial"][:2]
    (['channel', 'spatial'], ['sliding-window', 'hard'])
    """
    groups = {
        family: sorted(
            (key for key, system in CATALOGUE.items() if system.family == family),
            key=lambda key: CATALOGUE[key].paper.year,
        )
        for family in FAMILIES
        if not families or family in families
    }
    return {family: keys for family, keys in groups.items() if keys}


def count_numbers(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the numbers in arrays of these shapes.

    Examples
    --------
    >>> count_numbers({"weight": (4, 3), "bias": (4,)})
    16
    """
    return sum(math.prod(shape) for shape in shapes.values())

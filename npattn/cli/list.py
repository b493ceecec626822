"""``npattn list``: the systems, one a line, by family and year."""

from __future__ import annotations

import argparse
import textwrap

from npattn.attention import CATALOGUE
from npattn.cli.arguments import Parser, add_command
from npattn.cli.systems import add_families, count_numbers, group_by_family
from npattn.oracle.primitives import PRIMITIVE_SYSTEMS

__all__ = ["add_list"]


def add_list(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    summary = (
        "List the systems by family and year: key, class, paper, and how many numbers\n"
        "a small instance has; and the primitives."
    )
    add_families(add_command(commands, "list", run_list, summary, "npattn list", "npattn list --family channel"))


def run_list(arguments: argparse.Namespace) -> int:
    """Print one line for each system, below its family's name; of all families the primitives too."""
    heading = ("key", "system", "paper", "size")
    groups = {
        family: [
            (
                key,
                (system := CATALOGUE[key]).__name__,
                f"{system.paper.first_author} {system.paper.year}",
                f"{count_numbers(system.example().parameter_shapes()):,}",
            )
            for key in keys
        ]
        for family, keys in group_by_family(arguments.family).items()
    }
    widths = [
        max(map(len, column))
        for column in zip(heading, *(row for rows in groups.values() for row in rows), strict=True)
    ]

    def write(row):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())

    write(heading)
    for family, rows in groups.items():
        print(f"\n{family}")
        for row in rows:
            write(row)
    if not arguments.family:
        print(f"\nprimitives, which golden takes too\n{textwrap.fill('  '.join(PRIMITIVE_SYSTEMS), 80)}")
    return 0

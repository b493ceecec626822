"""``npattn list``: the systems, one a line, by family and year."""

from __future__ import annotations

import argparse

from npattn.attention import CATALOGUE
from npattn.cli.arguments import Parser, add_command
from npattn.cli.systems import add_families, count_numbers, group_by_family

__all__ = ["add_list"]


def add_list(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    summary = "List the systems by family and year: key, class, paper, and how many numbers\na small instance has."
    add_families(add_command(commands, "list", run_list, summary, "npattn list", "npattn list --family channel"))


def run_list(arguments: argparse.Namespace) -> int:
    """Print one line for each system, below its family's name."""
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
    return 0

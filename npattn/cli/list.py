"""``npattn list``: the systems, one a line."""

from __future__ import annotations

import argparse

from npattn.attention import CATALOGUE
from npattn.cli.arguments import Parser, add_command
from npattn.cli.systems import count_numbers

__all__ = ["add_list"]


def add_list(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    summary = "List the systems: key, class, paper, and the parameters of a small instance."
    add_command(commands, "list", run_list, summary, "npattn list")


def run_list(_: argparse.Namespace) -> int:
    """Print one line for each system."""
    rows = [("key", "system", "paper", "params")]
    for key, system in CATALOGUE.items():
        parameters = count_numbers(system.example().parameter_shapes())
        rows.append((key, system.__name__, f"{system.paper.first_author} {system.paper.year}", f"{parameters:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0

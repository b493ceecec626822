"""``npattn show``: the picture of a system at work."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from npattn.attention import CATALOGUE
from npattn.cli.arguments import FORCE_HELP, Parser, UsageError, add_command, parse_seed
from npattn.cli.systems import find_system
from npattn.data import photograph
from npattn.files import whole_file

__all__ = ["add_show"]


def add_show(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    show = add_command(
        commands,
        "show",
        run_show,
        "Draw what a system attends to on the photograph, and what it changes there.\n\n"
        "Needs the extra plot: pip install 'npattn[plot]'.",
        "npattn show se -o se.png",
        "npattn show eca --seed 3 -o eca.pdf --force",
        "npattn show pam --at 75,115",
    )
    show.add_argument("key", metavar="KEY", help="a system, by its key in npattn list")
    show.add_argument(
        "-o", "--output", metavar="FILE", help="picture to write: .png, .pdf, .svg or .jpg (default: KEY.png)"
    )
    show.add_argument("--seed", type=parse_seed, default=0, help="seed of the parameters (default: 0)")
    show.add_argument(
        "--at",
        type=parse_pixel,
        metavar="ROW,COLUMN",
        help="pixel of the photograph whose attention is drawn (default: an eye)",
    )
    show.add_argument("--force", action="store_true", help=FORCE_HELP)


def parse_pixel(text: str) -> tuple[int, int]:
    """Read ROW,COLUMN of a pixel of the photograph."""
    height, width = photograph().shape[:2]
    match = re.fullmatch(r"(\d{1,4}),(\d{1,4})", text)
    if not match or int(match[1]) >= height or int(match[2]) >= width:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no pixel; expected ROW,COLUMN from 0,0 to {height - 1},{width - 1}, such as 75,115"
        )
    return int(match[1]), int(match[2])


def run_show(arguments: argparse.Namespace) -> int:
    """Write the picture."""
    module = find_system(arguments.key).example()
    path = f"{arguments.key}.png" if arguments.output is None else arguments.output
    if arguments.at and not hasattr(module, "attention_map"):
        able = ", ".join(key for key, system in CATALOGUE.items() if hasattr(system.example(), "attention_map"))
        raise UsageError(f"--at: {arguments.key} has no attention from one pixel to the others; expected one of {able}")
    try:
        from npattn.pictures import SUFFIXES, draw
    except ImportError as error:
        raise UsageError(f"matplotlib can't be imported ({error}): pip install 'npattn[plot]'") from error
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path!r}: unknown kind of picture; expected a name that ends in {', '.join(SUFFIXES)}")
    with whole_file(path, force=arguments.force) as temporary:
        draw(module, arguments.seed, arguments.at).savefig(temporary)
    print(path)
    return 0

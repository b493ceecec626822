"""What the subcommands have in common: how they are declared and parsed."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from npattn.cli.streams import complain
from npattn.files import one_line
from npattn.wording import did_you_mean

__all__ = [
    "FORCE_HELP",
    "Parser",
    "UsageError",
    "add_command",
    "parse_jobs",
    "parse_limit",
    "parse_seconds",
    "parse_seed",
]

MAX_JOBS = 1024
MAX_CASES = 1024
OPTION_CUTOFF = 0.6
"""How near the spelling of an option or a choice is to one that may be meant, of 1."""
FORCE_HELP = "replace FILE if it is a regular file, or the one that FILE links to; nothing else is ever replaced"


class UsageError(Exception):
    """What the caller asked for can't be done; the message is one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line."""

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse; FIELD=VALUE may stand after options too."""
        found, rest = self.parse_known_args(args, namespace)
        if hasattr(found, "fields"):
            found.fields = [*found.fields, *(word for word in rest if not word.startswith("-"))]
            rest = [word for word in rest if word.startswith("-")]
        if rest:
            command = found.parser
            options = [word.partition("=")[0] for word in rest if word.startswith("--")]
            meant = did_you_mean(options[0], command._option_string_actions, OPTION_CUTOFF) if options else ""
            command.error(f"unrecognized arguments: {' '.join(rest)}{meant}")
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is none of an argument's choices, and say which may be meant."""
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            listed = ", ".join(map(repr, choices))
            meant = did_you_mean(value, choices, OPTION_CUTOFF)
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{meant} (choose from {listed})")

    def error(self, message: str) -> NoReturn:
        """Leave with exit status 2, pointing to the ``--help``."""
        self.exit(2, f"{self.prog}: {one_line(message)} (see {self.prog} --help)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave once the help is written, so that `main` hears of it if it can't be."""
        if message is None:
            print(end="", flush=True)
        else:
            complain(message)
        sys.exit(status)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help or version; argparse would pass over what can't be written."""
        print(message, end="", file=file)


def add_command(
    commands: argparse._SubParsersAction[Parser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    *examples: str,
) -> Parser:
    """Declare a subcommand, whose arguments the caller adds.

    Parameters
    ----------
    commands : argparse action
        What `ArgumentParser.add_subparsers` returned.
    name : str
    run : callable
        Called with the parsed arguments; returns the exit status.
    summary : str
        Help on the whole, whose first sentence stands in the list of commands.
    *examples : str
        Command lines.

    Returns
    -------
    Parser
    """
    command = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].partition(".")[0],
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
    )
    command.set_defaults(run=run, parser=command)
    return command


def parse_jobs(text: str) -> int:
    """Read a number of processes.

    Examples
    --------
    >>> parse_jobs("4")
    4
    """
    return parse_number(text, MAX_JOBS, "processes")


def parse_limit(text: str) -> int:
    """Read a number of cases."""
    return parse_number(text, MAX_CASES, "cases")


def parse_seconds(text: str) -> float:
    """Read how many seconds something may take.

    Examples
    --------
    >>> parse_seconds("2.5")
    2.5
    """
    if not re.fullmatch(r"\d{1,5}(\.\d{1,6})?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds; expected one above 0, such as 20")
    return float(text)


def parse_number(text: str, most: int, of: str) -> int:
    """Read how many of something there are to be: one at least."""
    if not re.fullmatch(r"\d{1,4}", text) or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of {of}; expected a whole number from 1 to {most}")
    return int(text)


def parse_seed(text: str) -> int:
    """Read a seed.

    Raises
    ------
    argparse.ArgumentTypeError
    """
    if not re.fullmatch(r"\d{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; expected a whole number from 0 to 999999999")
    return int(text)

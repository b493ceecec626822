"""``npattn golden --suite``: many golden files in a folder."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor

from npattn.cli.arguments import Parser, UsageError, parse_jobs, parse_limit
from npattn.cli.streams import bar, progress, say, terminal_width
from npattn.cli.systems import find_system, read_fields
from npattn.files import one_line
from npattn.hyperparameters import read_settings
from npattn.oracle import Recipe, cases, suite, worker_processes
from npattn.oracle.cases import FORMATS_SWEPT, KINDS
from npattn.oracle.suites import Progress, name_files
from npattn.oracle.systems import SYSTEMS

__all__ = ["add_suite_options", "run_suite"]

SINGLE_CASE_OPTIONS = ("batch", "height", "width", "values", "certify", "force")
"""What can't be asked for beside a suite."""


def add_suite_options(command: Parser) -> None:
    """Declare the options of a suite."""
    group = command.add_argument_group("many files in a folder")
    group.add_argument(
        "--suite",
        nargs="+",
        metavar="KEY",
        help="systems, of each of which all hard cases are made in the folder -o; started again it goes on. "
        "FIELD=VALUE among them are hyperparameters that stay what they are in all cases; the others vary",
    )
    group.add_argument(
        "--list", action="store_true", help="print the files' names and make none; below one that is cut, its id whole"
    )
    group.add_argument("--limit", type=parse_limit, metavar="N", help="at most so many of each system and format")
    group.add_argument(
        "--kinds", nargs="+", choices=KINDS, metavar="KIND", help=f"some of {', '.join(KINDS)} (default: all)"
    )
    where = group.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=parse_jobs, default=1, metavar="N", help="processes at once (default: 1)")
    where.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler on whose workers the cases are made")


def run_suite(arguments: argparse.Namespace) -> int:
    """Make the files, or list them; print what has become of them."""
    for name in SINGLE_CASE_OPTIONS:
        value = getattr(arguments, name)
        if value or (value == 0 and value is not False):
            raise UsageError(f"--suite makes the hard cases of systems, each of its own size: leave --{name} out")
    recipes = list_recipes(arguments)
    if arguments.list:
        for name, recipe in name_files(recipes).items():
            print(name if name == f"{recipe.id}.npz" else f"{name}\n  {recipe.id}")
        return 0
    if arguments.output is None:
        raise UsageError("--suite needs a folder to write to: -o FOLDER (or --list, to see what would be written)")
    with find_executor(arguments) as executor:
        try:
            try:
                report = suite(recipes, arguments.output, executor, steps=arguments.steps, progress=show_progress)
            finally:
                progress("")
        except KeyboardInterrupt:
            say(f"{arguments.output}: interrupted; the same command goes on with what is left")
            raise
    print(report)
    return 0 if report.passed else 1


def list_recipes(arguments: argparse.Namespace) -> list[Recipe]:
    """List the hard cases of the systems that are named, with the hyperparameters that stand among them."""
    apart = [word for word in (arguments.key, *arguments.fields) if word is not None]
    stray = [word for word in apart if "=" not in word]
    if stray:
        raise UsageError(
            f"{stray[0]!r} stands apart from --suite: expected all KEYs behind it, or leave {stray[0]!r} out"
        )
    words = [*arguments.suite, *apart]
    settings = read_fields(word for word in words if "=" in word)
    systems = {word: find_system(word, SYSTEMS) for word in words if "=" not in word}
    if not systems:
        raise UsageError(f"--suite {words[0]}: hyperparameters of which system? expected KEYs of npattn list too")
    recipes: list[Recipe] = []
    for key, system in systems.items():
        try:
            recipes += cases(
                system,
                [arguments.dtype] if arguments.dtype else FORMATS_SWEPT,
                kinds=arguments.kinds,
                limit=arguments.limit,
                seed=arguments.seed,
                **read_settings(system.example(), settings),
            )
        except (TypeError, ValueError, ArithmeticError) as error:
            raise UsageError(f"--suite {key}: {error}") from error
    return recipes


@contextlib.contextmanager
def find_executor(arguments: argparse.Namespace) -> Iterator[Executor | None]:
    """Find where cases are made: in this process, in others, or on Dask's workers."""
    if arguments.dask is None:
        with worker_processes(arguments.jobs) if arguments.jobs > 1 else contextlib.nullcontext() as executor:
            yield executor
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(f"distributed can't be imported ({error}): pip install 'npattn[dask]'") from error
    try:
        client = Client(arguments.dask, timeout=10, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"--dask: no scheduler answers at {arguments.dask!r} ({one_line(str(error), 200)})") from error
    with client:
        yield client.get_executor()


def show_progress(state: Progress) -> None:
    """Draw a bar on a terminal."""
    failed = f", {state.failed} failed" if state.failed else ""
    progress(f"{bar(state.done, state.total)}{failed}  {state.name}"[: terminal_width() - 1])

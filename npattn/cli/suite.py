"""``npattn golden --suite``: many golden files in a folder."""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor

from npattn.cli.arguments import Parser, UsageError, parse_jobs
from npattn.cli.streams import bar, progress, say
from npattn.cli.systems import find_system
from npattn.files import one_line
from npattn.oracle import Recipe, cases, suite, worker_processes
from npattn.oracle.cases import FORMATS_SWEPT, KINDS
from npattn.oracle.suites import Progress
from npattn.oracle.systems import SYSTEMS

__all__ = ["add_suite_options", "run_suite"]

SINGLE_CASE_OPTIONS = ("key", "fields", "batch", "height", "width", "values", "certify", "force")
"""What can't be asked for beside a suite."""


def add_suite_options(command: Parser) -> None:
    """Declare the options of a suite."""
    group = command.add_argument_group("many files in a folder")
    group.add_argument(
        "--suite",
        nargs="+",
        metavar="KEY",
        help="systems, of each of which all hard cases are made in the folder -o; started again it goes on",
    )
    group.add_argument("--limit", type=parse_jobs, metavar="N", help="at most so many of each system and format")
    group.add_argument(
        "--kinds", nargs="+", choices=KINDS, metavar="KIND", help=f"some of {', '.join(KINDS)} (default: all)"
    )
    where = group.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=parse_jobs, default=1, metavar="N", help="processes at once (default: 1)")
    where.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler on whose workers the cases are made")


def run_suite(arguments: argparse.Namespace) -> int:
    """Make the files; print what has become of them."""
    for name in SINGLE_CASE_OPTIONS:
        value = getattr(arguments, name)
        if value or (value == 0 and value is not False):
            given = f"{value!r}" if name in ("key", "fields") else f"--{name}"
            raise UsageError(f"--suite makes the hard cases of systems as they are: leave {given} out")
    fields = [word for word in arguments.suite if "=" in word]
    if fields:
        raise UsageError(
            f"--suite makes the hard cases of systems as they are: leave {fields[0]!r} out; npattn golden KEY "
            f"{fields[0]} makes one case with it, npattn.oracle.suite all of npattn.oracle.cases(KEY, FIELD=VALUE)"
        )
    if arguments.output is None:
        raise UsageError("--suite needs a folder to write to: -o FOLDER")
    recipes: list[Recipe] = []
    for key in dict.fromkeys(arguments.suite):
        recipes += cases(
            find_system(key, SYSTEMS),
            [arguments.dtype] if arguments.dtype else FORMATS_SWEPT,
            kinds=arguments.kinds,
            limit=arguments.limit,
            seed=arguments.seed,
        )
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
    progress(f"{bar(state.done, state.total)}{failed}  {state.name}"[: shutil.get_terminal_size().columns - 1])

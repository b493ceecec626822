"""The ``npattn`` command: list the systems, check, draw and trace them on a photograph, make and use golden files."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Sequence

import npattn
from npattn.cli.arguments import Parser, UsageError
from npattn.cli.check import add_check
from npattn.cli.golden import add_golden
from npattn.cli.list import add_list
from npattn.cli.show import add_show
from npattn.cli.signals import signals_as_exits
from npattn.cli.streams import complain, describe_error, drop_unwritable, say, stderr_or_devnull
from npattn.cli.trace import add_trace
from npattn.cli.train import add_train
from npattn.cli.verify import add_verify
from npattn.oracle import ArchiveError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, prog: str = "npattn") -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.
    prog : str, default "npattn"
        What the command is called in its own messages.

    Returns
    -------
    int
        Exit status: 0 if all is well, 1 if a gradient or a kernel's result is wrong, 2 if the input is bad or the
        output can't be written, 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With status 0 after ``--help`` and ``--version``, 2 if the arguments can't be understood.

    Notes
    -----
    Meanwhile SIGTERM and SIGHUP, unless they are handled or ignored already, end the process with status 143 or 129,
    and leave no half-written file.

    Examples
    --------
    >>> main(["list"])
    key                    system                        paper                 size
    ...
    se                     SqueezeExcitation             Hu et al. 2018        292
    ...
    0
    """
    with stderr_or_devnull(), signals_as_exits():
        try:
            return run_command(argv, prog)
        except KeyboardInterrupt:
            say("\n")
            return 130
        finally:
            drop_unwritable()


def run_command(argv: Sequence[str] | None, prog: str) -> int:
    """Do what the arguments ask for, or say on one line why it can't be done; return the exit status.

    Where verdicts for programs are asked for, an object that says so goes to stdout, too.
    """
    name, status, arguments = prog, 0, argparse.Namespace()
    try:
        if sys.stdout is None:
            raise UsageError("stdout is closed; expected one to write to")
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
            sys.stdout.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks is escaped
        arguments = make_parser(prog).parse_args(argv)
        name = f"{prog} {arguments.command}"
        status = arguments.run(arguments)
        print(end="", flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        return status
    except (UsageError, ArchiveError, OSError) as error:
        reason = describe_error(error)
        complain(f"{name}: {reason}")
        if getattr(arguments, "json", False):  # for the program that reads stdout
            with contextlib.suppress(OSError, ValueError):
                print(json.dumps({"passed": False, "error": reason, "cases": []}, indent=1), flush=True)
        return 2
    return status


def make_parser(prog: str = "npattn") -> Parser:
    """Describe the command line."""
    parser = Parser(
        prog=prog,
        description="The attention systems of the vision literature in plain NumPy: list them, check\n"
        "every gradient on a photograph, draw what they look at, print every step, and\n"
        "judge kernels of your own by golden files.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  npattn list\n  npattn check\n  npattn check se eca --size 28x42\n"
        "  npattn show se -o se.png\n  npattn trace eca --small\n  npattn train se\n"
        "  npattn golden eca channels=64 --dtype float16\n"
        "  npattn verify eca-float16.npz results.npz\n\nnpattn COMMAND --help tells more of each command.",
    )
    parser.add_argument("--version", action="version", version=f"npattn {npattn.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (add_list, add_check, add_show, add_trace, add_train, add_golden, add_verify):
        add(commands)
    return parser

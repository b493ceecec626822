"""``npattn verify``: a kernel's results, judged by a golden file."""

from __future__ import annotations

import argparse
import contextlib
import textwrap

from npattn.cli.arguments import Parser, add_command
from npattn.oracle import load
from npattn.oracle.golden_files import read_results

__all__ = ["add_verify"]


def add_verify(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    verify = add_command(
        commands,
        "verify",
        run_verify,
        "Judge a kernel's results by a golden file.\n\n"
        "RESULTS is an .npz file with any of the golden file's results, named as there:\n"
        "output.npy, x.grad.npy, conv.weight.grad.npy, ... in any floating dtype. For\n"
        "bfloat16 and 8-bit floats .npy has no dtype: write them as float32.\n\n"
        "Exit status: 0 if a correct kernel may have given all of them, 1 if not, 2 if\n"
        "the input is bad.",
        "npattn verify eca-float16.npz results.npz",
    )
    verify.add_argument("golden", metavar="FILE", help="golden file, as npattn golden writes it")
    verify.add_argument("results", metavar="RESULTS", help="the kernel's results (.npz)")


def run_verify(arguments: argparse.Namespace) -> int:
    """Print how far a kernel's results are off."""
    case = load(arguments.golden)
    report = case.compare(read_results(arguments.results, case))
    lines = []
    for line in str(report).splitlines():
        details = line.startswith("  ")
        lines += textwrap.wrap(line, 80, subsequent_indent="    ") if details else [line]
    missing = [name for name in case.expected if name not in report.judgements]
    if missing:
        lines += textwrap.wrap(f"not given: {', '.join(missing)}", 80, subsequent_indent="  ")
    with contextlib.suppress(BrokenPipeError):  # a reader that has seen enough does not change the verdict
        print("\n".join(lines))
    return 0 if report.passed else 1

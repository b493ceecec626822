"""``npattn check``: every gradient of the systems, on the photograph."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Sequence

from npattn.attention import CATALOGUE
from npattn.cli.arguments import Parser, UsageError, add_command, parse_jobs, parse_seed
from npattn.cli.gradients import SystemReport, check_systems
from npattn.cli.photo import CROP_SIZE, checked_size, taken_size
from npattn.cli.streams import progress
from npattn.cli.systems import add_families, count_numbers, find_system, group_by_family
from npattn.cli.timing import format_duration
from npattn.module import Family, Module
from npattn.oracle.threads import count_cores

__all__ = ["add_check"]

MANY_SYSTEMS, MOST_JOBS = 16, 8
"""From how many systems on several processes check them, and how many at most, each of which takes half a second to
start."""


def add_check(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    check = add_command(
        commands,
        "check",
        run_check,
        "Run systems forward and backward on a photograph and check every gradient.\n\n"
        "The full Jacobian is compared with derivatives by complex step on a crop of\n"
        f"{CROP_SIZE[0]}x{CROP_SIZE[1]} positions; at full size, the adjoint identity <dy, J v> = <J' dy, v> is\n"
        "checked in random directions. The error shown is the worse of the two,\n"
        "relative, but for what the rounding of float64 explains. A gradient that is 0\n"
        "in both, as where units are off, is looked at with other parameters too.\n\n"
        "Exit status: 0 if all gradients are right, 1 if one is wrong, 2 if the input is\nbad.",
        "npattn check",
        "npattn check se eca",
        "npattn check --family channel",
        "npattn check --size 28x42 --seed 7",
    )
    check.add_argument("keys", nargs="*", metavar="KEY", help="systems, by their keys in npattn list (default: all)")
    add_families(check)
    check.add_argument(
        "--size",
        type=parse_size,
        metavar="HxW",
        help="positions of the feature map (default: 40x60, or 20x30 where every position looks at all others)",
    )
    check.add_argument("--seed", type=parse_seed, default=0, help="seed of the parameters and directions (default: 0)")
    check.add_argument(
        "--jobs",
        type=parse_jobs,
        metavar="N",
        help=f"processes at once (default: one for each core, if {MANY_SYSTEMS} systems or more are checked)",
    )


def parse_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if not match or not all(1 <= int(number) <= 1024 for number in match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected HxW, each from 1 to 1024, such as 40x60")
    return int(match[1]), int(match[2])


def run_check(arguments: argparse.Namespace) -> int:
    """Print a row for each system; say at the end whether every gradient is right."""
    modules = {key: find_system(key).example() for key in choose_systems(arguments.keys, arguments.family)}
    width = max(6, *map(len, modules))
    print(f"{'system':<{width}}  {'input':<10}{'params':>8}  {'forward':>9} {'backward':>9}  {'error':>7}")
    sizes = {key: arguments.size or checked_size(module) for key, module in modules.items()}
    fitting = {key: module.for_size(*sizes[key]) for key, module in modules.items()}
    plans = [(fitting[key], sizes[key], arguments.seed) for key in modules]
    found: list[SystemReport] = []
    with contextlib.closing(check_systems(plans, arguments.jobs or count_jobs(len(plans)))) as reports:
        for key, module in fitting.items():
            progress(f"checking {key} ({len(found) + 1} of {len(modules)})")
            found.append(next(reports))
            progress("")
            print_system(key, width, module, found[-1])
            taken = taken_size(module, sizes[key])
            if taken != sizes[key]:
                size = "x".join(map(str, sizes[key]))
                print(f"  on {'x'.join(map(str, taken))} positions: it takes no map of {size}")
    print(verdict(found))
    return 0 if all(system.passed for system in found) else 1


def count_jobs(systems: int) -> int:
    """Return how many processes check so many systems at once: a few would be done before others have begun."""
    return 1 if systems < MANY_SYSTEMS else min(count_cores(), MOST_JOBS)


def choose_systems(keys: Sequence[str], families: Sequence[Family] | None) -> list[str]:
    """Name the systems that are asked for, each once, by key or by family; all where neither is."""
    if keys and families:
        raise UsageError(f"expected systems by KEY or by --family, got both ({keys[0]}, --family {families[0]})")
    if not families:
        return list(dict.fromkeys(keys or CATALOGUE))
    wanted = set().union(*group_by_family(families).values())
    return [key for key in CATALOGUE if key in wanted]


def print_system(key: str, width: int, module: Module, system: SystemReport) -> None:
    """Print the row of one system, and below it what is wrong."""
    print(
        f"{key:<{width}}  {'x'.join(map(str, system.input_shape)):<10}{count_numbers(module.parameter_shapes()):>8,}  "
        f"{format_duration(system.forward):>9} {format_duration(system.backward):>9}  {system.worst.error:>7.1e}  "
        f"{'ok' if system.passed else 'WRONG'}",
        flush=True,
    )
    if module.estimator:
        print(f"  checked against what its {module.estimator} estimator differentiates")
    for report in system.reports:
        if not report.passed:
            print("  " + str(report).replace("\n", "\n  "))


def verdict(found: Sequence[SystemReport]) -> str:
    """Say of all systems whether every gradient is right."""
    wrong = sum(not system.passed for system in found)
    if wrong:
        inexact = sum(not system.exact for system in found)
        what = "a wrong gradient" if wrong == inexact else "a gradient that is wrong or untested, or a fault"
        return f"{wrong} of {len(found)} systems with {what}"
    beside = ", or to float64's rounding" if any(system.rounded for system in found) else ""
    return f"every gradient agrees with the complex step to {found[-1].reports[0].tolerance:.0e}{beside}"

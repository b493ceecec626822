"""``npattn golden``: a golden file, for kernels in any language."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import Any

import numpy as np

from npattn.cli.arguments import FORCE_HELP, Parser, UsageError, add_command, parse_seed
from npattn.cli.results import print_given, print_results, print_wrapped
from npattn.cli.streams import bar, progress
from npattn.cli.suite import add_suite_options, run_suite
from npattn.cli.systems import configure, count_numbers, find_system
from npattn.files import whole_file
from npattn.module import Module
from npattn.oracle import FORMATS, golden
from npattn.oracle.formats import find_format
from npattn.oracle.golden_files import write
from npattn.oracle.own import DEFAULT_SIZES
from npattn.oracle.special import VALUES
from npattn.oracle.systems import SYSTEMS

__all__ = ["add_golden"]

CERTIFY: dict[str, bool | str] = {"all": True, "sample": "sample", "none": False}
"""What digits of the exact results are counted by, as the command and `golden` say it."""
MAX_NUMBERS = 2**26
"""Numbers that the parameters and inputs of a golden case may hold: the oracle keeps dozens of arrays of their size."""


def add_golden(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    make = add_command(
        commands,
        "golden",
        run_golden,
        "Write a golden file: inputs, exact results, and the error allowed in each.\n\n"
        "A kernel in any language reads the inputs and parameters from it, which are\n"
        "printed with their shapes, as are the results that are wanted; npattn verify\n"
        "judges what the kernel makes of them. With --steps the file holds every\n"
        "intermediate too, by name, and npattn verify tells which is the first that is\n"
        "off. derivations/golden_files.md describes the format.",
        "npattn golden eca",
        "npattn golden eca channels=64 kernel_size=5 --dtype bfloat16 -o eca.npz",
        "npattn golden cam variant=code --height 28 --width 42 --seed 7",
        "npattn golden eca --steps",
        "npattn golden residual inner=cbam inner.channels=16",
        "npattn golden --suite se eca --dtype float16 --steps --jobs 4 -o cases",
        "npattn golden --suite sdpa causal=bottom-right sink=False -o cases",
    )
    make.add_argument(
        "key", nargs="?", metavar="KEY", help="a system, by its key in npattn list, or a primitive such as ops.softmax"
    )
    make.add_argument(
        "fields",
        nargs="*",
        metavar="FIELD=VALUE",
        help="hyperparameters that differ from those of the small instance, which are printed",
    )
    make.add_argument("--batch", type=parse_batch, metavar="B", help="images, the B of shapes (default: 1)")
    make.add_argument(
        "--height",
        type=parse_length,
        metavar="H",
        help="H of the shapes that are printed: rows of a map, queries of sdpa (default: 16)",
    )
    make.add_argument(
        "--width", type=parse_length, metavar="W", help="W of the shapes: columns of a map, keys of sdpa (default: 16)"
    )
    make.add_argument(
        "--dtype",
        type=parse_format,
        metavar="FORMAT",
        help=f"the kernel's numbers: {', '.join(FORMATS)} (default: float16; of a suite float32, bfloat16 and float16)",
    )
    make.add_argument(
        "--values",
        choices=VALUES,
        metavar="KIND",
        help=f"inputs: {', '.join(VALUES)} (default: generic)",
    )
    make.add_argument("--seed", type=parse_seed, default=0, help="seed of the inputs and parameters (default: 0)")
    make.add_argument(
        "--certify",
        choices=CERTIFY,
        metavar="HOW",
        help="what right digits are counted of: all, sample (of attention's queries; sooner), none (default: all)",
    )
    make.add_argument(
        "-o", "--output", metavar="FILE", help="file to write (default: KEY-FORMAT.npz), or a suite's folder"
    )
    make.add_argument(
        "--steps",
        action="store_true",
        help="also write every step of the pass, forward and backward, with the error allowed in it",
    )
    make.add_argument("--force", action="store_true", help=FORCE_HELP)
    add_suite_options(make)


def parse_length(text: str) -> int:
    """Read a number of rows or columns."""
    return parse_count(text, 1)


def parse_batch(text: str) -> int:
    """Read a number of images, which may be none."""
    return parse_count(text, 0)


def parse_count(text: str, least: int) -> int:
    """Read a whole number within limits."""
    if not re.fullmatch(r"\d{1,4}", text) or not least <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected a whole number from {least} to 1024")
    return int(text)


def parse_format(text: str) -> str:
    """Read a floating-point format's name, or another name of it."""
    try:
        return find_format(text, "--dtype").name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--dtype: ")) from error


def run_golden(arguments: argparse.Namespace) -> int:
    """Write a golden file, or many; print what it asks for."""
    if arguments.suite is not None:
        return run_suite(arguments)
    require_one_case(arguments)
    dtype, values = arguments.dtype or "float16", arguments.values or "generic"
    sizes: dict[str, Any] = {
        size: default if getattr(arguments, size) is None else getattr(arguments, size)
        for size, default in DEFAULT_SIZES.items()
    }
    example = find_system(arguments.key, SYSTEMS).example()
    if arguments.height or arguments.width:
        example = example.for_size(sizes["height"], sizes["width"])
    module = configure(example, arguments.fields)
    check_sizes(module, **sizes)
    path = f"{arguments.key}-{dtype}.npz" if arguments.output is None else arguments.output
    with whole_file(path, force=arguments.force) as temporary:
        what = f"computing {arguments.key} in {dtype}"
        progress(what)
        try:
            case = golden(
                module,
                **sizes,
                dtype=dtype,
                seed=arguments.seed,
                values=values,
                steps=arguments.steps,
                certify=CERTIFY[arguments.certify or "all"],
                progress=lambda done, expected: progress(f"{bar(done, expected)} passes  {what}"),
            )
        finally:
            progress("")
        write(case, temporary, steps=arguments.steps)
    print_wrapped(f"{path}: {case!r}")
    print_given(module, **sizes)
    print_results(case)
    if arguments.steps:
        print_wrapped(f"steps: {', '.join(case.steps())}")
    print("a kernel's results, named as above or some of them, are judged by")
    print(f"  npattn verify {shlex.quote(path)} results.npz")
    return 0


def require_one_case(arguments: argparse.Namespace) -> None:
    """Refuse what belongs to a suite, where none is asked for."""
    if arguments.key is None:
        raise UsageError("which system? expected a KEY of npattn list, or --suite KEY ... -o FOLDER")
    for name, missing in {"list": False, "limit": None, "kinds": None, "jobs": 1, "dask": None}.items():
        if getattr(arguments, name) != missing:
            raise UsageError(f"--{name} is for many files: expected --suite KEY ... -o FOLDER with it")


def check_sizes(module: Module, batch: int, height: int, width: int) -> None:
    """Refuse maps that the module refuses, or that are too large, before anything is computed."""
    shapes = module.input_shapes(batch, height, width)
    numbers = count_numbers(shapes) + count_numbers(module.parameter_shapes())
    if numbers > MAX_NUMBERS:
        raise UsageError(f"{module} and its inputs hold {numbers:,} numbers; expected no more than {MAX_NUMBERS:,}")
    try:
        module.check_inputs(tuple(np.broadcast_to(np.array(0.0), shape) for shape in shapes.values()))
    except ValueError as error:
        raise UsageError(str(error)) from error

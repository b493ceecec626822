"""The ``npattn`` command: list the systems, check and draw them on a photograph, make and use golden files."""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import re
import signal
import statistics
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import npattn
from npattn.attention import CATALOGUE
from npattn.checks import did_you_mean
from npattn.data import photo_features, photograph
from npattn.files import discard_unfinished, one_line, whole_file
from npattn.hyperparameters import override
from npattn.module import Module
from npattn.oracle import FORMATS, ArchiveError, Case, GradcheckReport, generic_values, golden, gradcheck, load
from npattn.oracle.formats import find_format
from npattn.oracle.golden_files import read_results, write
from npattn.oracle.special import VALUES

__all__ = ["main"]

DEFAULT = 40, 60
"""Rows and columns of the map that is checked: a fifth of the photograph's."""
PAIRED = 20, 30
"""The same for systems in which every position looks at all others: their work grows as its square."""
PAIRING = "pam", "danet", "mhsa", "pcm"
CROP = 3, 4
"""Rows and columns of the crop on which the whole Jacobian is compared."""
OTHERS = 20
"""Other parameters and inputs, at most, that are tried where a gradient is 0 at the first ones."""
REPEATS = 5
"""Passes of which the median time is shown."""
FORCE = "replace FILE if it is a regular file, or the one that FILE links to; nothing else is ever replaced"
"""Help on --force."""
LARGEST = 2**26
"""Numbers that the parameters and inputs of a golden case may hold: the oracle keeps dozens of arrays of their size."""


class UsageError(Exception):
    """What the caller asked for can't be done; the message is one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """Parse; FIELD=VALUE may stand after options too."""
        found, rest = self.parse_known_args(args, namespace)
        if hasattr(found, "fields"):
            found.fields += [word for word in rest if not word.startswith("-")]
            rest = [word for word in rest if word.startswith("-")]
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Leave with exit status 2, pointing to ``--help``."""
        self.exit(2, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave once the help is written, so that `main` hears of it if it can't be."""
        if message is None:
            print(end="", flush=True)
        else:
            say(message)
        sys.exit(status)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help or version; argparse would pass over what can't be written."""
        print(message, end="", file=file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0 if all is well, 1 if a gradient or a kernel's result is wrong, 2 if the input is bad or the
        output can't be written, 130 after Ctrl-C.

    Notes
    -----
    Meanwhile SIGTERM and SIGHUP, unless they are handled or ignored already, end the process with status 143 or 129,
    and leave no half-written file.
    """
    with stderr_or_nowhere(), signals_as_exits():
        try:
            return run(argv)
        except KeyboardInterrupt:
            say("\n")
            return 130
        finally:
            drop_unwritable()


def run(argv: Sequence[str] | None) -> int:
    """Do what the arguments ask for, or say on one line why it can't be done; return the exit status."""
    name, status = "npattn", 0
    try:
        if sys.stdout is None:
            raise UsageError("stdout is closed; expected one to write to")
        if getattr(sys.stdout, "errors", None) == "strict":  # what the terminal's encoding lacks is escaped
            sys.stdout.reconfigure(errors="backslashreplace")
        arguments = make_parser().parse_args(argv)
        name = f"npattn {arguments.command}"
        status = arguments.run(arguments)
        print(end="", flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        return status
    except (UsageError, ArchiveError, OSError) as error:
        say(f"{name}: {describe(error)}\n")
        return 2
    return status


def make_parser() -> Parser:
    """Describe the command line."""
    parser = Parser(
        prog="npattn",
        description="The attention systems of the vision literature in plain NumPy: list them, check\n"
        "every gradient on a photograph, draw what they look at, and judge kernels of\n"
        "your own by golden files.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  npattn list\n  npattn check\n  npattn check se eca --size 28x42\n"
        "  npattn show se -o se.png\n  npattn golden eca channels=64 --dtype float16\n"
        "  npattn verify eca-float16.npz results.npz\n\nnpattn COMMAND --help tells more of each command.",
    )
    parser.add_argument("--version", action="version", version=f"npattn {npattn.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[Any], int], summary: str, *examples: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary[0].lower() + summary[1:].partition(".")[0],
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
        )
        command.set_defaults(run=run)
        return command

    add("list", run_list, "List the systems: key, class, paper, and the parameters of a small instance.", "npattn list")

    check = add(
        "check",
        run_check,
        "Run systems forward and backward on a photograph and check every gradient.\n\n"
        "The full Jacobian is compared with derivatives by complex step on a crop of\n"
        f"{CROP[0]}x{CROP[1]} positions; at full size, the adjoint identity <dy, J v> = <J' dy, v> is\n"
        "checked in random directions. The error shown is the worse of the two,\n"
        "relative, but for what the rounding of float64 explains. A gradient that is 0\n"
        "in both, as where units are off, is looked at with other parameters too.\n\n"
        "Exit status: 0 if all gradients are right, 1 if one is wrong, 2 if the input is\nbad.",
        "npattn check",
        "npattn check se eca",
        "npattn check --size 28x42 --seed 7",
    )
    check.add_argument("keys", nargs="*", metavar="KEY", help="systems, by their keys in npattn list (default: all)")
    check.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="positions of the feature map (default: 40x60, or 20x30 where every position looks at all others)",
    )
    check.add_argument("--seed", type=seed, default=0, help="seed of the parameters and directions (default: 0)")

    show = add(
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
    show.add_argument("--seed", type=seed, default=0, help="seed of the parameters (default: 0)")
    show.add_argument(
        "--at",
        type=pixel,
        metavar="ROW,COLUMN",
        help="pixel of the photograph whose attention is drawn (default: an eye)",
    )
    show.add_argument("--force", action="store_true", help=FORCE)

    make = add(
        "golden",
        run_golden,
        "Write a golden file: inputs, exact results, and the error allowed in each.\n\n"
        "A kernel in any language reads the inputs and parameters from it; npattn verify\n"
        "judges what the kernel makes of them. derivations/golden_files.md describes the\n"
        "format.",
        "npattn golden eca",
        "npattn golden eca channels=64 kernel_size=5 --dtype bfloat16 -o eca.npz",
        "npattn golden cam variant=code --height 28 --width 42 --seed 7",
        "npattn golden residual inner=cbam inner.channels=16",
    )
    make.add_argument("key", metavar="KEY", help="a system, by its key in npattn list")
    make.add_argument(
        "fields",
        nargs="*",
        metavar="FIELD=VALUE",
        help="hyperparameters that differ from the small instance's of npattn list",
    )
    make.add_argument("--batch", type=positive, default=1, metavar="B", help="images (default: 1)")
    make.add_argument("--height", type=positive, default=16, metavar="H", help="rows of the map (default: 16)")
    make.add_argument("--width", type=positive, default=16, metavar="W", help="columns of the map (default: 16)")
    make.add_argument(
        "--dtype",
        type=format_name,
        default="float16",
        metavar="FORMAT",
        help=f"the kernel's numbers: {', '.join(FORMATS)} (default: float16)",
    )
    make.add_argument(
        "--values",
        choices=VALUES,
        default="generic",
        metavar="KIND",
        help=f"inputs: {', '.join(VALUES)} (default: generic)",
    )
    make.add_argument("--seed", type=seed, default=0, help="seed of the inputs and parameters (default: 0)")
    make.add_argument("-o", "--output", metavar="FILE", help="file to write (default: KEY-FORMAT.npz)")
    make.add_argument("--force", action="store_true", help=FORCE)

    verify = add(
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
    return parser


def run_list(_: argparse.Namespace) -> int:
    """Print one line for each system."""
    rows = [("key", "system", "paper", "params")]
    for key, system in CATALOGUE.items():
        shapes = system.example().parameter_shapes().values()
        rows.append((key, system.__name__, f"{system.paper.first_author} {system.paper.year}", f"{count(shapes):,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Print a row for each system; say at the end whether every gradient is right."""
    modules = {key: find(key).example() for key in dict.fromkeys(arguments.keys or CATALOGUE)}
    positions = {key: arguments.size or (PAIRED if key in PAIRING else DEFAULT) for key in modules}
    width = max(6, *map(len, modules))
    print(f"{'system':<{width}}  {'input':<10}{'params':>8}  {'forward':>9} {'backward':>9}  {'error':>7}")
    wrong, incorrect, rounded = 0, 0, False
    for done, (key, module) in enumerate(modules.items()):
        progress(f"checking {key} ({done + 1} of {len(modules)})")
        fitting = replace(module, k=min(module.k, math.prod(positions[key]))) if hasattr(module, "k") else module
        params, inputs = photo_values(fitting, positions[key], arguments.seed)
        with np.errstate(all="ignore"):  # the row itself tells of infinities and NaN
            reports = check_gradients(module, fitting, params, inputs, arguments.seed)
            forward, backward = time_passes(fitting, params, inputs)
        passed = all(report.passed for report in reports)
        worst = max(reports, key=lambda report: (np.isnan(report.error), report.error))
        wrong += not passed
        incorrect += not worst.error <= worst.tolerance
        rounded = rounded or any(report.rounding for report in reports)
        progress("")
        print(
            f"{key:<{width}}  {'x'.join(map(str, next(iter(inputs.values())).shape[1:])):<10}"
            f"{count(module.parameter_shapes().values()):>8,}  {forward:>9} {backward:>9}  {worst.error:>7.1e}  "
            f"{'ok' if passed else 'WRONG'}",
            flush=True,
        )
        if module.estimator:
            print(f"  checked against what its {module.estimator} estimator differentiates")
        for report in reports:
            if not report.passed:
                print("  " + str(report).replace("\n", "\n  "))
    if wrong:
        what = "a wrong gradient" if wrong == incorrect else "a gradient that is wrong or untested, or a fault"
        print(f"{wrong} of {len(modules)} systems with {what}")
    else:
        beside = ", or to float64's rounding" if rounded else ""
        print(f"every gradient agrees with the complex step to {reports[0].tolerance:.0e}{beside}")
    return 1 if wrong else 0


def check_gradients(
    module: Module, fitting: Module, params: dict[str, Any], inputs: dict[str, Any], seed: int
) -> list[GradcheckReport]:
    """Check the full Jacobian on a crop, and the adjoint identity at full size of what may be fitted to that size.

    A gradient counts as tested where one of the two sees more of it than zeros. Where all units of a layer are off in
    both, other parameters and maps of random numbers are tried in turn.
    """
    reports = [
        gradcheck(module, *photo_values(module, CROP, seed), method="jacobian", allow_zero=True),
        gradcheck(fitting, params, inputs, method="adjoint", seed=seed, allow_zero=True),
    ]
    untested = set(reports[0].zeros) & set(reports[1].zeros)
    for other in range(OTHERS):
        if untested:
            values = generic_values(module, seed=other)
            reports.append(gradcheck(module, *values, method="adjoint", allow_zero=True))
            untested &= set(reports[-1].zeros)
    first_two = [replace(report, allow_zero=frozenset(report.zeros) - untested) for report in reports[:2]]
    return first_two + reports[2:]


def run_show(arguments: argparse.Namespace) -> int:
    """Write the picture."""
    module = find(arguments.key).example()
    path = f"{arguments.key}.png" if arguments.output is None else arguments.output
    if arguments.at and not hasattr(module, "attention_map"):
        able = ", ".join(key for key, system in CATALOGUE.items() if hasattr(system.example(), "attention_map"))
        raise UsageError(f"--at: {arguments.key} has no attention from one pixel to the others; expected one of {able}")
    try:
        from npattn.picture import FORMATS, draw
    except ImportError as error:
        raise UsageError(f"matplotlib can't be imported ({error}): pip install 'npattn[plot]'") from error
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"{path!r}: unknown kind of picture; expected a name that ends in {', '.join(FORMATS)}")
    with whole_file(path, force=arguments.force) as temporary:
        draw(module, arguments.seed, arguments.at).savefig(temporary)
    print(path)
    return 0


def run_golden(arguments: argparse.Namespace) -> int:
    """Write a golden file; print what it asks for."""
    module = configure(find(arguments.key).example(), arguments.fields)
    sizes = {"batch": arguments.batch, "height": arguments.height, "width": arguments.width}
    check_sizes(module, **sizes)
    path = f"{arguments.key}-{arguments.dtype}.npz" if arguments.output is None else arguments.output
    with whole_file(path, force=arguments.force) as temporary:
        progress(f"computing {arguments.key} in {arguments.dtype}")
        try:
            case = golden(module, **sizes, dtype=arguments.dtype, seed=arguments.seed, values=arguments.values)
        finally:
            progress("")
        write(case, temporary)
    print("\n".join(textwrap.wrap(f"{path}: {case!r}", 80, subsequent_indent="  ")))
    print_results(case)
    return 0


def configure(module: Module, fields: Sequence[str]) -> Module:
    """Change hyperparameters that are given as FIELD=VALUE."""
    settings = {}
    for field in fields:
        name, equals, text = field.partition("=")
        if not (name and equals):
            raise UsageError(f"{field!r} is no FIELD=VALUE, such as channels=64")
        if name in settings:
            raise UsageError(f"{name} is given twice")
        settings[name] = text
    try:
        return override(module, settings)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UsageError(str(error)) from error


def check_sizes(module: Module, batch: int, height: int, width: int) -> None:
    """Refuse maps that the module refuses, or that are too large, before anything is computed."""
    shapes = module.input_shapes(batch, height, width)
    numbers = count(shapes.values()) + count(module.parameter_shapes().values())
    if numbers > LARGEST:
        raise UsageError(f"{module} and its inputs hold {numbers:,} numbers; expected no more than {LARGEST:,}")
    try:
        module.check_inputs(tuple(np.broadcast_to(np.array(0.0), shape) for shape in shapes.values()))
    except ValueError as error:
        raise UsageError(str(error)) from error


def print_results(case: Case) -> None:
    """Print a golden case's results: how large, how much error is allowed, how many digits are right."""
    rows = [("result", "shape", "budget", "digits", "judged")]
    vanishing = False
    for name, expected in case.expected.items():
        judged = np.isfinite(case.budget[name])
        budget, digits = "-", case.digits[name]
        if judged.any():
            size = np.sqrt(np.mean(np.square(expected[judged])))
            typical = np.median(case.budget[name][judged])
            vanishing |= bool(size < 1e-3 * typical)
            budget = f"{typical / size:.1e}" if size else "inf"
        rows.append(
            (
                name,
                "x".join(map(str, expected.shape)),
                budget,
                "?" if math.isnan(digits) else f"{digits:.1f}",
                f"{np.mean(judged):.0%}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, shape, *numbers in rows:
        cells = [f"{number:>{width}}" for number, width in zip(numbers, widths[2:], strict=True)]
        print(f"{name:<{widths[0]}}  {shape:<{widths[1]}} {' '.join(cells)}")
    print(
        "budget: of a typical element, relative to the result's root mean square\n"
        "digits: how many decimal digits of the expected result are right\n"
        "judged: share of the elements that the format can hold"
    )
    if vanishing:
        print("A budget far above 1 is that of a result which is 0, but for rounding.")


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


def photo_values(module: Module, positions: tuple[int, int], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw generic parameters and inputs, and put the photograph's features in the place of maps.

    A map of a few positions is cut from the middle of a larger one, where it shows a part of the photograph.
    """
    height, width = positions
    params, inputs = generic_values(module, batch=1, height=height, width=width, seed=seed)
    rows, columns = max(height, DEFAULT[0]), max(width, DEFAULT[1])
    top, left = (rows - height) // 2, (columns - width) // 2
    for name, x in inputs.items():
        if x.shape[2:] == positions:
            features = cached_features(x.shape[1], rows, columns)
            inputs[name] = features[:, :, top : top + height, left : left + width]
    return params, inputs


@functools.lru_cache(maxsize=2)
def cached_features(channels: int, height: int, width: int) -> np.ndarray:
    """Keep the last maps, since a system is checked on the same one twice, and its neighbours often are too."""
    features = photo_features(channels, height, width)
    features.flags.writeable = False
    return features


def time_passes(module: Module, params: dict[str, Any], inputs: dict[str, Any]) -> tuple[str, str]:
    """Time forward and backward: the median of a few passes, as text."""
    forwards, backwards = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run = module(params, *inputs.values())
        middle = time.perf_counter()
        run.backward(run.output)
        forwards.append(middle - start)
        backwards.append(time.perf_counter() - middle)
    return tuple(duration(statistics.median(times)) for times in (forwards, backwards))


def duration(seconds: float) -> str:
    """Write a time with three digits, and with no exponent."""
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"


def find(key: str) -> type[Module]:
    """Look up a system, or say which key may be meant."""
    if key not in CATALOGUE:
        meant = did_you_mean(key, CATALOGUE, 0.4) or ";"
        raise UsageError(f"unknown system {key!r}{meant} npattn list names them all")
    return CATALOGUE[key]


def count(shapes: Any) -> int:
    """Count the numbers in arrays of these shapes."""
    return sum(math.prod(shape) for shape in shapes)


def size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if not match or not all(1 <= int(number) <= 1024 for number in match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected HxW, each from 1 to 1024, such as 40x60")
    return int(match[1]), int(match[2])


def positive(text: str) -> int:
    """Read a number of images or positions."""
    if not re.fullmatch(r"\d{1,4}", text) or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected a whole number from 1 to 1024")
    return int(text)


def pixel(text: str) -> tuple[int, int]:
    """Read ROW,COLUMN of a pixel of the photograph."""
    height, width = photograph().shape[:2]
    match = re.fullmatch(r"(\d{1,4}),(\d{1,4})", text)
    if not match or int(match[1]) >= height or int(match[2]) >= width:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no pixel; expected ROW,COLUMN from 0,0 to {height - 1},{width - 1}, such as 75,115"
        )
    return int(match[1]), int(match[2])


def format_name(text: str) -> str:
    """Read a floating-point format's name, or another name of it."""
    try:
        return find_format(text, "--dtype").name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--dtype: ")) from error


def seed(text: str) -> int:
    """Read a seed."""
    if not re.fullmatch(r"\d{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; expected a whole number from 0 to 999999999")
    return int(text)


def progress(text: str) -> None:
    """Say on a terminal what is being done, on one line that is wiped by the next; elsewhere say nothing."""
    if sys.stderr and not sys.stderr.closed and sys.stderr.isatty():
        say(f"\r\033[K{text}")


def say(text: str) -> None:
    """Write to stderr. What can't be written there is dropped: it ends no run and changes no exit status."""
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        drop_buffer(sys.stderr)


def describe(error: Exception) -> str:
    """Return an exception's message on one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return one_line(text)


def drop_unwritable() -> None:
    """If stdout can't be written to, drop what waits in its buffer, of which Python would complain again at exit."""
    try:
        print(end="", flush=True)
    except (OSError, ValueError):
        drop_buffer(sys.stdout)


def drop_buffer(stream: Any) -> None:
    """Let what a stream still holds, and all that follows, go nowhere."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@contextlib.contextmanager
def stderr_or_nowhere() -> Iterator[None]:
    """Where stderr is closed, open one that goes nowhere.

    What is meant for it would otherwise go to stdout, and what C libraries write there to the next file that is opened.
    """
    if sys.stderr is not None:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


@contextlib.contextmanager
def signals_as_exits() -> Iterator[None]:
    """Let SIGTERM and SIGHUP remove half-written files before they end the process, with status 128 and their number.

    They end it at once: an exception, as Ctrl-C raises it, waits for the threads that compute, which takes minutes.
    """

    def leave(number: int, _: Any) -> NoReturn:
        discard_unfinished()
        with contextlib.suppress(RuntimeError):  # stderr is being written to just now
            progress("")
        os._exit(128 + number)

    numbers = []
    if threading.current_thread() is threading.main_thread():  # the only one that may
        found = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]  # Windows has no SIGHUP
        # One that is ignored, as nohup does, stays so; one that the caller handles is the caller's.
        numbers = [number for number in found if number and signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, leave)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)

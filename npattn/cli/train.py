"""``npattn train``: a small network learns to name the digits in a map, and its loss is drawn."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from npattn.cli.arguments import FORCE_HELP, Parser, UsageError, add_command, parse_seed
from npattn.cli.streams import progress
from npattn.files import check_path, find_target, whole_file
from npattn.training import SYSTEMS, Training, count_parameters, evaluate, train
from npattn.training.steps import NUM_EPOCHS

__all__ = ["add_train"]

MOST_EPOCHS = 100
CHART_SIZE = 12, 64
"""Rows and columns of the loss curve, which fits a terminal of 80 columns."""
BAR_LENGTH = 30


def add_train(commands: argparse._SubParsersAction[Parser]) -> None:
    """Declare the subcommand."""
    command = add_command(
        commands,
        "train",
        run_train,
        "Train a small network on handwritten digits, with an attention system in it.\n\n"
        "The network names the digit that each pixel of a map belongs to. Maps are made\n"
        "of scans of several sizes among clutter; those that it is tested on are of other\n"
        "digits. The loss is drawn, and how well the pixels of the test maps are\n"
        "classified is said.\n\n"
        "Picture: needs the extra plot: pip install 'npattn[plot]'.",
        "npattn train se",
        "npattn train pam+cam --epochs 4 --seed 1",
        "npattn train none --plot loss.png",
    )
    command.add_argument("key", metavar="KEY", help=f"what attends: {', '.join(SYSTEMS)}")
    command.add_argument(
        "--epochs",
        type=parse_epochs,
        default=NUM_EPOCHS,
        metavar="N",
        help=f"how often each map is seen (default: {NUM_EPOCHS})",
    )
    command.add_argument("--seed", type=parse_seed, default=0, help="seed of parameters and maps (default: 0)")
    command.add_argument("--plot", metavar="FILE", help="picture of the loss to write: .png, .pdf, .svg or .jpg")
    command.add_argument("--force", action="store_true", help=FORCE_HELP)


def parse_epochs(text: str) -> int:
    """Read how many epochs."""
    if not re.fullmatch(r"\d{1,3}", text) or not 1 <= int(text) <= MOST_EPOCHS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of epochs; expected a whole number from 1 to {MOST_EPOCHS}"
        )
    return int(text)


def run_train(arguments: argparse.Namespace) -> int:
    """Train, draw the loss, say how well it went."""
    if arguments.plot is not None:
        check_plot(arguments.plot, arguments.force)
    try:
        steps = train(arguments.key, arguments.epochs, arguments.seed)
        for run in steps:
            progress(training_bar(run))
    except ValueError as error:
        raise UsageError(str(error)) from error
    progress("")
    scores = evaluate(run)
    system = type(run.network.attention).__name__
    print(f"{arguments.key}: {system} in a network of {count_parameters(run.network):,} parameters")
    print(f"loss over {run.total} steps of {arguments.epochs} epoch{'s' * (arguments.epochs > 1)}:")
    print(chart(run.losses))
    for name, values in run.scalars.items():
        print(f"{name}: from {float(run.initial[name][0]):g} to {values[-1]:.3g}")
    print(
        f"test maps: {scores.accuracy:.1%} of pixels right, {scores.digit_accuracy:.1%} of the digits' pixels; "
        f"mean IoU {scores.mean_iou:.3f}"
    )
    if arguments.plot is not None:
        with whole_file(arguments.plot, force=arguments.force) as temporary:
            plot(run, arguments.key, temporary)
        print(arguments.plot)
    return 0


def check_plot(path: str, force: bool) -> None:
    """Refuse a picture that could not be drawn or written, before time is spent on training."""
    try:
        from npattn.pictures import SUFFIXES
    except ImportError as error:
        raise UsageError(f"matplotlib can't be imported ({error}): pip install 'npattn[plot]'") from error
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path!r}: unknown kind of picture; expected a name that ends in {', '.join(SUFFIXES)}")
    find_target(check_path(path), force)


def training_bar(run: Training) -> str:
    """Draw how far training has come."""
    done = len(run.losses) * BAR_LENGTH // run.total
    return f"[{'#' * done}{'.' * (BAR_LENGTH - done)}] step {len(run.losses)} of {run.total}, loss {run.losses[-1]:.3f}"


def chart(losses: Sequence[float]) -> str:
    """Draw a curve with characters, on a logarithmic scale: each column is the mean of the steps that fall on it.

    Examples
    --------
    >>> print(chart([4.0] * 32 + [2.0] * 32).replace(" ", ".")[:70])
    4.00.|********************************................................
    """
    rows, columns = CHART_SIZE
    means = np.array([np.mean(part) for part in np.array_split(np.asarray(losses), min(columns, len(losses)))])
    if not (np.isfinite(means) & (means > 0)).all():
        return "  the loss is not finite everywhere"
    top, bottom = np.log(means.max()), np.log(means.min())
    span = top - bottom or 1.0
    heights = np.rint((top - np.log(means)) / span * (rows - 1))
    lines = []
    for row in range(rows):
        value = np.exp(top - span * row / (rows - 1))
        label = f"{value:4.2f}" if row in {0, rows // 2, rows - 1} else "    "
        lines.append(f"{label} |{''.join('*' if height == row else ' ' for height in heights)}".rstrip())
    return "\n".join([*lines, "     +" + "-" * len(means)])


def plot(run: Training, key: str, path: Path) -> None:
    """Draw the loss of every step, and its mean over an epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(run.losses) + 1)
    axes.semilogy(steps, run.losses, color="0.7", linewidth=0.8, label="each step")
    width = max(1, min(len(run.losses), 20))
    smooth = np.convolve(run.losses, np.ones(width) / width, mode="valid")
    axes.semilogy(steps[width - 1 :], smooth, color="#c8553d", label=f"mean of {width} steps")
    axes.set(xlabel="step", ylabel="cross-entropy", title=f"{key}, {count_parameters(run.network):,} parameters")
    axes.legend()
    figure.savefig(path)

"""What a golden case gives a kernel, and the table of the results that are wanted of it."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterable

import numpy as np

from npattn.calls import takes_heads
from npattn.module import Module
from npattn.oracle import Case
from npattn.oracle.budgets import zeros_pass
from npattn.oracle.comparison import MOST_NAME_WIDTH

__all__ = ["print_given", "print_results", "print_wrapped", "symbolic_shapes"]

NEGLIGIBLE_SHARE = 1e-3
"""Share of its typical budget below which a result's root mean square is nothing but rounding."""
OTHER_SIZES = (5, 336, 504), (7, 504, 336)
"""Batch, height and width at which a shape is looked at too, to tell which of its numbers follow them: what windows
and blocks divide, and what no small instance has of its own."""
UNBROKEN = "\N{NO-BREAK SPACE}"
"""Stands for a space at which no line is broken, until it is printed."""
MOST_PARAMETERS = 6
"""Parameters that are listed with their shapes; the table names the gradients of all."""


def print_given(module: Module, batch: int, height: int, width: int) -> None:
    """Print the arrays that a golden file gives a kernel, and what the sizes of a map are in them."""
    sizes = batch, height, width
    inputs, outputs = (symbolic_shapes(shapes, sizes) for shapes in (module.input_shapes, module.output_shapes))
    listed = {name: write_shape(shape) for name, shape in stored_shapes(module).items()}
    more = f", and {len(listed) - MOST_PARAMETERS} more" if len(listed) > MOST_PARAMETERS else ""
    params = dict(list(listed.items())[:MOST_PARAMETERS])
    for group, shapes in {"inputs": inputs, "params": params, "upstream": outputs}.items():
        if shapes:
            arrays = ", ".join(f"{name} {shape}".replace(" ", UNBROKEN) for name, shape in shapes.items())
            print_wrapped(f"{group}: {arrays}{more if group == 'params' else ''}")
    of = {"H": " queries", "W": " keys"} if takes_heads(module) else {"H": "", "W": ""}
    used = "".join([*inputs.values(), *outputs.values()])
    meanings = {
        "B": f"B = {batch} (--batch)",
        "H": f"H = {height}{of['H']} (--height)",
        "W": f"W = {width}{of['W']} (--width)",
    }
    if any(letter in used for letter in meanings):
        told = (text.replace(" ", UNBROKEN) for letter, text in meanings.items() if letter in used)
        print_wrapped("  " + ", ".join(told))
    choices = [
        f"{field.name}={'|'.join([*field.metadata['options'], *(['None'] if field.default is None else [])])}"
        for field in dataclasses.fields(module)
        if field.metadata.get("options")
    ]
    if choices:
        print_wrapped(f"choices: {', '.join(choices)}")


def print_wrapped(text: str) -> None:
    """Print a line, broken between words where it is longer than 80 columns."""
    lines = textwrap.wrap(text, 80, subsequent_indent="  ", break_on_hyphens=False)
    print("\n".join(lines).replace(UNBROKEN, " "))


def write_shape(lengths: Iterable[object]) -> str:
    """Write a shape, as ``(B, 16, H, W)``."""
    return f"({', '.join(map(str, lengths))})"


def stored_shapes(module: Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of parameters and running statistics."""
    return {**module.parameter_shapes(), **module.buffer_shapes()}


def symbolic_shapes(
    shapes: Callable[[int, int, int], dict[str, tuple[int, ...]]], sizes: tuple[int, int, int]
) -> dict[str, str]:
    """Write shapes at some sizes with B, H and W for those numbers that follow batch, height and width.

    Examples
    --------
    >>> import npattn
    >>> symbolic_shapes(npattn.EfficientChannelAttention(channels=16).input_shapes, (1, 16, 16))
    {'x': '(B, 16, H, W)'}
    """
    tried = [sizes, *OTHER_SIZES]
    found = [shapes(*one) for one in tried]
    names = {
        "B": [b for b, _, _ in tried],
        "H": [h for _, h, _ in tried],
        "W": [w for _, _, w in tried],
        "HW": [h * w for _, h, w in tried],
        "BHW": [b * h * w for b, h, w in tried],
        "2H-1": [2 * h - 1 for _, h, _ in tried],
        "2W-1": [2 * w - 1 for _, _, w in tried],
    }

    def write(lengths: tuple[int, ...]) -> str:
        return next((name for name, those in names.items() if those == list(lengths)), str(lengths[0]))

    return {name: write_shape(map(write, zip(*(one[name] for one in found), strict=True))) for name in found[0]}


def print_results(case: Case) -> None:
    """Print a golden case's results: how large, how much error is allowed, how many digits are right."""
    rows = [("result", "shape", "budget", "digits", "judged")]
    vanishing = False
    for name, expected in case.expected.items():
        judged = np.isfinite(case.budget[name])
        budget, digits = "-", case.digits[name]
        if judged.any():
            finite = expected[judged & np.isfinite(expected)]  # a logsumexp of nothing is -∞
            size = np.sqrt(np.mean(np.square(finite))) if finite.size else 0.0
            typical = np.median(case.budget[name][judged])
            vanishing |= bool(size < NEGLIGIBLE_SHARE * typical)
            budget = f"{typical / size:.1e}" if size else "inf"
        shape = "x".join(map(str, expected.shape))
        share = f"{np.mean(judged):.0%}" if judged.size else "-"
        rows.append((name, shape, budget, "?" if math.isnan(digits) else f"{digits:.1f}", share))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    width = min(widths[0], MOST_NAME_WIDTH)
    for name, shape, *numbers in rows:
        if len(name) > width:
            print(name)
        cells = [f"{number:>{width}}" for number, width in zip(numbers, widths[2:], strict=True)]
        print(f"{name if len(name) <= width else '':<{width}}  {shape:<{widths[1]}} {' '.join(cells)}")
    print(
        "budget: of a typical element, relative to the result's root mean square\n"
        "digits: how many decimal digits of the expected result are right\n"
        "judged: share of the elements that the format can hold"
    )
    blank = [name for name in case.expected if zeros_pass(case.expected[name], case.budget[name], case.limits[name])]
    if blank:
        about = f"Zeros would pass too, as rounding may err by as much as the result is: {', '.join(blank)}"
        print_wrapped(about)
    if vanishing:
        print("A budget far above 1 is that of a result which is 0, but for rounding.")

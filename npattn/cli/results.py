"""The table of a golden case's results."""

from __future__ import annotations

import math
import textwrap

import numpy as np

from npattn.oracle import Case
from npattn.oracle.budgets import zeros_pass
from npattn.oracle.comparison import MOST_NAME_WIDTH

__all__ = ["print_results"]

NEGLIGIBLE_SHARE = 1e-3
"""Share of its typical budget below which a result's root mean square is nothing but rounding."""


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
        print("\n".join(textwrap.wrap(about, 80, subsequent_indent="  ")))
    if vanishing:
        print("A budget far above 1 is that of a result which is 0, but for rounding.")

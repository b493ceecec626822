"""A coarse map brought to a finer grid, how often each of its numbers is read, and what comes back to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photograph
from npattn.ops import resize_nearest
from npattn.pictures.showing import bright, show, signed
from npattn.typing import Array

__all__ = ["draw_repeating"]

STEP, COARSE = 8, (10, 14)
"""The photograph's rows that one row of the fine grid stands for, and the positions of the coarse map."""


def draw_repeating() -> Figure:
    """Draw a coarse map, its numbers at more positions, how many read each, and the sums of what they are off."""
    t = photograph()[::STEP, ::STEP].mean(axis=2) / 255
    x = middles(t)
    y, back = resize_nearest(x[None, None], t.shape)
    error = y - t
    counts, gradient = (back(dy)[0, 0] for dy in (np.ones_like(y), error))
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    (coarse, fine, pairs), (wanted, off, sums) = figure.subplots(2, 3)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": float(t.max())}
    show(coarse, x, f"$x$: {COARSE[0]}×{COARSE[1]}", **grey)
    show(fine, y[0, 0], f"$y$: {t.shape[0]}×{t.shape[1]}", **grey)
    show(pairs, counts, "how many read a number", bar="", shrink=0.8, **bright(counts))
    show(wanted, t, "what $y$ should be", **grey)
    show(off, error[0, 0], "what $y$ is off", bar="", shrink=0.8, **signed(float(np.abs(error).max())))
    show(sums, gradient, r"its sums, $\bar x$", bar="", shrink=0.8, **signed(float(np.abs(gradient).max())))
    return figure


def middles(t: Array) -> Array:
    """Take of a map the number in the middle of every place of a coarse one."""
    rows, columns = ((2 * np.arange(m) + 1) * n // (2 * m) for n, m in zip(t.shape, COARSE, strict=True))
    return t[np.ix_(rows, columns)]

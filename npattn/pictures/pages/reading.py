"""A coarse map read between its numbers, where two conventions differ, and what comes back to each number."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photograph
from npattn.ops import resize_bilinear
from npattn.pictures.pages.repeating import STEP, middles
from npattn.pictures.showing import bright, show, signed

__all__ = ["draw_reading"]


def draw_reading() -> Figure:
    """Draw a coarse map, what is read between its numbers and otherwise by corners, weights, and sums of errors."""
    t = photograph()[::STEP, ::STEP].mean(axis=2) / 255
    x = middles(t)
    (y, back), (by_corners, back_corners) = (resize_bilinear(x[None, None], t.shape, flag) for flag in (False, True))
    error, moved = y - t, (by_corners - y)[0, 0]
    weights, gradient = back_corners(np.ones_like(y))[0, 0], back(error)[0, 0]
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    (coarse, fine, other), (off, sums, shares) = figure.subplots(2, 3)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": float(t.max())}
    show(coarse, x, f"$x$: {x.shape[0]}×{x.shape[1]}", **grey)
    show(fine, y[0, 0], f"$y$: {t.shape[0]}×{t.shape[1]}", **grey)
    show(other, moved, "with aligned corners, less $y$", bar="", shrink=0.8, **signed(float(np.abs(moved).max())))
    show(off, error[0, 0], "what $y$ is off", bar="", shrink=0.8, **signed(float(np.abs(error).max())))
    show(sums, gradient, r"its weighted sums, $\bar x$", bar="", shrink=0.8, **signed(float(np.abs(gradient).max())))
    show(shares, weights, "weights of a number, aligned corners", bar="", shrink=0.8, **bright(weights))
    return figure

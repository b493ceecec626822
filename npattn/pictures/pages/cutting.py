"""The photograph moved and cut into windows, and how often a table's entries are read."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photograph
from npattn.ops import cyclic_shift, gather_relative, window_partition
from npattn.pictures.showing import bright, show
from npattn.typing import Array

__all__ = ["draw_cutting"]

STEP, WINDOW, GAP = 2, (32, 32), 5
"""The photograph's rows that one row of the map stands for, positions of a window, and what is left between two."""


def lay_apart(windows: Array, rows: int, columns: int) -> Array:
    """Lay windows, (1, 3, R, N), side by side with white between them: (H, W, 3)."""
    cut = windows.reshape(3, rows, columns, *WINDOW)
    apart = np.pad(cut, [(0, 0)] * 3 + [(0, GAP)] * 2, constant_values=1.0)
    whole = apart.transpose(1, 3, 2, 4, 0).reshape(rows * (WINDOW[0] + GAP), columns * (WINDOW[1] + GAP), 3)
    return whole[:-GAP, :-GAP]


def draw_cutting() -> Figure:
    """Draw the photograph, the same moved by half a window, its windows, and for each offset the pairs so far apart."""
    x = np.moveaxis(photograph()[::STEP, ::STEP] / 255, -1, 0)[None]
    moved, _ = cyclic_shift(x, (WINDOW[0] // 2, WINDOW[1] // 2))
    windows, _ = window_partition(moved, WINDOW)
    rows, columns = (-(-length // side) for length, side in zip(x.shape[2:], WINDOW, strict=True))
    counts = gather_relative(np.zeros((13, 13, 1)), (7, 7))[1](np.ones((1, 49, 49)))[..., 0]
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1.15, 0.9))
    show(axes[0], x[0].transpose(1, 2, 0), "photograph x")
    show(axes[1], moved[0].transpose(1, 2, 0), "moved by half a window: y")
    show(axes[2], lay_apart(windows, rows, columns), "windows w; zeros fill up")
    title = "pairs of each offset,\nwindows of 7×7"
    show(axes[3], counts, title, bar="", shrink=0.7, ticks=True, extent=(-6.5, 6.5, 6.5, -6.5), **bright(counts))
    axes[3].set(xlabel="columns", ylabel="rows", xticks=(-6, 0, 6), yticks=(-6, 0, 6))
    return figure

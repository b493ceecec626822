"""What the middle four of the sixteen products of a convolution in tiles see of the photograph."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photograph
from npattn.pictures.showing import show, signed

__all__ = ["draw_transformed"]

TWO_OF_THEM = np.array([[0, 1, 1, 0], [0, -1, 1, 0]])
"""Rows 1 and 2 of the page's B, its rows and columns exchanged."""
NAMES = "$x_1 + x_2$", "$x_2 - x_1$"


def draw_transformed() -> Figure:
    """Draw the numbers of every tile that are sums or differences of neighbours, along either axis."""
    x = photograph().mean(axis=2)[::2, ::2]
    cut = np.lib.stride_tricks.sliding_window_view(np.pad(x, 1, mode="edge"), (4, 4))[::2, ::2]
    numbers = np.einsum("ia,hwab,jb->ijhw", TWO_OF_THEM, cut, TWO_OF_THEM)
    figure = Figure(figsize=(9, 6), layout="constrained")
    for (i, j), axis in np.ndenumerate(figure.subplots(2, 2)):
        limit = float(np.quantile(np.abs(numbers[i, j]), 0.99))
        options = signed(limit) if i or j else {"cmap": "gray", "vmin": 0, "vmax": limit}
        show(axis, numbers[i, j], f"{NAMES[i]} of rows, {NAMES[j]} of columns", bar="", **options)
    return figure

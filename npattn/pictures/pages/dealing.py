"""Channels of two groups before and after they are dealt out, and what that lets layers in groups hear."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photo_features
from npattn.ops import channel_shuffle, conv2d
from npattn.pictures.showing import LOWERED, RAISED, show, show_feature
from npattn.typing import Array

__all__ = ["draw_dealing"]

NUM_SHOWN, GROUPS_SHOWN = 6, 2
CHANNELS, GROUPS = 12, 3
"""Of the layers whose matrix is drawn."""


def draw_dealing() -> Figure:
    """Draw six features of two groups before and after the shuffle, and what two layers in three groups hear."""
    each = NUM_SHOWN // GROUPS_SHOWN
    x = photo_features(NUM_SHOWN, 50, 75)
    y, _ = channel_shuffle(x, GROUPS_SHOWN)
    order, _ = channel_shuffle(np.arange(NUM_SHOWN)[None], GROUPS_SHOWN)
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    grid = figure.add_gridspec(2, NUM_SHOWN + 2, width_ratios=[1] * NUM_SHOWN + [1.5] * 2)
    for row, (name, maps, numbers) in enumerate((("x", x, np.arange(NUM_SHOWN)), ("y", y, order[0]))):
        for place, channel in enumerate(numbers):
            title = f"${name}_{place}$" if name == "x" else f"$y_{place} = x_{channel}$"
            colour = (RAISED, LOWERED)[channel // each]
            show_feature(figure.add_subplot(grid[row, place]), maps[0, place], title, colour)
    for column, shuffled in enumerate((False, True)):
        axis = figure.add_subplot(grid[:, NUM_SHOWN + column])
        title = f"{'a' if shuffled else 'no'} shuffle between\ntwo layers"
        show(axis, paths(shuffled), title, ticks=True, fontsize=9, cmap="Blues", vmin=0, vmax=CHANNELS // GROUPS)
        axis.set(xticks=(0, 4, 8), yticks=(0, 4, 8), xlabel="channel in", ylabel="channel out" if not shuffled else "")
    return figure


def paths(shuffled: bool) -> Array:
    """Count the ways from every channel in, (column), to every channel out through two layers in groups."""
    ones = np.ones((CHANNELS, CHANNELS // GROUPS, 1, 1))
    hidden, _ = conv2d(np.eye(CHANNELS)[:, :, None, None], ones, groups=GROUPS)
    dealt, _ = channel_shuffle(hidden, GROUPS if shuffled else 1)
    return conv2d(dealt, ones, groups=GROUPS)[0][:, :, 0, 0].T

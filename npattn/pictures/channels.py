"""Gates of the channels."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photo_filters
from npattn.pictures.scene import Scene
from npattn.pictures.showing import LOWERED, RAISED, show_feature

__all__ = ["draw_channels"]


def draw_channels(figure: SubFigure, scene: Scene) -> None:
    """Draw every channel's gate above or below the median gate, and the maps at both ends of that order."""
    gates, averages = scene.run.attention["channel"][0], scene.x[0].mean(axis=(1, 2))
    order = np.argsort(-gates)
    filters = photo_filters(len(gates))
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.15))
    left = grid[0].subgridspec(2, 1, height_ratios=(3, 1))
    places = range(len(gates))

    axis = figure.add_subplot(left[0])
    middle = np.median(gates)
    colours = [RAISED if gate >= middle else LOWERED for gate in gates[order]]
    axis.bar(places, gates[order] - middle, bottom=middle, color=colours)
    axis.axhline(middle, color="0.5", linewidth=0.8)
    axis.set_title("one gate for each channel, against the median gate", fontsize=10)
    axis.set_ylabel("gate")
    axis.tick_params(labelbottom=False)
    below = figure.add_subplot(left[1], sharex=axis)
    below.bar(places, averages[order], color="0.6")
    below.set(xlabel="channel, in the order of its gate", ylabel="average", xlim=(-0.8, len(gates) - 0.2))
    below.set_xticks(places, order, fontsize=7, rotation=90)
    for bars in (axis, below):
        bars.spines[["top", "right"]].set_visible(False)

    shown = max(1, min(3, len(gates) // 2))
    thumbnails = grid[1].subgridspec(2, shown)
    for row, (channels, colour) in enumerate(((order[:shown], RAISED), (order[-shown:], LOWERED))):
        for column, channel in enumerate(channels):
            title = f"{channel}: times {gates[channel]:.3f}\n{filters[channel]}"
            show_feature(figure.add_subplot(thumbnails[row, column]), scene.x[0, channel], title, colour)

"""Gates of single numbers: every channel has its own at every position."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photo_filters
from npattn.pictures.scene import Scene
from npattn.pictures.showing import RAISED, show, show_feature

__all__ = ["draw_elements"]

NUM_SHOWN = 3
"""Channels that are shown at most."""


def draw_elements(figure: SubFigure, scene: Scene) -> None:
    """Draw what gate belongs to a number by its distance from the mean, and the channels where the gate varies most."""
    x, gates = scene.x[0], scene.run.attention["gate"][0]
    deviations = gates.std(axis=(1, 2))
    order = np.argsort(-deviations)
    constant = bool(np.isclose(deviations, 0).any())  # some channels have one gate for all positions
    scale: dict[str, Any] = {"cmap": "plasma", "vmin": 0, "vmax": 1} if constant else {"cmap": "viridis"}
    filters = photo_filters(len(gates))
    deviation = x.std(axis=(1, 2), keepdims=True)
    distance = (x - x.mean(axis=(1, 2), keepdims=True)) / np.where(deviation == 0, 1, deviation)
    law, maps = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.6)).flat

    axis, below = law.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for channel in order[:NUM_SHOWN]:
        axis.plot(distance[channel].ravel(), gates[channel].ravel(), ".", markersize=2, color=RAISED)
    axis.set_title("one gate for each number", fontsize=10)
    axis.set_ylabel("gate")
    below.hist(distance[order[:NUM_SHOWN]].ravel(), bins=60, color="0.6")
    below.set(xlabel="distance from the channel's mean, in standard deviations", yticks=[], ylabel="how many")
    for each in (axis, below):
        each.spines[["top", "right"]].set_visible(False)

    shown = min(NUM_SHOWN, len(order))
    for column, channel in enumerate(order[:shown]):
        before, gated = (maps.add_subplot(2, shown, row * shown + column + 1) for row in (0, 1))
        show_feature(before, x[channel], f"{channel}: {filters[channel]}")
        extent = f"{gates[channel].min():.2f} to {gates[channel].max():.2f}"
        show(gated, gates[channel], f"{channel}: times {extent}", fontsize=8, **scale)

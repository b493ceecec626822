"""Gates that blocks of positions share."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photo_filters
from npattn.pictures.scene import Scene
from npattn.pictures.showing import show, show_feature

__all__ = ["draw_blocks"]

NUM_SHOWN = 4
"""Channels that are shown at most."""


def draw_blocks(figure: SubFigure, scene: Scene) -> None:
    """Draw the channels where the gates vary most, and their gates."""
    x, gates = scene.x[0], scene.run.attention["blocks"][0]
    filters = photo_filters(len(gates))
    order = np.argsort(-gates.std(axis=(1, 2)))[:NUM_SHOWN]
    axes = figure.subplots(2, len(order), squeeze=False)
    for column, channel in enumerate(order):
        show_feature(axes[0, column], x[channel], f"{channel}: {filters[channel]}")
        extent = f"{gates[channel].min():.2f} to {gates[channel].max():.2f}"
        show(axes[1, column], gates[channel], f"{channel}: times {extent}", fontsize=8, cmap="viridis")

"""Gates that a channel and a position make together."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photo_filters
from npattn.pictures.scene import Scene
from npattn.pictures.showing import LOWERED, RAISED, show, show_feature, signed

__all__ = ["draw_joint"]


def draw_joint(figure: SubFigure, scene: Scene) -> None:
    """Draw what either branch says, and the gates of three channels from the first to the last in that order."""
    attention = {name: maps[0] for name, maps in scene.run.attention.items()}
    channel, spatial, gates = attention["channel_branch"], attention["spatial_branch"][0], attention["gates"]
    order = np.argsort(-channel)
    filters = photo_filters(len(channel))
    branches, maps = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.6)).flat

    bars, position = branches.subplots(2, 1)
    bars.bar(range(len(order)), channel[order], color=np.where(channel[order] > 0, RAISED, LOWERED))
    bars.set_title("channel branch c", fontsize=10)
    bars.set(xlabel="channel, in this order", xlim=(-0.8, len(order) - 0.2))
    bars.set_xticks(range(len(order)), order, fontsize=7, rotation=90)
    bars.spines[["top", "right"]].set_visible(False)
    show(position, spatial, "spatial branch s", bar="", **signed(np.abs(spatial).max()))

    chosen = order[[0, len(order) // 4, -1]]
    for column, each in enumerate(chosen):
        before, gated = (maps.add_subplot(2, 3, row * 3 + column + 1) for row in (0, 1))
        show_feature(before, scene.x[0, each], f"{each}: {filters[each]}")
        extent = f"{1 + gates[each].min():.2f} to {1 + gates[each].max():.2f}"
        show(gated, gates[each], f"{each}: times {extent}", fontsize=8, cmap="viridis")

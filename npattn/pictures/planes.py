"""Gates of the three planes that a map has."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator

from npattn.data import photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import enlarge, show

__all__ = ["draw_planes"]


def draw_planes(figure: SubFigure, scene: Scene) -> None:
    """Draw the gates of the three planes, and the photograph as that of positions lets it through."""
    attention = {name: gate[0] for name, gate in scene.run.attention.items()}
    left, *axes = figure.subplots(1, 5)
    show(left, photograph(), "photograph")
    options: dict[str, Any] = {"bar": "", "cmap": "viridis", "aspect": "auto", "interpolation": "nearest"}
    for axis, gate, title, down, across in (
        (axes[0], attention["cw"][:, 0], "gate of channel, column", "channel", "column"),
        (axes[1], attention["hc"][:, :, 0].T, "gate of row, channel", "row", "channel"),
    ):
        show(axis, gate, title, ticks=True, **options)
        axis.set(xlabel=across, ylabel=down)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_locator(MaxNLocator(5, integer=True))
    show(axes[2], attention["hw"][0], "gate of position", bar="", cmap="viridis")
    light = enlarge(attention["hw"][0])
    light = (light - light.min()) / max(np.ptp(light), 1e-9)
    show(axes[3], (photograph() * light[:, :, None]).astype(np.uint8), "photograph, lit by it")

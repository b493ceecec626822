"""Gates of the positions."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import enlarge, show

__all__ = ["draw_positions"]


def draw_positions(figure: SubFigure, scene: Scene) -> None:
    """Draw the two maps that the gate is made of, the gate, and the photograph as it lets it through."""
    gate = scene.run.attention["spatial"][0, 0]
    light = enlarge(gate)
    light = (light - light.min()) / max(np.ptp(light), 1e-9)
    axes = figure.subplots(1, 4)
    show(axes[0], scene.x[0].max(axis=0), "maximum over the channels", cmap="magma")
    show(axes[1], scene.x[0].mean(axis=0), "mean over the channels", cmap="magma")
    show(axes[2], gate, "gate s", bar="", cmap="viridis")
    show(axes[3], (photograph() * light[:, :, None]).astype(np.uint8), "photograph, lit by the gate")

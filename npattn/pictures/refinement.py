"""Coarse maps and what they become."""

from __future__ import annotations

from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.features import COARSE_PLACES
from npattn.pictures.scene import Scene
from npattn.pictures.showing import show

__all__ = ["draw_refinement"]


def draw_refinement(figure: SubFigure, scene: Scene) -> None:
    """Draw coarse maps and what becomes of them, and how much of the photograph looks like each position."""
    axes = figure.subplots(2, 1 + len(COARSE_PLACES))
    show(axes[0, 0], photograph(), "photograph")
    similarity = scene.run.attention["similarity"][0, 0] / scene.x[0, 0].size
    show(axes[1, 0], similarity, "mean affinity s / N to all positions", bar="", cmap="magma")
    for column, name in enumerate(COARSE_PLACES):
        for row, maps, title in ((0, scene.x, f"coarse map: {name}"), (1, scene.run.output, "refined")):
            values = maps[0, column]
            extent = f"{values.min():.2f} to {values.max():.2f}"
            show(axes[row, 1 + column], values, f"{title}, {extent}", cmap="viridis")

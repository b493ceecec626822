"""Shares of the memories in every position."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import add_class_legend, show, show_classes

__all__ = ["draw_memories"]


def draw_memories(figure: SubFigure, scene: Scene) -> None:
    """Draw which memory every position has most of, and the shares of those three that vary most over the map."""
    shares = scene.run.attention["memory"][0]
    order = np.argsort(-shares.std(axis=(1, 2)))
    largest = np.argsort(order)[shares.argmax(axis=0)]
    axes = figure.subplots(1, 5)
    show(axes[0], photograph(), "photograph")
    show_classes(axes[1], largest, "the largest share", 0.65)
    add_class_legend(axes[1], largest, [f"memory {k}" for k in order], ncols=2)
    for axis, k in zip(axes[2:], order, strict=False):
        title = f"memory {k}: from {shares[k].min():.0%} to {shares[k].max():.0%}"
        show(axis, shares[k], title, bar="", fontsize=9, cmap="viridis")

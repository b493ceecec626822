"""The k positions of the highest scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.scene import NUM_TOP, Scene
from npattn.pictures.showing import LOWERED, RAISED, pixels_per_position, show, show_dimmed
from npattn.pictures.weights import half_share, score_map

__all__ = ["draw_top_k"]


def draw_top_k(figure: SubFigure, scene: Scene) -> None:
    """Draw the scores, what is kept as k grows, and how the output comes to be that of soft attention."""
    scores = score_map(scene.params, scene.x)
    step = pixels_per_position(scores)
    soft = replace(scene.inner, k=scores.size)(scene.params, scene.x).output
    axes = figure.subplots(2, 4)
    show(axes[0, 0], photograph(), "photograph")
    show(axes[0, 1], scores, "scores", bar="", cmap="viridis")
    for axis, k in zip((*axes[0, 2:], *axes[1, :3]), (1, 10, NUM_TOP, 1000, 5000), strict=True):
        weights = replace(scene.inner, k=k)(scene.params, scene.x).attention["weights"][0]
        rows, columns = np.nonzero(weights)
        area = 60 * weights[rows, columns] / weights.max() + 2
        show_dimmed(axis, f"k = {k}: half of the weight on {round(half_share(weights.ravel()) * weights.size)}")
        axis.scatter(step * columns, step * rows, s=area, color=LOWERED, alpha=0.7, linewidth=0)
    ks = np.unique(np.geomspace(1, scores.size, 40).astype(int))
    outputs = (replace(scene.inner, k=int(k))(scene.params, scene.x).output for k in ks)
    distance = np.array([np.linalg.norm(output - soft) for output in outputs])
    axes[1, 3].plot(ks, distance / np.linalg.norm(soft), color=RAISED)
    axes[1, 3].set(xscale="log", xlabel="k", ylabel="relative", box_aspect=2 / 3)
    axes[1, 3].set_title("distance to soft attention's output", fontsize=10)

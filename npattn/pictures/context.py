"""What one map of weights gathers."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photo_filters, photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import RAISED, show, show_weights
from npattn.pictures.weights import half_share

__all__ = ["draw_context"]


def draw_context(figure: SubFigure, scene: Scene) -> None:
    """Draw the weights of the positions, and for each channel what they gather beside the average."""
    x, weights = scene.x[0], scene.run.attention["position"][0]
    average, context = x.mean(axis=(1, 2)), (x * weights).sum(axis=(1, 2))
    order = np.argsort(average - context)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.5))
    show(left, photograph(), "photograph")
    half = round(half_share(weights.ravel()) * weights.size)
    show_weights(middle, weights, f"weights a: half on {half} of {weights.size:,} positions")
    places = np.arange(len(order))
    right.bar(places, average[order], color="0.75", label="average over the positions")
    right.plot(places, context[order], "o", color=RAISED, markersize=4, label="context p")
    farthest = photo_filters(len(order))[order[0]]
    right.set_title(f"what is gathered\nfarthest above its average: {farthest}", fontsize=10)
    right.set(xlabel="in the order of the difference: channel", xlim=(-0.8, len(order) - 0.2))
    right.set_xticks(places, order, fontsize=7, rotation=90)
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=8)

"""Scores of a segmentation head."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import add_class_legend, bright, show, show_classes

__all__ = ["draw_scores"]


def draw_scores(figure: SubFigure, scene: Scene) -> None:
    """Draw the photograph, the classes that a head's three scores name, and how sure the first of them is."""
    scores = [y[0] - np.median(y[0], axis=(1, 2), keepdims=True) for y in scene.run.output]
    labels = [score.argmax(axis=0) for score in scores]
    axes = figure.subplots(1, 5)
    show(axes[0], photograph(), "photograph")
    figure.suptitle("classes of one random classifier, balanced", fontsize=10)
    names = "both branches", "position branch alone", "channel branch alone"
    for axis, label, name in zip(axes[1:4], labels, names, strict=True):
        title = name if axis is axes[1] else f"{name}\n{np.mean(label == labels[0]):.0%} as by both"
        show_classes(axis, label, title, opacity=0.65)
    ordered = np.sort(scores[0], axis=0)
    margin = ordered[-1] - ordered[max(-2, -len(ordered))]
    show(axes[4], margin, "both: best class before the next", bar="logits", shrink=0.5, **bright(margin))
    add_class_legend(axes[1], labels[0], [f"class {k}" for k in range(len(scores[0]))], ncols=2)

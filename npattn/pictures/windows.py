"""Windows that find a class."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import SubFigure
from matplotlib.patches import Rectangle

from npattn.data import photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import (
    CLASS_COLOURS,
    add_class_legend,
    bright,
    pixels_per_position,
    show,
    show_classes,
    signed,
)
from npattn.typing import Array

__all__ = ["draw_windows"]


def draw_windows(figure: SubFigure, scene: Scene) -> None:
    """Draw the photograph, the map that the windows see, the foreground they find, the best of them, and the mask."""
    module, run = scene.inner, scene.run
    reweighted = "reweighted" in run.attention
    seen = run.attention["reweighted"][0] if reweighted else scene.x[0]
    strength = np.sqrt(np.mean(seen**2, axis=0))
    foreground = run.output[0, 1:].max(axis=0) - run.output[0, 0]
    limit = max(np.abs(foreground).max(), 1e-9)
    mask = module.mask(run.output)[0]
    step = pixels_per_position(mask)
    axes = figure.subplots(1, 5)
    show(axes[0], photograph(), "photograph")
    show(axes[1], strength, "re-weighted map" if reweighted else "features in", **bright(strength))
    show(axes[2], foreground, "foreground against background", bar="logits", shrink=0.5, **signed(limit))
    show(axes[3], photograph(), "windows of interest")
    for (top, left, bottom, right), label in best_apart(module.regions(run, top=mask.size), shown=4):
        corner, extent = (left * step, top * step), ((right - left) * step, (bottom - top) * step)
        colour = CLASS_COLOURS[label % len(CLASS_COLOURS)]
        axes[3].add_patch(Rectangle(corner, *extent, fill=False, linewidth=2.5, edgecolor=colour))
    show_classes(axes[4], mask, "mask", opacity=0.5)
    add_class_legend(axes[4], mask, ["background", *(f"class {k}" for k in range(1, run.output.shape[1]))])


def best_apart(regions: Any, shown: int) -> list[tuple[Array, int]]:
    """Pick the best windows that do not overlap."""
    picked: list[tuple[Array, int]] = []
    for box, label in zip(regions.boxes[0], regions.labels[0], strict=True):
        if len(picked) < shown and all(
            (box[:2] >= other[2:]).any() or (box[2:] <= other[:2]).any() for other, _ in picked
        ):
            picked.append((box, int(label)))
    return picked

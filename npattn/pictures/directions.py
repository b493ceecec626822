"""Gates of the rows and of the columns."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photo_filters
from npattn.pictures.scene import Scene
from npattn.pictures.showing import add_bar, show, show_feature

__all__ = ["draw_directions"]


def draw_directions(figure: SubFigure, scene: Scene) -> None:
    """Draw each channel's gates along both axes, and the product of the two for the channels where it varies most."""
    attention = scene.run.attention
    down, across = attention["height"][0, :, :, 0], attention["width"][0, :, 0, :]
    product = down[:, :, None] * across[:, None, :]
    order = np.argsort(-product.std(axis=(1, 2)))
    options = {"cmap": "viridis", "vmin": min(down.min(), across.min()), "vmax": max(down.max(), across.max())}
    gates, maps = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.15)).flat
    axes = gates.subplots(2, 1)
    for axis, gate, name, along in ((axes[0], down, "a_h", "row"), (axes[1], across, "a_w", "column")):
        title = f"gates {name}: one for each channel and {along}"
        image = show(axis, gate[order], title, ticks=True, aspect="auto", **options)
        axis.set(xlabel=along, ylabel="channel")
        axis.set_yticks([])
    add_bar(image, axes, shrink=0.7)
    filters = photo_filters(len(product))
    shown = min(3, len(order))
    for column, channel in enumerate(order[:shown]):
        before, gated = (maps.add_subplot(2, shown, row * shown + column + 1) for row in (0, 1))
        show_feature(before, scene.x[0, channel], f"{channel}: {filters[channel]}")
        extent = f"{product[channel].min():.2f} to {product[channel].max():.2f}"
        show(gated, product[channel], f"{channel}: times {extent}", fontsize=8, cmap="viridis")

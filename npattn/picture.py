"""Pictures of what a system attends to on the photograph, and of what it changes there (extra ``plot``)."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure, SubFigure

from npattn.data import photo_features, photo_filters, photograph
from npattn.module import Module, Pass

__all__ = ["FORMATS", "draw"]

FORMATS = (".png", ".pdf", ".svg", ".jpg", ".jpeg")
SIZE = 100, 150
"""Positions of the feature map that is drawn: every second pixel of the photograph."""
KEPT, CUT = "#1f6f8b", "#c8553d"
"""Colours of what is raised and what is lowered."""


def draw(module: Module, seed: int = 0) -> Figure:
    """Draw a system at work on the photograph's features.

    Parameters
    ----------
    module : Module
    seed : int, default 0
        Of the parameters, which are random: the picture shows how the system works, not what training makes of it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    x = photo_features(module.channels, *SIZE)
    run = module(module.init(seed, generic=True), x)
    figure = Figure(figsize=(12, 7), dpi=110, layout="constrained")
    figure.suptitle(f"{module.paper.title} ({module.paper.citation}), random parameters of seed {seed}", fontsize=12)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.6))
    draw_change(above, x, run)
    draw_channels(below, x, run)
    return figure


def draw_change(figure: SubFigure, x: np.ndarray, run: Pass) -> None:
    """Draw the photograph, the strength of its features before and after, and where the balance has moved."""
    before, after = (np.sqrt(np.mean(features[0] ** 2, axis=0)) for features in (x, run.output))
    change = np.log2(after / before)
    change -= np.median(change)
    reach = max(np.quantile(np.abs(change), 0.995), 1e-9)
    axes = figure.subplots(1, 4)
    axes[0].imshow(photograph())
    axes[0].set_title("photograph")
    for axis, strength, title in ((axes[1], before, "features in"), (axes[2], after, "features out")):
        axis.imshow(strength, cmap="magma", vmin=0, vmax=np.quantile(strength, 0.995))
        axis.set_title(f"{title}: root mean square {np.sqrt(np.mean(strength**2)):.2f}")
    image = axes[3].imshow(change, cmap="RdBu", norm=TwoSlopeNorm(0, -reach, reach))
    axes[3].set_title("gain against the median")
    bar = figure.colorbar(image, ax=axes[3], shrink=0.62, label="octaves")
    bar.ax.tick_params(labelsize=8)
    for axis in axes:
        axis.set_axis_off()
        axis.title.set_fontsize(10)


def draw_channels(figure: SubFigure, x: np.ndarray, run: Pass) -> None:
    """Draw every channel's gate above or below the median gate, and the maps at both ends of that order."""
    gates, averages = run.attention["channel"][0], x[0].mean(axis=(1, 2))
    order = np.argsort(-gates)
    filters = photo_filters(len(gates))
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.15))
    left = grid[0].subgridspec(2, 1, height_ratios=(3, 1))
    places = range(len(gates))

    axis = figure.add_subplot(left[0])
    middle = np.median(gates)
    colours = [KEPT if gate >= middle else CUT for gate in gates[order]]
    axis.bar(places, gates[order] - middle, bottom=middle, color=colours)
    axis.axhline(middle, color="0.5", linewidth=0.8)
    axis.set_title("one gate a for each channel, against the median gate", fontsize=10)
    axis.set_ylabel("gate a")
    axis.tick_params(labelbottom=False)
    below = figure.add_subplot(left[1], sharex=axis)
    below.bar(places, averages[order], color="0.6")
    below.set(xlabel="channel, in the order of its gate", ylabel="average p", xlim=(-0.8, len(gates) - 0.2))
    below.set_xticks(places, order, fontsize=7, rotation=90)
    for part in (axis, below):
        part.spines[["top", "right"]].set_visible(False)

    shown = max(1, min(3, len(gates) // 2))
    thumbnails = grid[1].subgridspec(2, shown)
    for row, (channels, colour) in enumerate(((order[:shown], KEPT), (order[-shown:], CUT))):
        for column, channel in enumerate(channels):
            axis = figure.add_subplot(thumbnails[row, column])
            axis.imshow(x[0, channel], cmap="gray", vmin=0, vmax=np.quantile(x[0, channel], 0.99))
            axis.set_title(f"{channel}: times {gates[channel]:.3f}\n{filters[channel]}", fontsize=8, color=colour)
            axis.set_axis_off()

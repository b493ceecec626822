"""Matrices that a page speaks of: one that is never made, a Jacobian, and weights in tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from npattn.attention import EfficientChannelAttention
from npattn.data import photo_features
from npattn.ops import conv1d, softmax
from npattn.pictures.features import smooth, standardise
from npattn.pictures.showing import LOWERED, RAISED, show, signed
from npattn.typing import Array

__all__ = ["draw_banded_matrix", "draw_softmax_jacobian", "draw_tiles"]

TILE_SIDE = 8
"""Queries and keys of a tile."""
NUM_TILES = 4
"""Tiles along each side."""


def show_numbers(axis: Axes, matrix: Array, title: str, pattern: str = "{:.2f}", **options: Any) -> None:
    """Show a small matrix with its numbers; zeros are left out."""
    show(axis, matrix, title, fontsize=11, **options)
    for (row, column), value in np.ndenumerate(matrix):
        if value:
            dark = abs(value) > 0.6 * np.abs(matrix).max()
            text = pattern.format(value) if float(pattern.format(value)) else f"{value:.3f}"
            colour = "white" if dark else "black"
            axis.text(column, row, text.replace("-", "−"), ha="center", va="center", fontsize=9, color=colour)


def draw_banded_matrix() -> Figure:
    """Draw the matrix of a convolution over eight channels, as code applies it, and its transpose."""
    module = EfficientChannelAttention(channels=8, kernel_size=3)
    kernel = np.reshape([0.2, 1.0, -0.5], module.parameter_shapes()["conv.weight"])
    matrix = conv1d(np.eye(8), kernel)[0].T  # column i: what the convolution makes of a 1 in channel i
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    show_numbers(
        left,
        matrix,
        "forward, $z = T p$: row c is what gate c sees,\nkernel (0.2, 1, −0.5)",
        "{:.1f}",
        ticks=True,
        **signed(1.2),
    )
    show_numbers(
        right,
        matrix.T,
        "backward, $\\bar p = T^\\top \\bar z$: the same diagonals,\nkernel (−0.5, 1, 0.2)",
        "{:.1f}",
        ticks=True,
        **signed(1.2),
    )
    for axis, (rows, columns) in ((left, ("logit c", "average i")), (right, ("average i", "logit c"))):
        axis.set(xticks=range(8), yticks=range(8), ylabel=rows, xlabel=columns)
        axis.tick_params(length=0)
    return figure


def draw_softmax_jacobian() -> Figure:
    """Draw five weights, and what each logit does to each of them."""
    logits = np.array([2.0, 1.0, 0.0, 1.5, -1.0])
    s, _ = softmax(logits)
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    left.bar(range(5), s, color=RAISED)
    for n, (weight, logit) in enumerate(zip(s, logits, strict=True)):
        left.text(n, weight + 0.01, f"{weight:.2f}", ha="center", fontsize=10)
        left.text(n, -0.04, f"z = {logit:g}".replace("-", "−"), ha="center", va="top", fontsize=9)
    left.set_title("weights $s$", fontsize=11)
    left.set(ylim=(0, s.max() + 0.06), xticks=[], yticks=[])
    left.spines[["top", "right", "left"]].set_visible(False)
    title = (
        "$\\mathrm{diag}(s) - s s^\\top$: more of logit n raises its own\n"
        "weight and lowers the others, the large ones most"
    )
    show_numbers(right, np.diag(s) - np.outer(s, s), title, ticks=True, **signed(0.3))
    right.set(xticks=range(5), yticks=range(5), xlabel="logit n", ylabel="weight i")
    right.tick_params(length=0)
    return figure


def photo_weights() -> Array:
    """Make softmax weights of some positions of the photograph for one another, by similarity."""
    x = standardise(smooth(photo_features(16, 20, 30), 0.5))[0]
    tokens = x.reshape(16, -1)[:, 150 : 150 + TILE_SIDE * NUM_TILES]
    tokens = tokens / np.linalg.norm(tokens, axis=0)
    return softmax(6 * tokens.T @ tokens)[0]


def draw_tiles() -> Figure:
    """Draw weights cut into tiles: what a block of queries makes forward, and what a tile adds to backward."""
    weights, side = photo_weights(), TILE_SIDE * NUM_TILES
    figure = Figure(figsize=(9, 5.3), layout="constrained")
    titles = (
        "forward: a block of queries, all keys;\none row of tiles gives $o$ and $l$ of its queries",
        "backward: one tile adds to $\\bar q$ of its queries\nand to $\\bar k$, $\\bar v$ of its keys",
    )
    for axis, title in zip(figure.subplots(1, 2), titles, strict=True):
        show(axis, np.sqrt(weights), title, cmap="Greys")
        for edge in range(TILE_SIDE, side, TILE_SIDE):
            for ends in (([edge - 0.5] * 2, [-0.5, side - 0.5]), ([-0.5, side - 0.5], [edge - 0.5] * 2)):
                axis.plot(*ends, color=RAISED, linewidth=0.8)
        axis.set(xlim=(-8.5, side), ylim=(side, -8.5))
    forward, backward = figure.axes
    tile = 1 * TILE_SIDE - 0.5
    mark(forward, (-0.5, tile), side, TILE_SIDE, fill=True)
    mark(backward, (2 * TILE_SIDE - 0.5, tile), TILE_SIDE, TILE_SIDE, fill=True)
    for n in range(NUM_TILES):
        start = n * TILE_SIDE - 0.5
        for axis in (forward, backward):
            mark(axis, (-4.0, start), 2.5, TILE_SIDE, fill=n == 1)
            mark(axis, (start, -4.0), TILE_SIDE, 2.5, fill=axis is forward or n == 2)
    for axis, left, top in ((forward, "q, o", "k, v"), (backward, "$\\bar q$", "$\\bar k$, $\\bar v$")):
        axis.text(-4.4, side / 2, left, ha="right", va="center", fontsize=11)
        axis.text(side / 2, -4.4, top, ha="center", va="bottom", fontsize=11)
    return figure


def mark(axis: Axes, corner: tuple[float, float], width: float, height: float, fill: bool) -> None:
    """Draw a rectangle, filled where it is at work."""
    face = LOWERED if fill else "none"
    axis.add_patch(Rectangle(corner, width, height, facecolor=face, alpha=0.35, edgecolor="none", clip_on=False))
    axis.add_patch(Rectangle(corner, width, height, facecolor="none", edgecolor="0.3", linewidth=1, clip_on=False))

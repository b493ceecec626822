"""A position that is sampled."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import LOWERED, RAISED, pixels_per_position, show, show_dimmed, show_weights, signed
from npattn.pictures.weights import half_share
from npattn.typing import Array

__all__ = ["draw_sampling"]

BLOCK_SIDE = 10
"""Positions along each side of the blocks in which draws are counted."""


def draw_sampling(figure: SubFigure, scene: Scene) -> None:
    """Draw the probabilities, the position that was selected, many that might have been, and what is like it."""
    probability = scene.run.attention["probability"][0]
    logarithm = np.log(probability)
    draws = sample_positions(logarithm)
    (selected,) = np.argwhere(scene.run.attention["selected"][0])
    step = pixels_per_position(probability)
    counts = np.bincount(draws, minlength=logarithm.size).reshape(logarithm.shape)
    drawn, expected = sum_blocks(counts), sum_blocks(len(draws) * probability)
    product = np.tensordot(scene.run.output[0], scene.x[0], 1)
    product -= (product * probability).sum()

    axes = figure.subplots(2, 4)
    show(axes[0, 0], photograph(), f"selected: row {step * selected[0]}, column {step * selected[1]}")
    axes[0, 0].plot(step * selected[1], step * selected[0], "+", color="cyan", markersize=13, markeredgewidth=2.5)
    title = "probability of every position"
    show(axes[0, 1], logarithm / np.log(10), title, bar="power of 10", cmap="viridis")
    show_weights(axes[0, 2], probability, f"half of it on {half_share(probability.ravel()):.1%} of the map")
    show_dimmed(axes[0, 3], "200 other draws")
    rows, columns = np.divmod(draws[:200], scene.size[1])
    axes[0, 3].plot(step * columns, step * rows, ".", color=LOWERED, markersize=5)
    highest = max(drawn.max(), expected.max())
    for axis, values, name, bar in ((axes[1, 0], expected, "expected", None), (axes[1, 1], drawn, "drawn", "")):
        show(axis, values, f"{name} of {len(draws)}, by blocks", bar=bar, cmap="magma", vmin=0, vmax=highest)
    axes[1, 2].plot(expected.ravel(), drawn.ravel(), ".", color=RAISED)
    axes[1, 2].plot([0, highest], [0, highest], color="0.5", linewidth=0.8)
    axes[1, 2].set(xlabel="expected", ylabel="drawn", box_aspect=2 / 3)
    axes[1, 2].set_title("one point for each block", fontsize=10)
    limit = np.quantile(np.abs(product), 0.995)
    show(axes[1, 3], product, "product with the selected feature", bar="", **signed(limit))


def sample_positions(logarithm: Array) -> Array:
    """Draw a thousand positions by the logarithms of their probabilities, as the system draws one."""
    random = np.random.RandomState(0)
    noise = (random.gumbel(size=(50, logarithm.size)) for _ in range(20))
    return np.concatenate([(logarithm.ravel() + some).argmax(axis=1) for some in noise])


def sum_blocks(positions: Array) -> Array:
    """Add up a map in blocks."""
    rows, columns = (length // BLOCK_SIDE for length in positions.shape)
    return positions.reshape(rows, BLOCK_SIDE, columns, BLOCK_SIDE).sum(axis=(1, 3))

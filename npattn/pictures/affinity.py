"""Affinities of the channels."""

from __future__ import annotations

import numpy as np
import scipy
from matplotlib.figure import SubFigure

from npattn.data import photo_filters
from npattn.pictures.scene import Scene
from npattn.pictures.showing import LOWERED, RAISED, show, show_feature
from npattn.typing import Array

__all__ = ["draw_affinity"]


def draw_affinity(figure: SubFigure, scene: Scene) -> None:
    """Draw how alike the channels are, how much each takes in of each other, and the pairs at both ends of that."""
    attention = scene.run.attention
    affinity = attention["affinity"][0]
    channels = len(affinity)
    compared = attention["branch"][0] if "branch" in attention else scene.x[0]
    rows = compared.reshape(channels, -1)
    energy = rows @ rows.T
    norm = np.sqrt(np.diag(energy) + np.finfo(energy.dtype).tiny)  # a rectified channel may be 0 everywhere
    cosine = energy / np.outer(norm, norm)
    order = order_by_similarity(cosine)
    grid = figure.add_gridspec(1, 3, width_ratios=(1, 1, 1.1))
    for place, values, title, low in (
        (0, cosine, "how alike: cosine of two channels", cosine.min()),
        (1, affinity, "affinity: what channel j takes in of channel i", 0),
    ):
        axis = figure.add_subplot(grid[place])
        ordered = values[np.ix_(order, order)]
        show(axis, ordered, title, bar="", shrink=0.6, ticks=True, cmap="magma", vmin=low, vmax=1)
        axis.set(xlabel="channel i", ylabel="channel j")
        axis.set_xticks(range(channels), order, fontsize=6, rotation=90)
        axis.set_yticks(range(channels), order, fontsize=6)

    names = [""] * channels if "branch" in attention else [f"\n{bank}" for bank in photo_filters(channels)]
    thumbnails = grid[2].subgridspec(2, 2)
    pairs = rank_pairs(rows, energy if scene.inner.variant == "paper" else -energy)
    ends = ((pairs[0], "most", RAISED), (pairs[-1], "least", LOWERED)) if pairs else ()
    for row, ((j, i), extent, colour) in enumerate(ends):
        for column, channel, role in (
            (0, j, f"{j} takes in {extent} of {i}"),
            (1, i, f"{i}: affinity {affinity[j, i]:.2g}"),
        ):
            axis = figure.add_subplot(thumbnails[row, column])
            show_feature(axis, compared[channel], f"{role}{names[channel]}", colour)


def order_by_similarity(cosine: Array) -> Array:
    """Order channels so that those which are similar stand together."""
    if len(cosine) == 1:
        return np.array([0])
    distance = np.clip(1 - cosine[np.triu_indices(len(cosine), 1)], 0, None)
    hierarchy = scipy.cluster.hierarchy
    return hierarchy.leaves_list(hierarchy.linkage(distance, "average", optimal_ordering=True))


def rank_pairs(rows: Array, logits: Array) -> list[Array]:
    """List the pairs of channels from the highest affinity to the lowest.

    Many affinities are 0 in this precision; their logarithms still have an order. Of a rectified channel that is 0
    nearly everywhere there is nothing to see.
    """
    logarithms = scipy.special.log_softmax(logits, axis=1)
    live = np.quantile(rows, 0.9, axis=1) > rows.min(axis=1)
    pairs = np.argwhere(np.outer(live, live) & ~np.eye(len(rows), dtype=bool))
    return sorted(pairs, key=lambda pair: -logarithms[*pair])

"""Gates of groups of channels: each group has its own over the positions."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.pictures.scene import Scene
from npattn.pictures.showing import LOWERED, RAISED, show

__all__ = ["draw_groups"]

NUM_SHOWN = 3
"""Groups that are shown at most."""


def draw_groups(figure: SubFigure, scene: Scene) -> None:
    """Draw what gate belongs to a similarity, group by group, and the groups whose gates vary most."""
    x, gates = scene.x[0], scene.run.attention["group"][0]
    features = x.reshape(len(gates), -1, *x.shape[1:])
    similarity = np.einsum("gchw,gc->ghw", features, features.mean(axis=(2, 3)))
    scores = similarity - similarity.mean(axis=(1, 2), keepdims=True)
    scores /= similarity.std(axis=(1, 2), ddof=1, keepdims=True) + 1e-5
    order = np.argsort(-gates.std(axis=(1, 2)))
    shown = order[:NUM_SHOWN]
    law, maps = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.6)).flat

    axis = law.add_subplot()
    for group in order:
        rising = scene.params["weight"].flat[group] > 0
        axis.plot(scores[group].ravel(), gates[group].ravel(), ".", markersize=3, color=RAISED if rising else LOWERED)
    axis.set_title("gates a of every group, in one colour\nthose with a scale w above 0", fontsize=10)
    axis.set(xlabel="score t: similarity, in standard deviations", ylabel="gate a")
    axis.spines[["top", "right"]].set_visible(False)

    for column, group in enumerate(shown):
        before, gated = (maps.add_subplot(2, len(shown), row * len(shown) + column + 1) for row in (0, 1))
        show(before, similarity[group], f"group {group}: similarity", fontsize=8, cmap="magma")
        extent = f"{gates[group].min():.2f} to {gates[group].max():.2f}"
        show(gated, gates[group], f"group {group}: times {extent}", fontsize=8, cmap="viridis")

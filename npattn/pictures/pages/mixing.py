"""Two branches of one channel, what is mixed of them by three pairs of logits, and how much a logit is heard."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from npattn.data import photograph
from npattn.ops import add, gate, softmax
from npattn.pictures.features import smooth
from npattn.pictures.showing import LOWERED, RAISED, show
from npattn.typing import Array

__all__ = ["draw_mixing"]

STEP = 4
"""The photograph's rows that one row of the map stands for."""
DIFFERENCES = -2, 0, 2
"""Of the first branch's logit and the second's."""
FARTHEST = 6.0


def draw_mixing() -> Figure:
    """Draw a fine and a coarse branch and three mixtures of them; weights, and slopes, by what logits differ."""
    grey = photograph()[None, None, ::STEP, ::STEP].mean(axis=4) / 255
    branches = [grey, smooth(grey, 3)]
    figure = Figure(figsize=(9, 4.0), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.1)).flat
    panels = above.subplots(1, 5)
    for axis, u, title in zip(panels, branches, ("$u^1$", "$u^2$"), strict=False):
        show_mixture(axis, u, title)
    for axis, difference in zip(panels[2:], DIFFERENCES, strict=True):
        a, _ = softmax(np.array([difference, 0.0]))
        y, _ = add(*(gate(u, share[None, None])[0] for u, share in zip(branches, a, strict=True)))
        show_mixture(axis, y, f"$a^1 = {a[0]:.2f}$")
    weights, slopes = below.subplots(1, 2)
    z = np.linspace(-FARTHEST, FARTHEST, 241)
    a, back = softmax(np.stack([z, 0 * z]), axis=0)
    heard = back(np.stack([np.ones_like(z), 0 * z]))
    for axis, pair, label, title in (
        (weights, a, "a", "weights"),
        (slopes, heard, r"\bar z", r"gradients, if $\bar a^1 = 1$ and $\bar a^2 = 0$"),
    ):
        for values, which, colour in zip(pair, (1, 2), (RAISED, LOWERED), strict=True):
            axis.plot(z, values, color=colour, label=f"${label}^{which}$")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("$z^1 - z^2$")
        axis.legend(frameon=False, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def show_mixture(axis: Axes, mixture: Array, title: str) -> None:
    """Show a grey map."""
    show(axis, mixture[0, 0], title, cmap="gray", vmin=0, vmax=1, interpolation="nearest")

"""A channel, what each of its positions does to its pools, and soft maxima from the mean to the maximum."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from npattn.data import photo_features
from npattn.ops.global_pooling import GLOBAL_POOLS
from npattn.pictures.showing import LOWERED, RAISED, bright, show
from npattn.typing import Array

__all__ = ["draw_pools"]

CHANNEL, SIZE = 2, (25, 38)
SHARPNESS = 0.25, 1.0, 4.0
"""β, of the soft maxima whose slopes are drawn."""


def draw_pools() -> Figure:
    """Draw a channel, N times the slope of two pools in each of its positions, and soft maxima of every sharpness."""
    x = photo_features(CHANNEL + 1, *SIZE)[:, [CHANNEL]]
    figure = Figure(figsize=(9, 4), layout="constrained")
    (channel, length, values), below = figure.subplots(2, 3)
    show(channel, x[0, 0], "$x$, and its maximum", bar="", shrink=0.8, **bright(x[0, 0]))
    row, column = np.unravel_index(x[0, 0].argmax(), SIZE)
    style: dict[str, Any] = {"s": 90, "facecolors": "none", "edgecolors": "white"}
    channel.scatter([column], [row], **style)
    slopes = x.size * pooled("lp", x)[1]
    show(length, slopes, "slopes of the norm, times $N$", bar="", shrink=0.8, **bright(slopes))
    for axis, beta in zip(below, SHARPNESS, strict=True):
        slopes = x.size * pooled("lse", beta * x)[1]
        title = rf"softmax of $\beta x$ times $N$, $\beta$ = {beta:g}"
        show(axis, slopes, title, bar="", shrink=0.8, fontsize=9, **bright(slopes))
    draw_soft_maxima(values, x)
    return figure


def draw_soft_maxima(axis: Axes, x: Array) -> None:
    """Draw a channel's soft maximum over the sharpness, between its mean and its maximum."""
    sharpness = np.geomspace(0.01, 100, 81)
    axis.semilogx(sharpness, [soft_maximum(x, beta) for beta in sharpness], color=RAISED)
    axis.plot(SHARPNESS, [soft_maximum(x, beta) for beta in SHARPNESS], "o", color=RAISED)
    for name, word in (("avg", "mean"), ("max", "maximum")):
        level, _ = pooled(name, x)
        axis.axhline(level, color=LOWERED, linewidth=1)
        axis.text(0.012, level + 0.1, word, color=LOWERED, fontsize=9)
    axis.set_title(r"soft maximum over $\beta$", fontsize=10)
    axis.set(ylim=(0, 1.2 * float(x.max())))
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def soft_maximum(x: Array, beta: float) -> float:
    """Return the logarithm of the mean exponential of βx, by β."""
    value, _ = pooled("lse", beta * x)
    return (value - np.log(x.size)) / beta


def pooled(name: str, x: Array) -> tuple[float, Array]:
    """Pool a channel, and return with the value what each position does to it, (H, W)."""
    p, back = GLOBAL_POOLS[name](x)
    return p.item(), back(np.ones((1, 1)))[0, 0]

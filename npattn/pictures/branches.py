"""Branches that read at several rates."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.features import EYE
from npattn.pictures.scene import Scene
from npattn.pictures.showing import (
    CLASS_COLOURS,
    bright,
    class_colours,
    hide_axes,
    pixels_per_position,
    show,
    show_dimmed,
)

__all__ = ["draw_branches"]


def draw_branches(figure: SubFigure, scene: Scene) -> None:
    """Draw what the branches read from one pixel, what each answers everywhere, which stands out, and all mixed."""
    answers, rates = scene.run.attention["branches"][0], scene.inner.rates
    *local, image = answers
    means = [*(answer.mean() for answer in local), image.mean()]
    colours = [CLASS_COLOURS[i % len(CLASS_COLOURS)] for i in range(len(answers))]
    columns = -(-(len(local) + 4) // 2)
    taken, *middle, pooled, strongest, mixed = figure.subplots(2, columns).flat[: len(local) + 4]
    draw_taps(taken, rates, pixels_per_position(image), colours[1:])
    titles = ["1×1", *(f"3×3 at rate {rate}" for rate in rates)]
    for axis, answer, title in zip(middle, local, titles, strict=True):
        show(axis, answer, title, **bright(answer))
    pooled.bar(range(len(means)), means, color=colours)
    pooled.set_xticks(range(len(means)), ["1×1", *rates, "image"], fontsize=8)
    pooled.set_title("mean answer of each branch", fontsize=10)
    pooled.spines[["top", "right"]].set_visible(False)
    relative = answers / np.maximum(means, 1e-9)[:, None, None]
    rank = relative[: len(local)].argmax(axis=0)
    show(strongest, class_colours(rank, colours), "branch farthest above its mean")
    strength = scene.run.output[0].mean(axis=0)
    show(mixed, strength, "all mixed: mean over the channels", **bright(strength))
    for axis in figure.axes:
        if axis is not pooled:
            hide_axes(axis)


def draw_taps(axis: Axes, rates: tuple[int, ...], step: int, colours: list[str]) -> None:
    """Draw from which pixels the eye's position reads at each rate."""
    height, width = photograph().shape[:2]
    show_dimmed(axis, "what the eye's position reads")
    row, column = EYE
    for rate, colour in zip(rates, colours, strict=False):
        taps = [(row + i * rate * step, column + j * rate * step) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        inside = [(r, c) for r, c in taps if 0 <= r < height and 0 <= c < width]
        axis.plot(*np.array(inside).T[::-1], "s", color=colour, markersize=5, label=f"rate {rate}")
    axis.legend(fontsize=7, loc="lower right")

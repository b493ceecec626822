"""How panels show a map: one way, with a few kinds of maps on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm, to_rgb
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from npattn.data import photograph
from npattn.typing import Array

__all__ = [
    "CLASS_COLOURS",
    "LOWERED",
    "RAISED",
    "add_bar",
    "add_class_legend",
    "bright",
    "class_colours",
    "enlarge",
    "hide_axes",
    "pixels_per_position",
    "show",
    "show_classes",
    "show_dimmed",
    "show_feature",
    "show_weights",
    "signed",
]

RAISED, LOWERED = "#1f6f8b", "#c8553d"
"""Colours of what is raised and what is lowered."""
CLASS_COLOURS = "#30343f", "#e4a11b", "#2a9d8f", "#9b5de5", "#c8553d"
"""Colours of the background and of the classes, which take turns."""


def show(
    axis: Axes,
    image: Array,
    title: str,
    *,
    bar: str | None = None,
    shrink: float = 0.62,
    fontsize: float = 10,
    colour: str | None = None,
    ticks: bool = False,
    **options: Any,
) -> AxesImage:
    """Show an image under its title.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
    image : array, (H, W) or (H, W, 3)
    title : str
    bar : str, optional
        What a bar of colours beside the image is labelled with, "" for no label; by default there is no bar.
    shrink : float, default 0.62
        The bar's length, of the axes' height.
    fontsize : float, default 10
        Of the title.
    colour : str, optional
        Of the title.
    ticks : bool, default False
        Whether the axes are marked.
    **options
        Those of `Axes.imshow`: `bright` and `signed` give some.

    Returns
    -------
    matplotlib.image.AxesImage
    """
    shown = axis.imshow(image, **options)
    style: dict[str, Any] = {"color": colour} if colour else {}
    axis.set_title(title, fontsize=fontsize, **style)
    if not ticks:
        hide_axes(axis)
    if bar is not None:
        add_bar(shown, axis, bar, shrink)
    return shown


def hide_axes(axes: Axes) -> None:
    """Show neither frame nor ticks."""
    axes.set_axis_off()
    for axis in (axes.xaxis, axes.yaxis):  # else titles look for ticks to avoid, which are made: a sixth of the time
        axis.set_visible(False)


def add_bar(image: AxesImage, axes: Axes | Sequence[Axes], label: str = "", shrink: float = 0.62) -> None:
    """Put a bar of an image's colours beside one or several pairs of axes."""
    image.axes.figure.colorbar(image, ax=axes, shrink=shrink, label=label).ax.tick_params(labelsize=8)


def bright(values: Array, low: float = 0.0) -> dict[str, Any]:
    """Return the options that show values from dark to bright; the highest 0.5 % are as bright as can be."""
    return {"cmap": "magma", "vmin": low, "vmax": max(np.quantile(values, 0.995), 1e-9)}


def signed(limit: float) -> dict[str, Any]:
    """Return the options that show values from -limit to limit in two colours, 0 in white."""
    return {"cmap": "RdBu", "norm": TwoSlopeNorm(0, -limit, limit)}


def show_feature(axis: Axes, feature: Array, title: str, colour: str | None = None) -> None:
    """Show one channel of a map, small and in grey."""
    show(axis, feature, title, fontsize=8, colour=colour, cmap="gray", vmin=0, vmax=np.quantile(feature, 0.99))


def show_dimmed(axis: Axes, title: str, fontsize: float = 10) -> None:
    """Show the photograph, dark and grey, as a ground for what is drawn over it."""
    show(axis, photograph().mean(axis=2), title, fontsize=fontsize, cmap="gray", vmin=0, vmax=400)


def show_weights(axis: Axes, weights: Array, title: str, fontsize: float = 10) -> None:
    """Show a map's weights over the photograph."""
    heat = enlarge(weights)
    heat = np.minimum(heat / np.quantile(heat, 0.995), 1)
    show_dimmed(axis, title, fontsize)
    axis.imshow(heat, cmap="hot", vmin=0, vmax=1, alpha=0.9 * heat)


def show_classes(axis: Axes, labels: Array, title: str, opacity: float) -> None:
    """Show the class of every position in its colour, over the photograph."""
    show(axis, (1 - opacity) * photograph() / 255 + opacity * enlarge(class_colours(labels)), title)


def class_colours(labels: Array, palette: Sequence[str] = CLASS_COLOURS) -> Array:
    """Return the red, green and blue of every label."""
    return np.array([to_rgb(colour) for colour in palette])[labels % len(palette)]


def add_class_legend(axis: Axes, labels: Array, names: Sequence[str], ncols: int = 1) -> None:
    """Name the classes below the axes, each with the share of the map that it has."""
    handles = [
        Patch(color=CLASS_COLOURS[k % len(CLASS_COLOURS)], label=f"{name}, {np.mean(labels == k):.0%}")
        for k, name in enumerate(names)
    ]
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.02), "frameon": False}
    axis.legend(handles=handles, fontsize=7, ncols=ncols, **place)


def pixels_per_position(values: Array) -> int:
    """Count the photograph's rows that one row of a map stands for."""
    return photograph().shape[0] // len(values)


def enlarge(values: Array) -> Array:
    """Repeat a map's positions up to the size of the photograph."""
    rows, columns = (n // m for n, m in zip(photograph().shape[:2], values.shape[:2], strict=True))
    return values.repeat(rows, axis=0).repeat(columns, axis=1)

"""What layer norm and group norm make of the photograph's features."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photo_features
from npattn.ops import group_norm, layer_norm
from npattn.pictures.showing import bright, show, signed

__all__ = ["draw_norms"]

CHANNELS, GROUPS = 12, 2


def draw_norms() -> Figure:
    """Draw how large the features of every position are, and one channel of them, before and after either norm."""
    x = photo_features(CHANNELS, 50, 75)
    one, zero = np.ones(CHANNELS), np.zeros(CHANNELS)
    by_position = np.moveaxis(layer_norm(np.moveaxis(x, 1, -1), one, zero)[0], -1, 1)
    by_group, _ = group_norm(x, one, zero, GROUPS)
    figure = Figure(figsize=(9, 6), layout="constrained")
    first, *others = figure.subplots(2, 2).flat
    size = np.sqrt((x[0] ** 2).mean(axis=0))
    show(first, size, f"root mean square of {CHANNELS} channels", bar="", **bright(size))
    for axis, maps, name in (
        (others[0], x, "one channel of them"),
        (others[1], by_position, f"after layer norm: {CHANNELS} channels of a position"),
        (others[2], by_group, f"after group norm: {CHANNELS // GROUPS} channels of all positions"),
    ):
        limit = float(np.quantile(np.abs(maps[0, 0]), 0.99))
        show(axis, maps[0, 0], name, bar="", **signed(limit))
    return figure

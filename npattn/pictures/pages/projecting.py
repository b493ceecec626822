"""What batch norm's backward pass takes off a gradient of the photograph's features, and what it leaves."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photo_features, photograph
from npattn.ops import batch_norm
from npattn.pictures.showing import show, signed

__all__ = ["draw_projected"]

SIZE, STEP = (50, 75), 4
"""Positions of the map, and the photograph's rows that one row of it stands for."""


def draw_projected() -> Figure:
    """Draw a channel, a gradient that wants it to be the photograph, what of it is taken off, and what is left."""
    x = photo_features(1, *SIZE)
    one = np.ones(1)
    (y, _), back = batch_norm(x, one, 0 * one, 0 * one, one, training=True, eps=0.0)
    t = photograph()[::STEP, ::STEP].mean(axis=2)
    dy = y - (t - t.mean()) / t.std() + 0.5
    left = back(dy)[0] * x.std()  # without the factor r
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    maps = {
        r"$\hat x$": y,
        r"$\bar y = \hat x - t + \frac{1}{2}$": dy,
        r"taken off, along $\mathbf{1}$ and $\hat x$": dy - left,
        r"left, $\bar x / \gamma r$": left,
    }
    for axis, (title, values) in zip(figure.subplots(2, 2).flat, maps.items(), strict=True):
        length = np.sqrt((values**2).mean())
        name = f"{title}, root mean square {length:.2f}"
        show(axis, values[0, 0], name, bar="", **signed(float(np.quantile(np.abs(values), 0.99))))
    return figure

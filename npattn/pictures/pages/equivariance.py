"""Training by equivariance alone: small steps make a kernel symmetric, large ones make it large."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view

from npattn.attention import equivariance_loss
from npattn.data import photo_features
from npattn.ops import sigmoid
from npattn.pictures.showing import show, signed
from npattn.transforms import Flip
from npattn.typing import Array

__all__ = ["draw_equivariance"]

FLIP = Flip("horizontal")
TRAININGS = {"before": (0.0, 1), "steps of 0.04": (0.04, 600), "steps of 1": (1.0, 300)}
"""Learning rate, which falls to 0, and number of steps."""


def fit_kernel(pooled: Array, rate: float, steps: int) -> tuple[Array, Array, Array]:
    """Descend the loss: the kernel that comes of it, and the attention of the flipped maps and of the maps."""
    maps = np.pad(np.concatenate([FLIP(pooled)[0], pooled]), ((0, 0), (0, 0), (3, 3), (3, 3)))
    windows = sliding_window_view(maps, (7, 7), axis=(2, 3)).transpose(1, 4, 5, 0, 2, 3)
    columns = windows.reshape(98, -1)  # laid out once for all steps: a convolution's maps need no gradient here
    w = np.random.RandomState(0).uniform(-1, 1, 98) / 98**0.5
    for step in range(steps + 1):
        a, back = sigmoid((w @ columns).reshape(2, 1, *pooled.shape[2:]))
        if step < steps:
            _, backward = equivariance_loss(a[:1], a[1:], FLIP)
            w = w - rate * (1 - step / steps) * (columns @ back(np.concatenate(backward())).ravel())
    return w.reshape(1, 2, 7, 7), a[:1], a[1:]


def draw_equivariance() -> Figure:
    """Draw, for each training, the kernel, both attentions and their difference."""
    x = photo_features(8, 20, 30)
    pooled = np.concatenate([x.max(axis=1, keepdims=True), x.mean(axis=1, keepdims=True)], axis=1)
    pooled -= pooled.mean(axis=(2, 3), keepdims=True)
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    for row, (name, (rate, steps)) in zip(figure.subplots(len(TRAININGS), 4), TRAININGS.items(), strict=True):
        w, of_flipped, of_original = fit_kernel(pooled, rate, steps)
        moved, _ = FLIP(of_original)
        off = (of_flipped - moved)[0, 0]
        show(row[0], w[0, 0], f"{name}:\nkernel", bar="", **signed(float(np.abs(w[0, 0]).max())))
        show(row[1], of_flipped[0, 0], "attention\nof the flipped map", cmap="viridis", vmin=0, vmax=1)
        show(row[2], moved[0, 0], "attention of the map,\nflipped", cmap="viridis", vmin=0, vmax=1, bar="")
        title = f"difference,\nmean of its size {np.abs(off).mean():.4f}"
        show(row[3], off, title, bar="", **signed(0.2))
    return figure

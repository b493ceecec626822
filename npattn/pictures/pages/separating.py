"""Channels and what each one's own kernel makes of it, kernels of two layers, and how many taps read a position."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photograph
from npattn.ops import conv2d
from npattn.pictures.showing import bright, show, signed
from npattn.typing import Array

__all__ = ["draw_separating"]

STEP = 5
"""The photograph's rows that one row of the map stands for."""
ACROSS = np.array([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
KERNELS = {"across": ACROSS, "down": ACROSS.T, "mean": np.full((3, 3), 1 / 9)}
"""One for each of red, green and blue."""
NUM_DRAWN, SIDE = 6, 9
"""Channels of the layers whose kernels are drawn, and rows and columns of the map whose taps are counted."""


def draw_separating() -> Figure:
    """Draw red, green and blue and what their kernels give, kernels of two layers, and how many taps read what."""
    x = np.moveaxis(photograph()[::STEP, ::STEP] / 255, -1, 0)[None]
    kernels = np.stack([*KERNELS.values()])[:, None]
    y, _ = conv2d(x, kernels, padding=1, groups=3)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    above, below = figure.subplots(2, 5, width_ratios=(1.3, 1.3, 1.3, 1, 1))
    for channel, name in enumerate(KERNELS):
        show(above[channel], x[0, channel], f"$x_{channel}$", cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if name == "mean":
            show(
                below[channel],
                y[0, channel],
                f"$y_{channel}$: {name}",
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
        else:
            limit = float(np.quantile(np.abs(y[0, channel]), 0.99))
            show(below[channel], y[0, channel], f"$y_{channel}$: {name}", interpolation="nearest", **signed(limit))
    dense = np.random.RandomState(0).standard_normal((NUM_DRAWN, NUM_DRAWN, 3, 3))
    own = dense * np.eye(NUM_DRAWN)[:, :, None, None]
    for axis, weight, groups in ((above[3], dense, 1), (below[3], own, NUM_DRAWN)):
        show(axis, laid_out(weight), f"kernels, {groups} group{'s' * (groups > 1)}", **signed(2.5))
    most = taps(1)
    for axis, stride in ((above[4], 1), (below[4], 2)):
        show(axis, taps(stride), f"taps, stride {stride}", bar="", shrink=0.8, **bright(most))
    return figure


def laid_out(weight: Array) -> Array:
    """Lay kernels, (O, C, 3, 3), beside each other, a row for every channel out, with lines of 0 between."""
    out, channels = weight.shape[:2]
    apart = np.pad(weight, [(0, 0), (0, 0), (0, 1), (0, 1)])
    return apart.swapaxes(1, 2).reshape(4 * out, 4 * channels)[:-1, :-1]


def taps(stride: int) -> Array:
    """Count how many taps of a 3×3 kernel read each position: what comes back of ones through ones."""
    y, back = conv2d(np.zeros((1, 1, SIDE, SIDE)), np.ones((1, 1, 3, 3)), padding=1, stride=stride)
    return back(np.ones_like(y))[0][0, 0]

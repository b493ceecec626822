"""Convolution, norm and activation at work on the photograph, and who hears of one output's gradient."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from npattn.data import photograph
from npattn.layers import conv_norm_act
from npattn.ops import conv2d
from npattn.pictures.showing import bright, show, signed
from npattn.typing import Array, Params

__all__ = ["draw_layers"]

STEP = 4
"""The photograph's rows that one row of the map stands for."""
RATE = 4
KERNEL = np.array([[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]])
"""What a position has more than those round it."""
LEAST_SHARE = 1e-6
"""Share of the largest gradient that is still drawn."""


def photo_layer() -> tuple[Array, Array, Params]:
    """Make the photograph's grey, the same convolved, and a layer whose running statistics are its own."""
    grey = photograph()[::STEP, ::STEP].mean(axis=2)
    t = ((grey - grey.mean()) / grey.std())[None, None]
    z, _ = conv2d(t, KERNEL[None, None], padding=RATE, dilation=RATE)
    statistics = {"layer.1.running_mean": z.mean(keepdims=True).ravel(), "layer.1.running_var": z.var().reshape(1)}
    weights = {"layer.0.weight": KERNEL[None, None], "layer.1.weight": np.ones(1), "layer.1.bias": np.zeros(1)}
    return t, z, weights | statistics


def draw_layers() -> Figure:
    """Draw the steps of the layer, and below them the gradient of one output, in inference and in training."""
    t, z, params = photo_layer()
    gradients = []
    for training in (False, True):
        (s, _), backward = conv_norm_act(t, params, "layer", training=training, dilation=RATE)
        ds = np.zeros_like(s)
        ds[np.unravel_index(s.argmax(), s.shape)] = 1
        gradients.append(np.abs(backward(ds)[0][0, 0]))
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.2)).flat
    axes = above.subplots(1, 4)
    h = (z - z.mean()) / z.std()
    show(axes[0], t[0, 0], "map in t", cmap="gray")
    for axis, values, name in ((axes[1], z, "convolved z"), (axes[2], h, "normalised h")):
        show(axis, values[0, 0], name, bar="", shrink=0.7, **signed(float(np.quantile(np.abs(values), 0.99))))
    show(axes[3], s[0, 0], "map out s", **bright(s))
    names = "inference: the nine taps", "training: everywhere"
    for axis, gradient, name in zip(below.subplots(1, 2), gradients, names, strict=True):
        largest = gradient.max()
        shown = np.maximum(gradient, LEAST_SHARE * largest)  # a logarithm of 0 would leave a hole
        show(axis, shown, name, bar="", cmap="magma", norm=LogNorm(LEAST_SHARE * largest, largest))
    below.suptitle(
        "size of the gradient at every position of t, if that of s is 1 where s is largest, and else 0", fontsize=10
    )
    return figure

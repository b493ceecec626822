"""What a connection past a block does to a gradient: through many blocks, and to the eigenvalues of one."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.attention import EfficientChannelAttention, Residual
from npattn.data import photo_features
from npattn.layers import conv_norm_act
from npattn.module import Module
from npattn.pictures.pages.circuit import GRADIENT, VALUE
from npattn.typing import Array

__all__ = ["draw_depth"]

CHANNELS = 16
DEPTH = 10
SIDE = 5
"""Rows and columns of the map whose eigenvalues are drawn; its layer has four channels."""


def gradient_lengths(block: Module) -> list[float]:
    """Pass a gradient of length 1 back through blocks in a row; return its length before each, the last first."""
    passes, x = [], photo_features(channels=CHANNELS, height=20, width=30)
    for seed in range(DEPTH):
        passes.append(block(block.init(seed), x))
        x = passes[-1].output
    gradient = np.random.RandomState(0).standard_normal(x.shape)
    gradient /= np.linalg.norm(gradient)
    lengths = [1.0]
    for run in reversed(passes):
        gradient, _ = run.backward(gradient)
        lengths.append(float(np.linalg.norm(gradient)))
    return lengths


def layer_eigenvalues() -> Array:
    """Return the eigenvalues of the Jacobian of a convolution, norm and ReLU with random weights."""
    random = np.random.RandomState(0)
    x = random.standard_normal((1, 4, SIDE, SIDE))
    params = {
        "f.0.weight": random.standard_normal((4, 4, 3, 3)) * 0.2,
        "f.1.weight": np.ones(4),
        "f.1.bias": np.zeros(4),
        "f.1.running_mean": np.zeros(4),
        "f.1.running_var": np.ones(4),
    }
    _, backward = conv_norm_act(x, params, "f", training=False)
    rows = [backward(unit.reshape(x.shape))[0].ravel() for unit in np.eye(x.size)]
    return np.linalg.eigvals(np.stack(rows))


def draw_depth() -> Figure:
    """Draw a gradient's length through ten gates, and a layer's eigenvalues, with the connection and without."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    gate = EfficientChannelAttention(CHANNELS)
    for block, factor, colour, name in (
        (Residual(gate), 1.5, VALUE, "$x + f(x)$"),
        (gate, 0.5, GRADIENT, "$f(x)$ alone"),
    ):
        left.semilogy(range(DEPTH + 1), gradient_lengths(block), "o-", color=colour, label=name)
        left.semilogy(range(DEPTH + 1), factor ** np.arange(DEPTH + 1), ":", color="0.5", label=f"${factor}^K$")
    left.set_title("length of a gradient, back through gates", fontsize=11)
    left.set_xlabel("blocks passed, $K$")
    left.legend(fontsize=10)
    eigenvalues = layer_eigenvalues()
    for centre, colour, name in ((0, GRADIENT, "$J$"), (1, VALUE, "$I + J$")):
        right.plot(eigenvalues.real + centre, eigenvalues.imag, "o", color=colour, markersize=4, alpha=0.7, label=name)
    right.axhline(0, color="0.8", zorder=0)
    right.axvline(0, color="0.8", zorder=0)
    right.set_aspect("equal", adjustable="datalim")
    right.set_title("eigenvalues of a 3×3 layer", fontsize=11)
    right.legend(fontsize=10, loc="upper left")
    return figure

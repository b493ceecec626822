"""What a head's scores believe of the photograph's pixels, what is true, and the gradient: the difference."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photo_features, photograph
from npattn.ops import cross_entropy, linear, softmax
from npattn.pictures.features import smooth
from npattn.pictures.showing import bright, show, signed
from npattn.typing import Array

__all__ = ["draw_beliefs"]

SIZE = 50, 75
CHANNELS, CLASSES, IGNORED = 12, 3, 255
STEPS, RATE = 20, 0.5
BORDER = 0.06
"""How near to the brightness between two classes no class is said, as a share of the range."""


def brightness_classes() -> Array:
    """Label the photograph's pixels dark, medium or light, (H, W), and those near a border between these not at all."""
    level = smooth(photograph().mean(axis=2)[None, None], 4)[0, 0, 2::4, 2::4]
    level = np.argsort(np.argsort(level, axis=None, kind="stable"), kind="stable").reshape(SIZE) / level.size
    labels = np.minimum((level * CLASSES).astype(int), CLASSES - 1)
    nearest = np.round(level * CLASSES)
    return np.where((np.abs(level * CLASSES - nearest) < BORDER) & (nearest > 0) & (nearest < CLASSES), IGNORED, labels)


def head_logits(labels: Array) -> Array:
    """Train one linear layer from zero on the features for a few steps, and return its scores, (1, K, H, W)."""
    x = np.moveaxis(photo_features(CHANNELS, *SIZE), 1, -1).reshape(-1, CHANNELS)
    x = x / x.std(axis=0)
    weight, bias = np.zeros((CLASSES, CHANNELS)), np.zeros(CLASSES)
    for _ in range(STEPS):
        z, back_linear = linear(x, weight, bias)
        _, back_loss = cross_entropy(z[..., None, None], labels.reshape(-1, 1, 1), ignore_index=IGNORED)
        _, dweight, dbias = back_linear(back_loss(1.0)[..., 0, 0])
        weight, bias = weight - RATE * dweight, bias - RATE * dbias
    z, _ = linear(x, weight, bias)
    return z.T.reshape(1, CLASSES, *SIZE)


def draw_beliefs() -> Figure:
    """Draw the labels, and for the lightest class the belief, the gradient, and beside it every pixel's loss."""
    labels = brightness_classes()
    z = head_logits(labels)
    p, _ = softmax(z, axis=1)
    counted = labels != IGNORED
    _, backward = cross_entropy(z, labels[None], ignore_index=IGNORED)
    gradient = counted.sum() * backward(1.0)[0, -1]
    truth = np.where(counted, labels, np.nan)
    loss = -np.log(np.take_along_axis(p[0], np.where(counted, labels, 0)[None], axis=0)[0]) * counted
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2).flat
    show(axes[0], truth, "labels: dark, medium, light; none in white", cmap="viridis", vmin=0, vmax=CLASSES - 1)
    show(axes[1], p[0, -1], "belief that a pixel is light, $p$", bar="", **bright(p[0, -1]))
    limit = float(gradient.max())  # of the blue: what is redder is as red as can be
    show(axes[2], gradient, r"gradient of that score, times $M$", bar="", **signed(limit))
    show(axes[3], loss, r"loss of a pixel, $\ell$", bar="", **bright(loss))
    return figure

"""What one pixel says of all others by how far off they are, in rows and in columns."""

from __future__ import annotations

import numpy as np
import scipy
from matplotlib.figure import Figure

from npattn.ops import relative_logits, softmax
from npattn.pictures.attention_maps import unit_features
from npattn.pictures.features import EYE
from npattn.pictures.showing import enlarge, pixels_per_position, show, show_weights, signed
from npattn.typing import Array

__all__ = ["draw_relative"]

SIZE = 20, 30
"""Positions of the map: every tenth pixel of the photograph."""
CHANNELS, SMOOTHNESS, LARGEST_LOGIT = 16, 2, 4


def eye_logits() -> list[Array]:
    """Make the logits of the cat's eye for all keys, (H, W): by rows alone, by columns alone, and by both."""
    q, random = unit_features(CHANNELS, SIZE)[0], np.random.RandomState(0)
    tables = [
        scipy.ndimage.gaussian_filter1d(random.standard_normal((2 * n - 1, CHANNELS)), SMOOTHNESS, axis=0) for n in SIZE
    ]
    rows, columns = (np.divmod(EYE, pixels_per_position(q[0]))[0]).tolist()
    nothing = [0 * table for table in tables]
    pairs = (tables[0], nothing[1]), (nothing[0], tables[1])
    by_each = [relative_logits(q, *pair)[0][rows * SIZE[1] + columns].reshape(SIZE) for pair in pairs]
    by_each = [z * (LARGEST_LOGIT / np.abs(z).max()) for z in by_each]
    return [*by_each, by_each[0] + by_each[1]]


def draw_relative() -> Figure:
    """Draw these logits over the positions of the keys, and the weights that a softmax makes of them."""
    figure = Figure(figsize=(11, 2.2), layout="constrained")
    axes = figure.subplots(1, 4)
    logits = eye_logits()
    names = "rows: $a_k$", "columns: $b_l$", "both: $z_{kl} = a_k + b_l$"
    for axis, z, name in zip(axes, logits, names, strict=False):
        show(axis, enlarge(z), name, bar="", shrink=0.7, **signed(float(np.abs(z).max())))
    show_weights(axes[3], softmax(logits[2].ravel())[0].reshape(SIZE), "softmax of both")
    for axis in axes:
        axis.plot(EYE[1], EYE[0], "+", color="black" if axis is not axes[3] else "cyan", markersize=10)
    return figure

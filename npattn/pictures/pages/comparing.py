"""What one query's weights, and values above or below their average, do to the gradient of its logits."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photo_features, photograph
from npattn.ops import softmax
from npattn.pictures.features import EYE, smooth, standardise
from npattn.pictures.showing import bright, show, signed

__all__ = ["draw_compared"]

CHANNELS, STEP, SCALE = 6, 5, 0.3
"""Of queries and keys; the photograph's rows that one row of the map stands for; of the logits."""


def draw_compared() -> Figure:
    """Draw where the cat's eye looks, how bright that is beside what it sees on average, and what the logits get."""
    v = photograph()[::STEP, ::STEP].mean(axis=2) / 255
    x = standardise(smooth(photo_features(CHANNELS, *v.shape), 2))[0]
    q = x[:, EYE[0] // STEP, EYE[1] // STEP]
    s = softmax(SCALE * np.einsum("c,chw->hw", q, x).reshape(-1))[0].reshape(v.shape)
    better = v - (s * v).sum()
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    weights, values, logits = figure.subplots(1, 3)
    show(weights, s, "weights $s$ of one query", bar="", shrink=0.8, **bright(s))
    show(values, better, r"$\bar s - \delta$: brighter than $o$", bar="", shrink=0.8, **signed(np.abs(better).max()))
    limit = float(np.quantile(np.abs(s * better), 0.995))
    show(logits, s * better, r"$\bar z = s (\bar s - \delta)$", bar="", shrink=0.8, **signed(limit))
    for axis in (weights, values, logits):
        axis.plot(EYE[1] // STEP, EYE[0] // STEP, "+", color="tab:green", markersize=9)
    return figure

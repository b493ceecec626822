"""Weights of linear attention, which are never made, beside the small matrix that stands for them."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from npattn.data import photo_features
from npattn.ops import softmax
from npattn.pictures.features import EYE, smooth, standardise
from npattn.pictures.showing import bright, show, signed

__all__ = ["draw_context"]

CHANNELS, STEP = 4, 4
"""Of queries, keys and values, and the photograph's rows that one row of the map stands for."""


def draw_context() -> Figure:
    """Draw the weights of one row's positions for each other, by products and by a softmax, and the context."""
    x = standardise(smooth(photo_features(CHANNELS, 200 // STEP, 300 // STEP), 0.7))[0, :, EYE[0] // STEP]
    count = x.shape[1]
    weights, context = x.T @ x / count, x @ x.T / count  # queries, keys and values are the same
    # Names of rows stay clear of the bars beside them.
    figure = Figure(figsize=(11, 4.2), layout=ConstrainedLayoutEngine(wspace=0.06))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    name = f"$\\lambda Q^\\top K$: {count}×{count} weights of rank {np.linalg.matrix_rank(weights)},\nof either sign"
    show(left, weights, name, bar="", ticks=True, **signed(float(np.quantile(np.abs(weights), 0.99))))
    s = softmax(x.T @ x)[0]
    show(middle, s, "by a softmax: of any rank, above 0,\nand each row adds up to 1", bar="", ticks=True, **bright(s))
    name = f"$G = \\lambda V K^\\top$:\n{CHANNELS}×{CHANNELS} numbers, which are made"
    show(right, context, name, bar="", ticks=True, **signed(float(np.abs(context).max())))
    for axis, columns, rows in (
        (left, "key", "query"),
        (middle, "key", "query"),
        (right, "channel of K", "channel of V"),
    ):
        axis.set(xlabel=columns, ylabel=rows, xticks=[], yticks=[])
    return figure

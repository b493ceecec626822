"""What the diversity penalty does to heads: it sharpens them, and tells apart those that look at the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure, SubFigure

from npattn.attention import MultiHeadSelfAttention, diversity_penalty
from npattn.data import photo_features
from npattn.ops import softmax
from npattn.pictures.attention_maps import positions_of, tie_keys
from npattn.pictures.features import EYE, smooth, standardise
from npattn.pictures.showing import enlarge, show_dimmed
from npattn.typing import Array

__all__ = ["draw_diversity"]

SIZE = 20, 30
"""Positions of the map: every tenth pixel of the photograph."""
NUM_HEADS = 4
STEP_LENGTH = 0.2
"""How far the logit moves that a step moves most."""
PENALTIES = 2.0, 0.1
"""Where on the way down the heads are drawn."""


def head_weights() -> Array:
    """Make where the cat's eye looks, with heads that each have a similarity of their own: (NUM_HEADS, N)."""
    module = replace(MultiHeadSelfAttention.example(), channels=14 * NUM_HEADS, heads=NUM_HEADS)
    x = standardise(smooth(photo_features(module.channels, *SIZE), 1.0))
    x /= np.sqrt((x**2).sum(axis=1, keepdims=True))
    params = tie_keys(module, module.init(0))
    return module.attention_map(params, x, positions_of((EYE,), SIZE))[0, :, 0]


def draw_diversity() -> Figure:
    """Draw the weights of some heads before, on the way and after descending their penalty by the logits alone."""
    weights = head_weights()
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    rows = figure.subfigures(1 + len(PENALTIES), 1, squeeze=False).ravel()
    draw_heads(rows[0], weights)
    z = np.log(weights)
    for row, enough in zip(rows[1:], PENALTIES, strict=True):
        weights, back_softmax = softmax(z)
        penalty, back_penalty = diversity_penalty(weights)
        while penalty > enough:
            dz = back_softmax(back_penalty(np.ones(())))
            z = z - STEP_LENGTH * dz / np.abs(dz).max()
            weights, back_softmax = softmax(z)
            penalty, back_penalty = diversity_penalty(weights)
        draw_heads(row, weights)
    return figure


def draw_heads(row: SubFigure, weights: Array) -> None:
    """Draw each head's weights, and say over how many positions they are spread and how much they overlap."""
    products = weights @ weights.T
    lengths = np.sqrt(np.diag(products))
    cosines = products / lengths / lengths[:, None]
    penalty, _ = diversity_penalty(weights)
    most = (cosines - np.eye(NUM_HEADS)).max()
    row.suptitle(f"penalty {penalty:.2f}; cosine of the two heads most alike {most:.2f}", fontsize=10)
    for axis, head, product in zip(row.subplots(1, NUM_HEADS), weights, np.diag(products), strict=True):
        heat = enlarge((head / head.max()).reshape(SIZE))
        spread = f"{1 / product:.0f} positions" if product < 0.66 else "one position"
        show_dimmed(axis, f"spread as over {spread}" if axis is row.axes[0] else spread, fontsize=9)
        axis.imshow(heat, cmap="hot", vmin=0, vmax=1, alpha=0.9 * heat)

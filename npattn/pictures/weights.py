"""How weights are spread over a map, and how scores are made to spread them so."""

from __future__ import annotations

import numpy as np
import scipy

from npattn.typing import Array, Params

__all__ = ["HALF_SHARE", "half_share", "score_layer", "score_map", "sharpness"]

HALF_SHARE = 0.01
"""Share of the map on which half of the weight lies."""


SCORE_LAYERS = "score", "conv_attn"
"""What systems call the layer that gives every position one score."""


def score_layer(params: Params) -> str | None:
    """Return what a system calls the layer that gives every position one score, if it has one."""
    return next((name for name in SCORE_LAYERS if f"{name}.weight" in params), None)


def score_map(params: Params, x: Array) -> Array:
    """Score every position."""
    name = score_layer(params)
    return np.tensordot(params[f"{name}.weight"][0, :, 0, 0], x[0], 1) + params[f"{name}.bias"]


def sharpness(scores: Array) -> float:
    """Find by what to multiply scores so that half of their softmax falls on `HALF_SHARE` of the map."""
    factors = np.geomspace(100, 1e-4, 400) / scores.std()
    softmax = scipy.special.softmax
    return next(factor for factor in factors if half_share(softmax(factor * scores.ravel())) >= HALF_SHARE)


def half_share(weights: Array) -> float:
    """Count the largest weights that make up half of all, as a share of their number.

    Examples
    --------
    >>> half_share(np.array([0.1, 0.6, 0.1, 0.2]))
    0.25
    """
    return float((1 + np.searchsorted(np.cumsum(np.sort(weights)[::-1]), weights.sum() / 2)) / len(weights))

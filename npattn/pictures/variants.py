"""What attention's options let a pixel see, and what it makes of that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photo_features
from npattn.pictures.attention_maps import HIGHEST_LOGIT, draw_rows, positions_of
from npattn.pictures.features import smooth, standardise
from npattn.pictures.scene import Scene
from npattn.typing import Array

__all__ = ["NUM_VARIANTS", "draw_variants"]

TOKEN_MAP = 50, 75
"""Positions that are queries and keys, row by row: every fourth pixel of the photograph."""
VARIANTS: dict[str, dict[str, Any]] = {
    "all keys": {},
    "causal": {"causal": "bottom-right"},
    "window": {"window": (10 * TOKEN_MAP[1], 10 * TOKEN_MAP[1])},
    "softcap 2": {"softcap": 2.0},
}
"""Options that differ from those of plain attention, by what a panel calls them."""
NUM_VARIANTS = len(VARIANTS)


def draw_variants(figure: SubFigure, scene: Scene) -> None:
    """Draw where some pixels look, over the photograph, with some options; a row of panels each.

    Positions are tokens row by row: a causal query sees what stands above it, one with a window some rows around.
    """
    figure.suptitle(
        "where five pixels look, with some options; queries and keys are smooth features of unit length, of positions "
        "in reading order: like looks at like, where it may",
        fontsize=10,
    )
    tokens = unit_tokens()
    plain = type(scene.inner)(heads=1, head_dim=tokens.shape[-1], scale=HIGHEST_LOGIT)
    positions = positions_of(scene.pixels, TOKEN_MAP)
    rows = {
        name: replace(plain, **options).attention_map({}, tokens, tokens, rows=positions)[0, 0]
        for name, options in VARIANTS.items()
    }
    draw_rows(figure, rows, TOKEN_MAP, scene.pixels)


def unit_tokens() -> Array:
    """Make a token of every position, (1, 1, N, C): the photograph's features there, of unit length."""
    x = standardise(smooth(photo_features(54, *TOKEN_MAP), 0.75))
    x = x / np.sqrt((x**2).sum(axis=1, keepdims=True))
    return x.reshape(1, 1, x.shape[1], -1).swapaxes(2, 3)

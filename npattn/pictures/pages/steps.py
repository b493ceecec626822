"""The error of a derivative over the size of its step: differences, whose digits cancel, and the complex step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from npattn.attention import SqueezeExcitation
from npattn.data import photo_features
from npattn.pictures.showing import LOWERED, RAISED
from npattn.typing import Array, Params

__all__ = ["draw_steps"]

MODULE = SqueezeExcitation(channels=6, reduction=2, activation="silu")
"""Without a kink, which a long step would cross."""
SIZE = 25, 38
SIZES = 10.0 ** np.arange(-20, 0.3, 0.5)
NUM_DIRECTIONS = 20
DIGIT = 2.0**-53
"""The unit roundoff of float64: what no error is drawn below."""


def draw_steps() -> Figure:
    """Draw the errors of one-sided and central differences and of the complex step, over twenty directions."""
    x = photo_features(MODULE.channels, *SIZE)
    params = MODULE.init(seed=0, generic=True)
    random = np.random.RandomState(0)
    dy = random.standard_normal(x.shape)
    dx, _ = MODULE(params, x).backward(dy)
    directions = random.standard_normal((NUM_DIRECTIONS, *x.shape[1:]))
    found = np.array([slopes(params, x, dy, directions, h) for h in SIZES])
    exact = (dx * directions).sum(axis=(1, 2, 3))
    errors = np.sqrt(((found - exact) ** 2).mean(axis=-1) / (exact**2).mean())
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    axis = figure.add_subplot()
    styles: dict[str, tuple[str, str]] = {
        "one-sided difference": ("#e4a11b", "o"),
        "central difference": (LOWERED, "s"),
        "complex step": (RAISED, "^"),
    }
    for (name, (colour, marker)), line in zip(styles.items(), errors.T, strict=True):
        axis.loglog(SIZES, np.maximum(line, DIGIT), marker, color=colour, label=name, markersize=4, linestyle="-")
    axis.set(xlabel="step $h$", ylabel="relative error")
    axis.axhline(DIGIT, color="black", linewidth=0.8, linestyle=":")
    axis.text(SIZES[-1], 1.5 * DIGIT, r"unit roundoff $\epsilon$", ha="right", fontsize=9)
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 0.1)}
    axis.legend(frameon=False, **place)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def slopes(params: Params, x: Array, dy: Array, directions: Array, h: float) -> Array:
    """Return the slope of ⟨dy, y⟩ along each direction, (direction, way), by all three ways."""

    def loss(moved: Array) -> Array:
        return (dy * MODULE(params, moved).output).sum(axis=(1, 2, 3))

    here, ahead, behind = loss(x), loss(x + h * directions), loss(x - h * directions)
    lifted = {name: value.astype(complex) for name, value in params.items()}
    aside = (dy * MODULE(lifted, x + 1j * h * directions).output).sum(axis=(1, 2, 3)).imag
    return np.stack([(ahead - here) / h, (ahead - behind) / (2 * h), aside / h])

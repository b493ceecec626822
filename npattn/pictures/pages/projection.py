"""Batch norm's backward pass as what it is: a projection."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from npattn.ops import batch_norm
from npattn.pictures.pages.circuit import GRADIENT, VALUE

__all__ = ["draw_projection"]


def draw_projection() -> Figure:
    """Draw three numbers of one channel as a vector, and what the backward pass leaves of a gradient."""
    x, dy = np.array([0.0, 1.0, 5.0]), np.array([1.0, -1.0, 2.0])
    one = np.ones(1)
    (normal, _), back = batch_norm(x.reshape(3, 1, 1, 1), one, 0 * one, 0 * one, one, training=True, eps=0.0)
    normal, dx = normal.ravel(), back(dy.reshape(3, 1, 1, 1))[0].ravel()
    left = dx * x.std()  # without the factor r: what the projection leaves
    # Coordinates: along 1, along the normalised numbers, and across both.
    across = np.cross(np.ones(3), normal)
    basis = np.stack([np.ones(3), normal, across / np.linalg.norm(across) * 3**0.5]) / 3**0.5
    flat, rest = basis @ (dy - left), basis @ left

    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axis = figure.add_subplot(projection="3d", computed_zorder=False)
    plane = np.array([[-0.4, -0.6, 0], [2.2, -0.6, 0], [2.2, 2.2, 0], [-0.4, 2.2, 0]])
    axis.add_collection3d(Poly3DCollection([plane], facecolor="0.85", alpha=0.6, edgecolor="0.7"))
    arrows = {
        "$\\mathbf{1}$": (basis @ np.ones(3), "0.35"),
        "$\\hat x$": (basis @ normal, VALUE),
        "$\\bar y$": (flat + rest, "#1f6f8b"),
        "taken off": (flat, "0.55"),
        "$\\bar x / \\gamma r$": (rest, GRADIENT),
    }
    for name, (end, colour) in arrows.items():
        axis.quiver(0, 0, 0, *end, color=colour, linewidth=2, arrow_length_ratio=0.12)
        axis.text(*(1.08 * end), name, color=colour, fontsize=13)
    axis.plot(*np.stack([flat, flat + rest]).T, ":", color="0.4")
    axis.plot(*np.stack([rest, flat + rest]).T, ":", color="0.4")
    axis.set(xlim=(-0.59, 2.39), ylim=(-0.8, 2.4), zlim=(-0.035, 1.73))  # matplotlib 3.8 would leave out the plane
    axis.set_axis_off()
    axis.set_box_aspect((1, 1.2, 0.7), zoom=1.35)
    axis.view_init(elev=18, azim=-62)
    numbers = ", ".join(f"{value:.2f}" for value in left).replace("-", "−")
    axis.set_title(
        f"x = (0, 1, 5), $\\bar y$ = (1, −1, 2): ({numbers}) remains,\nnothing along $\\mathbf{{1}}$ and $\\hat x$",
        fontsize=11,
    )
    return figure

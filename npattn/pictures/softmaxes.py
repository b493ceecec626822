"""One gate of the positions, with its softmax in three places."""

from __future__ import annotations

from matplotlib.figure import SubFigure

from npattn.attention.polarized import gate_positions
from npattn.data import photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import show

__all__ = ["draw_softmaxes"]

PLACES = {
    "parallel": "of the products\n(code, parallel)",
    "sequential": "of the values\n(code, sequential)",
    "paper": "of the mean query\n(paper)",
}
"""Of what the softmax is, by what makes the gates."""


def draw_softmaxes(figure: SubFigure, scene: Scene) -> None:
    """Draw the gates that the same queries and values make where the softmax is of something else."""
    figure.suptitle(
        "gates of the positions by the same queries and values, with the softmax in three places", fontsize=10
    )
    axes = figure.subplots(1, 1 + len(PLACES))
    show(axes[0], photograph(), "photograph")
    left = {name: scene.params[name] for name in ("conv_q_left.weight", "conv_v_left.weight")}
    for axis, (gates, words) in zip(axes[1:], PLACES.items(), strict=True):
        (_, b), _ = gate_positions(scene.x, left, gates)
        title = f"{words}: {b.min():.5f} to {b.max():.5f}"
        show(axis, b[0, 0], title, fontsize=9, cmap="viridis")

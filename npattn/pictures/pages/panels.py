"""What a system attends to: one panel of its large picture, small."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure

from npattn.attention import CATALOGUE
from npattn.pictures.figure import choose_panels
from npattn.pictures.scene import make_scene

__all__ = ["draw_panel"]

COARSE = 50, 75
"""Positions of the map where all look at all: every fourth pixel of the photograph."""
LINE = 110
"""Characters of a line of a title."""


def draw_panel(key: str) -> Figure:
    """Draw the panel of a system that shows its attention, by what `npattn show` draws.

    Parameters
    ----------
    key : str
        Of `CATALOGUE`.
    """
    module = CATALOGUE[key].example()
    scene = make_scene(module, seed=0, at=None, size=COARSE if module.pairs_positions else None)
    function, height = choose_panels(scene)[-1]
    figure = Figure(figsize=(11, 0.92 * height + 0.2), layout="constrained")
    panel = figure.add_subfigure(figure.add_gridspec(1, 1)[0])
    function(panel, scene)
    if title := panel.get_suptitle():
        panel.suptitle(textwrap.fill(title, LINE), fontsize=10)
    for axis in figure.axes:
        axis.title.set_fontsize(0.9 * float(axis.title.get_fontsize()))
    return figure

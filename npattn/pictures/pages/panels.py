"""What a system attends to: the last panels of its large picture, small."""

from __future__ import annotations

import textwrap

from matplotlib.figure import Figure
from matplotlib.text import Text

from npattn.attention import CATALOGUE
from npattn.pictures.figure import choose_panels
from npattn.pictures.scene import make_scene

__all__ = ["draw_panels"]

COARSE_SIZE = 50, 75
"""Positions of the map where all look at all: every fourth pixel of the photograph."""
LINE_LENGTH = 110
"""Characters of a line of a title."""
MOST_LABELS = 12
"""Of one axis."""


def draw_panels(key: str, shown: int = 1) -> Figure:
    """Draw the panels of a system that show its attention, by what `npattn show` draws.

    Parameters
    ----------
    key : str
        Of `CATALOGUE`.
    shown : int, default 1
        How many panels, counted from the last.
    """
    module = CATALOGUE[key].example()
    scene = make_scene(module, seed=0, at=None, size=COARSE_SIZE if module.pairs_positions else None)
    functions, heights = zip(*choose_panels(scene)[-shown:], strict=True)
    figure = Figure(figsize=(11, 0.92 * sum(heights) + 0.2), layout="constrained")
    panels = figure.subfigures(shown, 1, squeeze=False, height_ratios=heights)
    for panel, function in zip(panels.flat, functions, strict=True):
        function(panel, scene)
        if title := panel.get_suptitle():
            panel.suptitle(textwrap.fill(title, LINE_LENGTH), fontsize=10)
    for axis in figure.axes:
        axis.title.set_fontsize(0.9 * float(axis.title.get_fontsize()))
        if axis.axison:  # where axes are hidden, to ask for labels makes them: a quarter of the time
            for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
                if len(labels) > MOST_LABELS:
                    thin_out(labels)
    return figure


def thin_out(labels: list[Text]) -> None:
    """Show as many labels of an axis as can be read beside each other."""
    step = -(-len(labels) // MOST_LABELS)
    for number, label in enumerate(labels):
        label.set_visible(number % step == 0)
        label.set_fontsize(8)

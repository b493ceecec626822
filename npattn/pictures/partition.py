"""Where pixels look within windows, which stand still or have moved."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.attention_maps import draw_rows, positions_of, tie_keys, unit_features
from npattn.pictures.scene import Scene

__all__ = ["draw_partition"]

HIGHEST_LOGIT = 4
"""Logit of a position with itself, so low that much of a window is seen."""
WINDOW = 24
"""Rows and columns of the windows that are drawn."""


def draw_partition(figure: SubFigure, scene: Scene) -> None:
    """Draw where some pixels look, with the edges of windows: as they stand, and moved by the shift."""
    figure.suptitle(
        "where five pixels look in windows that stand still (above) or have moved by half of one (below), with queries "
        "and keys made by one random projection",
        fontsize=10,
    )
    forms = {
        name: replace(scene.inner, channels=54, heads=1, window=WINDOW, shift=shift)
        for name, shift in (("still", 0), ("moved", WINDOW // 2))
    }
    x, rows = unit_features(54, scene.size), positions_of(scene.pixels, scene.size)
    maps = {
        name: module.attention_map(tie_keys(module, module.init(scene.seed), HIGHEST_LOGIT), x, rows)[0, 0]
        for name, module in forms.items()
    }
    draw_rows(figure, maps, scene.size, scene.pixels)
    step = photograph().shape[0] // scene.size[0]
    for number, axis in enumerate(figure.axes):
        module = list(forms.values())[number // len(scene.pixels)]
        for line, length in zip((axis.axhline, axis.axvline), scene.size, strict=True):
            for edge in range(module.shift or WINDOW, length, WINDOW):
                line(step * edge - 0.5, color="white", linewidth=0.5)

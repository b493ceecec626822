"""Maps that gather, and what each position takes of them."""

from __future__ import annotations

from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import add_class_legend, show, show_classes, show_weights
from npattn.pictures.weights import half_share

__all__ = ["draw_gathering"]

NUM_SHOWN = 4
"""Maps that are drawn."""


def draw_gathering(figure: SubFigure, scene: Scene) -> None:
    """Draw where maps gather and, below each, how much positions take of it: those of the first head."""
    gather, distribute = (scene.run.attention[name][0] for name in ("gather", "distribute"))
    count = len(gather) // getattr(scene.inner, "heads", 1)
    columns = min(count, NUM_SHOWN)
    above, below = figure.subplots(2, columns + 1)
    show(above[0], photograph(), "photograph")
    largest = distribute[:count].argmax(axis=0)
    show_classes(below[0], largest, "of which map most is taken", 0.65)
    add_class_legend(below[0], largest, [f"map {k}" for k in range(count)], ncols=2)
    for k in range(columns):
        half = f"map {k} gathers: half on {half_share(gather[k].ravel()):.0%}"
        show_weights(above[k + 1], gather[k], half, fontsize=9)
        taken = f"of map {k}: from {distribute[k].min():.0%} to {distribute[k].max():.0%}"
        show(below[k + 1], distribute[k], taken, bar="", fontsize=9, cmap="viridis")
